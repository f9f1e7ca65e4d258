"""Noise has the asked-for strength, is neither clipped nor rounded, and is drawn per image."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from denoiseg_flow.data import manifest, noise
from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.store import write_array
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.study import configuration

GAUSSIAN = {"kind": "gaussian", "sigma": 20, "seed": 0}
FLAT = np.full((400, 400), 50, np.uint8)
LEVELS = [
    {"kind": "none"},
    {"kind": "gaussian", "sigma": 20},
    {"kind": "gaussian_factor", "factor": 0.1},
    {"kind": "poisson", "photons": 0.5},
    {"kind": "poisson_gaussian", "photons": 0.5, "sigma": 20},
    {"kind": "bernoulli", "dropped": 0.3},
    {"kind": "salt_and_pepper", "flipped": 0.3},
    {"kind": "gaussian_bernoulli", "sigma": 20, "dropped": 0.3},
    {"kind": "poisson_gaussian_bernoulli", "photons": 0.5, "sigma": 20, "dropped": 0.3},
    {"kind": "structured", "sigma": 20, "length": 9, "axis": "x"},
]


def with_manifest(folder, names):
    """A prepared dataset of which only the names of the images matter."""
    prepared = PreparedData(folder)
    columns = dict.fromkeys(manifest.MANIFEST_COLUMNS, 0)
    manifest.write(pd.DataFrame(columns | {"image": list(names)}), prepared.manifest_file)
    return prepared


def draw(image, **level):
    return noise.noisy_copy(image, {"seed": 0} | level, "test", "a")


def test_gaussian_noise_has_mean_zero_and_its_sigma():
    noisy = draw(np.zeros((400, 400), np.uint8), **GAUSSIAN)
    assert noisy.dtype == np.float32
    assert abs(noisy.mean()) < 5 * 20 / 400
    assert noisy.std() == pytest.approx(20, rel=0.01)
    assert noisy.min() < -50 and not np.array_equal(noisy, np.rint(noisy))


@pytest.mark.parametrize("copy", [0, 1, 2])
def test_gaussian_noise_is_that_of_the_generator(copy):
    """Studies of the past can be repeated: the first copy is drawn as it always was."""
    purpose = ("noise", "n20", "a") if copy == 0 else ("noise", "n20", "a", "copy", copy)
    normal = generator(7, *purpose).standard_normal(FLAT.shape, np.float32)
    noisy = noise.noisy_copy(FLAT, GAUSSIAN | {"seed": 7}, "n20", "a", copy)
    np.testing.assert_array_equal(noisy, np.float32(50) + np.float32(20) * normal)


@pytest.mark.parametrize("shape", [(5, 60, 70), (2, 5, 40, 50)])
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level["kind"])
def test_noise_of_volumes_and_channels(level, shape):
    """Of every plane and channel as strong as of an image of their own, and independent."""
    volume, flat = np.full(shape, 50, np.uint8), np.full((600, 700), 50, np.uint8)
    for image in (volume, flat):
        image[..., 0, :2] = 0, 200  # the range that some kinds depend on
    noisy = draw(volume, **level)
    assert (noisy.shape, noisy.dtype) == (shape, np.float32)
    if level["kind"] == "none":
        return
    planes = (noisy - 50).reshape(-1, *shape[-2:])[:, 1:]
    expected = (draw(flat, **level) - 50)[1:].std()
    assert [plane.std() for plane in planes] == pytest.approx([expected] * len(planes), rel=0.15)
    # Structured noise repeats itself along x, over nine pixels.
    off_diagonal = np.corrcoef([plane.ravel() for plane in planes])[np.triu_indices(len(planes), 1)]
    assert (abs(off_diagonal) < 5 * (9 / planes[0].size) ** 0.5).all()


@pytest.mark.parametrize("axis", ["x", "y"])
def test_structured_noise_of_volumes_lies_in_planes(axis):
    """As correlated along its axis as in an image, and not along z."""
    added = draw(np.zeros((40, 90, 100)), kind="structured", sigma=20, length=3, axis=axis)
    assert added.std() == pytest.approx(20, rel=0.02)
    for direction in range(3):
        turned = np.moveaxis(added, direction, 0)
        found = np.corrcoef(turned[1:].ravel(), turned[:-1].ravel())[0, 1]
        along = direction == (2 if axis == "x" else 1)
        assert found == pytest.approx(2 / 3 if along else 0, abs=0.02)


def test_copies_are_independent():
    added = [noise.noisy_copy(FLAT, GAUSSIAN, "n20", "a", copy).ravel() for copy in range(3)]
    off_diagonal = np.corrcoef(added)[np.triu_indices(3, 1)]
    assert (abs(off_diagonal) < 5 / 400).all()


def test_gaussian_factor_is_relative_to_the_range():
    image = np.tile(np.array([100, 300], np.uint16), (400, 200))
    added = draw(image, kind="gaussian_factor", factor=0.1) - image
    assert added.std() == pytest.approx(0.1 * 200, rel=0.01)


def test_variance_of_poisson_noise_is_the_image_over_the_photons():
    image = np.repeat(np.array([[2, 50]], np.float32), 400, axis=0).repeat(400, axis=1)
    noisy = draw(image, kind="poisson", photons=0.5)
    counts = 0.5 * noisy
    np.testing.assert_array_equal(counts, np.rint(counts))
    for value, half in ((2, noisy[:, :400]), (50, noisy[:, 400:])):
        variance = value / 0.5
        assert half.mean() == pytest.approx(value, abs=5 * np.sqrt(variance) / 400)
        # The fourth moment of a Poisson variable exceeds the normal one by 1 / mean.
        error = variance * np.sqrt(2 + 1 / (0.5 * value)) / 400
        assert half.var() == pytest.approx(variance, abs=5 * error)


def test_variances_of_poisson_and_gaussian_noise_add_up():
    noisy = draw(FLAT, kind="poisson_gaussian", photons=0.5, sigma=20)
    assert noisy.mean() == pytest.approx(50, abs=5 * np.sqrt(500) / 400)
    assert noisy.var() == pytest.approx(50 / 0.5 + 20**2, rel=0.02)


@pytest.mark.parametrize(
    ("level", "variance"),
    [
        ({"kind": "bernoulli"}, 0),
        ({"kind": "gaussian_bernoulli", "sigma": 5}, 25),
        ({"kind": "poisson_gaussian_bernoulli", "photons": 2, "sigma": 5}, 50),
    ],
)
def test_dropped_pixels_are_zero(level, variance):
    noisy = draw(FLAT, dropped=0.3, **level)
    assert np.mean(noisy == 0) == pytest.approx(0.3, abs=5 * np.sqrt(0.21) / 400)
    others = noisy[noisy != 0]
    assert others.mean() == pytest.approx(50, abs=0.1)
    assert others.var() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("flipped", [0.3, 1])
def test_half_of_the_flipped_pixels_is_white_and_half_black(flipped):
    image = np.full((400, 400), 50, np.int16)
    image[0, :2] = -7, 90
    noisy = draw(image, kind="salt_and_pepper", flipped=flipped)
    for value, share in ((-7, flipped / 2), (90, flipped / 2), (50, 1 - flipped)):
        error = np.sqrt(share * (1 - share)) / 400
        assert np.mean(noisy == value) == pytest.approx(share, abs=5 * error + 2 / 400**2)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("length", [2, 9])
def test_correlation_of_structured_noise_falls_linearly(axis, length):
    image = np.full((600, 700), 50, np.uint8)
    noisy = draw(image, kind="structured", sigma=20, length=length, axis=axis)
    assert noisy.shape == image.shape and noisy.dtype == np.float32
    added = (noisy if axis == "x" else noisy.T) - 50
    error = np.sqrt(length / added.size)  # generous: neighbours repeat each other
    assert added.std() == pytest.approx(20, rel=5 * error)
    for distance in range(1, length + 3):
        along = np.corrcoef(added[:, distance:].ravel(), added[:, :-distance].ravel())[0, 1]
        assert along == pytest.approx(max(0, 1 - distance / length), abs=5 * error)
        across = np.corrcoef(added[distance:].ravel(), added[:-distance].ravel())[0, 1]
        assert across == pytest.approx(0, abs=5 * error)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_structured_noise_is_as_strong_at_the_border(axis):
    size = (4, 20000)
    image = np.zeros(size if axis == "y" else size[::-1])
    added = draw(image, kind="structured", sigma=20, length=9, axis=axis)
    added = added if axis == "y" else added.T
    for row in added:
        assert row.std() == pytest.approx(20, rel=5 / np.sqrt(2 * 20000))


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level["kind"])
def test_every_kind_keeps_the_image_and_repeats_itself(level):
    image = np.arange(30, dtype=np.uint16).reshape(5, 6)
    noisy = draw(image, **level)
    assert noisy.dtype == np.float32 and noisy.shape == (5, 6)
    np.testing.assert_array_equal(image, np.arange(30).reshape(5, 6))
    np.testing.assert_array_equal(noisy, draw(image, **level))
    assert noise.draws_noise(level) == (level["kind"] != "none")
    assert np.array_equal(noisy, draw(image, **level | {"seed": 1})) != noise.draws_noise(level)


def test_levels_in_words_and_numbers():
    words = {noise.describe(level | {"seed": 3}) for level in LEVELS}
    assert {"none", "gaussian, sigma 20", "structured, sigma 20, length 9, axis x"} <= words
    assert "poisson_gaussian_bernoulli, photons 0.5, sigma 20, dropped 0.3" in words
    known = {level["kind"]: noise.standard_deviation(level) for level in LEVELS}
    assert {kind for kind, sigma in known.items() if sigma is not None} == {
        "gaussian", "structured",
    }  # fmt: skip
    assert known["gaussian"] == known["structured"] == 20


def test_schema_and_documentation_know_all_kinds(root, schema):
    keys = schema["$defs"]["noise"]["properties"]
    assert keys["kind"]["enum"] == list(noise.KINDS) == [level["kind"] for level in LEVELS]
    assert set(keys) == {"seed"}.union(*LEVELS)
    text = (root / "config/README.md").read_text().split("### Kinds of noise")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", text, re.MULTILINE)
    shown = {kind: set(re.findall(r"`(\w+)`", cell)) for kind, cell in rows[1:]}
    assert shown == {level["kind"]: set(level) - {"kind"} for level in LEVELS}


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level["kind"])
def test_only_photons_cannot_be_negative(level):
    image = np.array([[-3.5, 2], [1, 0]], np.float32)
    assert noise.counts_photons(level) == ("photons" in level)
    if "photons" not in level:
        assert np.isfinite(draw(image, **level)).all()
        return
    with pytest.raises(InputError) as caught:
        draw(image, **level)
    for words in ("image a holds", "minimum -3.5", "noises.test", "add a constant"):
        assert words in str(caught.value)


def test_negative_values_are_found_in_their_file(tmp_path):
    for name, low in (("a", 0), ("b", -1)):
        write_array(tmp_path / f"images/{name}.tif", np.array([[low, 5.5]], np.float32))
    level = {"kind": "poisson", "photons": 1, "seed": 0}
    prepared = with_manifest(tmp_path, "ab")
    with pytest.raises(InputError, match=r"images/b\.tif holds negative .* noises\.low"):
        noise.add_noise_to_folder(prepared, level, "low", tmp_path / "out")


@given(st.sampled_from([np.uint8, np.uint16, np.float32]), st.integers(0, 200))
def test_no_noise_changes_only_the_type(dtype, value):
    image = np.full((3, 4), value, dtype)
    noisy = draw(image, kind="none")
    assert noisy.dtype == np.float32
    np.testing.assert_array_equal(noisy, image)
    noisy += 1
    assert (image == value).all()


STRUCTURED = LEVELS[-1]


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ({"kind": "salt"}, ["'salt'", "none, gaussian"]),
        ({}, ["None", "none, gaussian"]),
        ({"kind": "gaussian"}, ["sigma", "missing"]),
        ({"kind": "gaussian", "sigma": 0}, ["sigma", "is 0"]),
        ({"kind": "gaussian", "sigma": -3}, ["sigma", "is -3"]),
        ({"kind": "gaussian", "sigma": float("nan")}, ["sigma", "nan"]),
        ({"kind": "gaussian", "sigma": True}, ["sigma", "True"]),
        ({"kind": "gaussian", "sigma": "20"}, ["sigma", "'20'"]),
        ({"kind": "none", "sigma": 20}, ["sigma", "no parameters"]),
        ({"kind": "poisson", "photons": 1, "sigma": 2}, ["sigma is no", "which takes photons"]),
        ({"kind": "poisson", "photons": float("inf")}, ["photons", "inf", "above 0"]),
        ({"kind": "poisson_gaussian", "photons": 1}, ["sigma of poisson_gaussian", "missing"]),
        ({"kind": "gaussian_factor", "factor": 0}, ["factor", "is 0", "above 0"]),
        ({"kind": "bernoulli", "dropped": 1}, ["dropped", "is 1", "below 1"]),
        ({"kind": "bernoulli", "dropped": 0}, ["dropped", "is 0", "above 0"]),
        ({"kind": "bernoulli", "dropped": True}, ["dropped", "True"]),
        ({"kind": "salt_and_pepper", "flipped": 1.1}, ["flipped", "is 1.1", "at most 1"]),
        ({"kind": "salt_and_pepper", "flipped": None}, ["flipped", "is None"]),
        (STRUCTURED | {"length": 1}, ["length", "is 1", "at least 2"]),
        (STRUCTURED | {"length": 2.5}, ["length", "is 2.5", "whole number"]),
        (STRUCTURED | {"axis": "z"}, ["axis", "'z'", "x or y"]),
        (STRUCTURED | {"sigma": 0}, ["sigma of structured noise is 0"]),
    ],
)
def test_refuses_incomplete_levels(level, words):
    for refuse in (noise.check_level, lambda *entry: noise.noisy_copy(FLAT, *entry[::-1], "a")):
        with pytest.raises(InputError) as caught:
            refuse("n20", level | {"seed": 0})
        message = str(caught.value)
        assert "noises.n20" in message and all(word in message for word in words)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level["kind"])
def test_accepts_complete_levels(study, schema, level):
    noise.check_level("n20", level)
    noise.check_level("n20", level | {"seed": 3})
    study["noises"]["n20"] = level
    configuration.check(study, schema)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sigma", 0, "in grey levels of the images, above 0"),
        ("factor", 0, "above 0"),
        ("photons", -1, "above 0"),
        ("dropped", 0, "above 0 and below 1"),
        ("dropped", 1, "above 0 and below 1"),
        ("flipped", 0, "minimum of 0"),
        ("flipped", 1.01, "at most 1"),
        ("length", 1, "minimum of 2"),
        ("length", 2.5, "type integer"),
        ("axis", "z", "available: x, y"),
    ],
)
def test_schema_refuses_the_same_values(study, schema, key, value, words):
    level = next(level for level in LEVELS if key in level) | {key: value}
    with pytest.raises(InputError, match=f"^{key} of .* is {value!r}"):
        noise.check_level("n20", level)
    study["noises"]["n20"] = level
    with pytest.raises(InputError, match=rf"^config key 'noises\.n20\.{key}'.*{words}"):
        configuration.check(study, schema)


def test_noise_of_an_image_depends_on_no_other_image(tmp_path):
    images = {name: np.arange(30, dtype=np.uint8).reshape(5, 6) for name in "abc"}
    for name, image in images.items():
        write_array(tmp_path / "images" / f"{name}.tif", image)

    def noisy(names, level="n20", seed=0, folder="out"):
        spec = GAUSSIAN | {"seed": seed}
        noise.add_noise_to_folder(with_manifest(tmp_path, names), spec, level, tmp_path / folder)
        return {name: read_image(tmp_path / folder / f"{name}.tif") for name in names}

    few, many = noisy("ac"), noisy("cba", folder="many")
    np.testing.assert_array_equal(few["a"], noise.noisy_copy(images["a"], GAUSSIAN, "n20", "a"))
    np.testing.assert_array_equal(few["c"], many["c"])
    for other in (many["b"], noisy("c", level="n10")["c"], noisy("c", seed=1)["c"]):
        assert not np.array_equal(few["c"], other)
