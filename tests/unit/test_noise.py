"""Noise has the asked-for strength, is neither clipped nor rounded, and is drawn per image."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from denoiseg_flow.data import noise
from denoiseg_flow.data.images import read_image, write_image
from denoiseg_flow.errors import InputError
from denoiseg_flow.seeds import generator

GAUSSIAN = {"kind": "gaussian", "sigma": 20}


def test_gaussian_noise_has_mean_zero_and_its_sigma():
    image = np.zeros((400, 400), np.uint8)
    noisy = noise.add_noise(image, GAUSSIAN, generator(0, "test"))
    assert noisy.dtype == np.float32
    assert abs(noisy.mean()) < 5 * 20 / 400
    assert noisy.std() == pytest.approx(20, rel=0.01)
    assert noisy.min() < -50 and not np.array_equal(noisy, np.rint(noisy))


@given(st.sampled_from([np.uint8, np.uint16, np.float32]), st.integers(0, 200))
def test_no_noise_changes_only_the_type(dtype, value):
    image = np.full((3, 4), value, dtype)
    noisy = noise.add_noise(image, {"kind": "none"}, generator(0, "test"))
    assert noisy.dtype == np.float32
    np.testing.assert_array_equal(noisy, image)
    noisy += 1
    assert (image == value).all()


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
    ],
)
def test_refuses_incomplete_levels(level, words):
    with pytest.raises(InputError) as caught:
        noise.add_noise(np.zeros((2, 2)), level, generator(0, "test"), "n20")
    message = str(caught.value)
    assert "noises.n20" in message and all(word in message for word in words)


def test_noise_of_an_image_depends_on_no_other_image(tmp_path):
    images = {name: np.arange(30, dtype=np.uint8).reshape(5, 6) for name in "abc"}
    for name, image in images.items():
        write_image(tmp_path / "images" / f"{name}.tif", image)

    def noisy(names, level="n20", seed=0, folder="out"):
        table = pd.DataFrame({"image": list(names)})
        noise.add_noise_to_folder(tmp_path, table, GAUSSIAN, level, seed, tmp_path / folder)
        return {name: read_image(tmp_path / folder / f"{name}.tif") for name in names}

    few, many = noisy("ac"), noisy("cba", folder="many")
    np.testing.assert_array_equal(few["c"], many["c"])
    for other in (many["b"], noisy("c", level="n10")["c"], noisy("c", seed=1)["c"]):
        assert not np.array_equal(few["c"], other)
