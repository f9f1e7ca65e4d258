"""New images with other grey levels or another magnification than the training images."""

from dataclasses import replace

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies

import denoiseg_flow
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.data.store import read_metadata, write_array
from denoiseg_flow.deployment.object_tables import join_results, refuse_failures
from denoiseg_flow.deployment.predict_images import predict_images
from denoiseg_flow.deployment.scaling import Scaling
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model import ClassicalModel, ThresholdModel
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.models.normalisation import Normalisation

VOLUMES = Layout(3, patch_depth=4, z_factors=(1,))
LEVELS = {"grey_levels": [[110.0, 30.0]]}
MICROMETRES = {"pixel_size": {"Z": 1.0, "Y": 0.5, "X": 0.5}}


def of_256(image):
    """Grey levels that float32 and uint8 represent exactly."""
    return np.clip(np.rint(image), 0, 255)


@pytest.fixture
def make_finder(make_model):
    """Make a model that finds objects: its threshold is low."""

    def make(*arguments, **how):
        model = make_model(*arguments, **how)
        model.threshold = type(model.threshold)(0.2, 0.5, 1)
        model.origin = dict(LEVELS)
        return model

    return make


@pytest.fixture(params=["joint", "denoised first", "bounded", "classical"])
def model(request, make_model, make_finder):
    median = ClassicalModel(Method("median", classical="median", parameter=1), {}, 1, None)
    wavelet = ClassicalModel(Method("wavelet", classical="wavelet"), {}, 1.0, 5.0)
    model = {
        "joint": make_finder,
        "denoised first": lambda: replace(make_finder(Method("m", input="median")), input=median),
        "bounded": lambda: make_model(
            Method("dae", target="clean", network="autoencoder", alpha=1), depth=2
        ),
        "classical": lambda: wavelet,
    }[request.param]()
    model.origin = median.origin = dict(LEVELS)
    return model


@hypothesis.settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    scale=strategies.floats(1e-4, 1e4),
    offset=strategies.floats(-10, 10),
    seed=strategies.integers(0, 3),
)
@hypothesis.example(scale=1 / 255, offset=0, seed=1)
@hypothesis.example(scale=257, offset=0, seed=2)
def test_scale_and_offset_of_an_image_do_not_matter(model, make_blobs, scale, offset, seed):
    """The offset is relative to the scale: float32 has seven digits."""
    image = of_256(make_blobs(48, seed)[0]).astype(np.float64)
    first = denoiseg_flow.predict(model, image, normalise="image")
    other = denoiseg_flow.predict(model, scale * (image + offset), normalise="image")
    if first.labels is not None:
        assert first.labels.max() > 0
        np.testing.assert_array_equal(other.labels, first.labels)
    if first.denoised is not None:
        expected = scale * (first.denoised + offset)
        np.testing.assert_allclose(other.denoised, expected, rtol=0, atol=scale * 0.01)


def test_the_file_types_of_one_image(make_finder, make_blobs):
    """8 bits, 16 bits, and from 0 to 1."""
    model, image = make_finder(), of_256(make_blobs(48, 0)[0])
    kinds = [image.astype(np.uint8), (257 * image).astype(np.uint16), (image / 255).astype("f4")]
    found = [denoiseg_flow.predict(model, each, normalise="image") for each in kinds]
    for other in found[1:]:
        np.testing.assert_array_equal(other.labels, found[0].labels)
    assert found[2].objects["intensity_mean"].max() <= 1, (
        "objects have the grey levels of the image"
    )


def test_images_with_the_grey_levels_of_the_training_stay_the_same(make_finder, make_blobs):
    model, image = make_finder(), make_blobs(48, 0)[0]
    model.origin = {
        "grey_levels": [[float(image.mean(dtype=float)), float(image.std(dtype=float))]]
    }
    first, second = (
        denoiseg_flow.predict(model, image, normalise=n) for n in ("training", "image")
    )
    np.testing.assert_allclose(second.denoised, first.denoised, atol=1e-3)
    assert first.labels.max() > 0
    np.testing.assert_array_equal(second.labels, first.labels)


def test_each_channel_has_its_own_grey_levels(make_model, make_blobs):
    model = make_model(layout=Layout(channels=2))
    model.normalisation = Normalisation((100.0, 300.0), (25.0, 50.0))
    image = np.stack([of_256(make_blobs(48, seed)[0]) for seed in range(2)])
    first = denoiseg_flow.predict(model, image, axes="CYX", normalise="image")
    scale = np.array([0.01, 300.0])[:, None, None]
    second = denoiseg_flow.predict(model, scale * image, axes="CYX", normalise="image")
    np.testing.assert_allclose(second.denoised / scale, first.denoised, atol=1e-2)


def test_a_constant_image_stays_itself(make_model):
    image = np.full((32, 32), 7, np.uint8)
    found = denoiseg_flow.predict(make_model(), image, normalise="image")
    np.testing.assert_array_equal(found.denoised, image)


def test_time_points_have_the_grey_levels_of_their_file(make_finder, make_blobs):
    """A dark one stays dark."""
    model = make_finder()
    image = of_256(make_blobs(48, 0)[0])
    series = np.stack([image, image / 10])
    mean, std = series.mean(), series.std()
    moved = (series - mean) / std * 30 + 110
    found = denoiseg_flow.predict(model, series, axes="TYX", normalise="image")
    expected = denoiseg_flow.predict(model, moved, axes="TYX")
    assert found.labels.max() > 0
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(
        found.denoised, (expected.denoised - 110) / 30 * std + mean, atol=0.01
    )


@pytest.fixture
def folder(tmp_path, make_finder, make_blobs):
    """An image with pixels of half the length of those of the training, and one of the same."""
    model = make_finder()
    model.origin = LEVELS | MICROMETRES
    save_model(model, tmp_path / "model.pt")
    image = of_256(make_blobs(48, 0)[0]).astype(np.uint8)
    write_array(tmp_path / "in/a.tif", image, Metadata("YX", {"Y": 0.5, "X": 0.5}))
    fine = np.kron(image, np.ones((2, 2), np.uint8))
    write_array(tmp_path / "in/b.tif", fine, Metadata("YX", {"Y": 0.25, "X": 0.25}))
    return tmp_path


def predict_all(folder, normalise="training", rescale=None):
    images, out = find_images([folder / "in"]), folder / "out"
    scaling = Scaling.of(normalise, rescale)
    predict_images(folder / "model.pt", images, out, scaling=scaling)
    refuse_failures(join_results(images, out), len(images), out)
    return out


def record(folder):
    table = pd.read_csv(folder / "out/images.tsv", sep="\t", keep_default_na=False)
    return table.set_index("image")


def refusal(folder, rescale, name="b"):
    with pytest.raises(InputError):
        predict_all(folder, rescale=rescale)
    reason = record(folder).loc[name, "failed"]
    assert str(folder / f"in/{name}.tif") in reason and "\n" not in reason
    return reason


def test_each_file_has_its_own_factor(folder):
    expected = read_image(predict_all(folder, rescale=[0.5, 0.5]) / "labels/b.tif")
    denoised = read_image(folder / "out/denoised/b.tif")
    same = read_image(predict_all(folder) / "denoised/a.tif")
    out = predict_all(folder, rescale="pixel-size")
    np.testing.assert_array_equal(read_image(out / "labels/b.tif"), expected)
    np.testing.assert_array_equal(read_image(out / "denoised/b.tif"), denoised)
    np.testing.assert_array_equal(read_image(out / "denoised/a.tif"), same)
    assert read_metadata(out / "labels/b.tif") == Metadata("YX", {"Y": 0.25, "X": 0.25})
    objects = pd.read_csv(out / "objects/b.csv")
    assert objects["area"].tolist() == np.bincount(expected.ravel())[1:].tolist()
    assert objects["area_um2"].to_numpy() == pytest.approx(objects["area"] / 16)
    assert expected.shape == (96, 96) and expected.max() > 0


def test_another_pixel_size_is_a_warning_that_proposes_to_rescale(folder, caplog):
    predict_all(folder)
    (line,) = [line for line in caplog.messages if "pixel size" in line]
    assert f"{folder / 'in/b.tif'} has a pixel size of 0.25 micrometres along Y, but" in line
    assert "the training images had 0.5, so objects appear larger" in line
    assert "--rescale pixel-size" in line
    assert record(folder)["warned"].str.contains(line, regex=False).tolist() == [False, True]
    caplog.clear()
    predict_all(folder, rescale="pixel-size")
    assert "pixel size" not in caplog.text
    predict_all(folder, rescale=2)
    assert "along Y, 0.25 as rescaled, but" in record(folder).loc["a", "warned"]
    assert "along Y, 0.125 as rescaled, but" in record(folder).loc["b", "warned"]


def test_other_grey_levels_are_a_warning_that_proposes_to_normalise(folder, caplog):
    image = read_image(folder / "in/a.tif")
    write_array(folder / "in/a.tif", image / np.float32(255))
    predict_all(folder)
    (line,) = [line for line in caplog.messages if "grey levels" in line]
    assert "in/a.tif" in line and "--normalise image" in line
    caplog.clear()
    predict_all(folder, "image")
    assert "grey levels" not in caplog.text


def test_images_predicted_with_other_options_are_predicted_again(folder, caplog):
    caplog.set_level("INFO")
    for normalise, rescale in [("training", None), ("image", None), ("image", 0.5), ("image", 0.6)]:
        for again in (False, True):
            caplog.clear()
            predict_all(folder, normalise, rescale)
            assert ("2 of 2 images are done already" in caplog.text) == again


@pytest.mark.parametrize("rescale", [0, -1, 0.05, 11, float("nan"), "half", ["pixel-size", 2], []])
def test_what_is_no_factor(rescale):
    with pytest.raises(InputError, match="set it to a factor from"):
        Scaling.of("training", rescale)


def test_what_is_no_normalisation():
    with pytest.raises(InputError, match="'normalise' is 'none'; set it to"):
        Scaling.of("none", None)


def test_pixel_sizes_that_are_unknown_or_wrong(folder):
    write_array(folder / "in/b.tif", read_image(folder / "in/b.tif"))
    reason = refusal(folder, "pixel-size")
    assert "b.tif does not state that along Y; give it ('pixel_size' or --pixel-size)" in reason
    size = Metadata("YX", {"Y": 352.0, "X": 352.0})  # 72 dots per inch
    write_array(folder / "in/b.tif", read_image(folder / "in/b.tif"), size)
    assert "no plausible difference (factor 704, not 0.1 to 10)" in refusal(folder, "pixel-size")


def test_models_that_lack_what_is_needed(folder, make_model):
    write_array(folder / "in/a.tif", np.zeros((2, 20, 20), np.uint8), Metadata("CYX"))
    bounded = make_model(Method("dae", target="clean", network="autoencoder", alpha=1), depth=2)
    otsu = ThresholdModel(Method("otsu", segmenter="otsu"), {}, Layout(), (20.0,))
    for model, how, reason in [
        (make_model(), {"rescale": "pixel-size"}, "does not state the pixel size of its training"),
        (bounded, {"normalise": "image"}, "does not state the grey levels of its training images"),
        (otsu, {"rescale": 0.5}, "has no network; leave it out"),
    ]:
        save_model(model, folder / "model.pt")
        with pytest.raises(InputError, match=reason) as caught:
            predict_all(folder, **how)
        assert str(folder / "model.pt") in str(caught.value)
    assert not (folder / "out").exists()


def test_other_channels_than_in_training(make_model):
    denoiser = ClassicalModel(Method("median", classical="median", parameter=1), {}, 1, None)
    denoiser.origin = {"grey_levels": [[1.0, 1.0], [2.0, 2.0]]}
    with pytest.raises(InputError, match=r"trained on 2 channels, but .* has 3"):
        denoiseg_flow.predict(
            denoiser, np.zeros((3, 9, 9)), axes="CYX", channel="all", normalise="image"
        )
    denoiser.origin = dict(LEVELS)
    image = np.random.default_rng(0).normal(5, 1, (2, 20, 20)).astype(np.float32)
    found = denoiseg_flow.predict(denoiser, image, axes="CYX", channel="all", normalise="image")
    expected = denoiseg_flow.predict(denoiser, image, axes="CYX", channel="all")
    np.testing.assert_allclose(found.denoised, expected.denoised, rtol=1e-5)


def test_volumes_have_a_factor_for_each_axis(make_model):
    model = make_model(layout=VOLUMES)
    model.origin = dict(MICROMETRES)
    image = np.random.default_rng(0).normal(100, 25, (6, 40, 30)).astype(np.float32)
    size = {"pixel_size": (2.0, 0.25, 0.5)}
    first = denoiseg_flow.predict(model, image, rescale="pixel-size", **size)
    second = denoiseg_flow.predict(model, image, rescale=(2, 0.5, 1), **size)
    np.testing.assert_array_equal(first.denoised, second.denoised)
    assert first.denoised.shape == image.shape
    with pytest.raises(
        InputError, match=r"'rescale' has 2 factors, but .* has the spatial axes ZYX"
    ):
        denoiseg_flow.predict(model, image, rescale=(2, 0.5), **size)
    plain = denoiseg_flow.predict(model, image, **size)
    assert np.abs(plain.denoised - first.denoised).max() > 1


def test_planes_take_the_last_of_three_factors(make_model, make_blobs):
    model, image = make_model(), make_blobs(48, 0)[0]
    first = denoiseg_flow.predict(model, image, rescale=(3, 0.5, 0.6))
    second = denoiseg_flow.predict(model, image, rescale=(0.5, 0.6))
    np.testing.assert_array_equal(first.denoised, second.denoised)
