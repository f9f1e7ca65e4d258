"""Predictions of layers equal those of arrays, and lie where the layers are."""

from types import SimpleNamespace

import numpy as np
import pytest

import denoiseg_flow
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.napari_plugin.prediction import picture_of, predict_each

SIZE = 32


def layer(pixels, scale=0.25, unit="micrometer", rgb=False, name="cells"):
    """An image layer of napari, as far as it is read."""
    dimensions = np.ndim(pixels) - rgb
    return SimpleNamespace(
        name=name,
        data=pixels,
        rgb=rgb,
        multiscale=False,
        scale=np.full(dimensions, scale),
        units=(unit,) * dimensions,
        translate=np.arange(dimensions),
        rotate=np.eye(dimensions),
        shear=np.zeros(dimensions),
        affine=np.eye(dimensions + 1),
        axis_labels=tuple("tzyx"[-dimensions:]),
    )


@pytest.fixture
def write_model(tmp_path, make_model):
    """Write a model of another layout that finds objects."""

    def write(**layout):
        model = make_model(layout=Layout(**layout))
        model.normalisation = type(model.normalisation)(
            (100.0,) * model.layout.channels, (25.0,) * model.layout.channels
        )
        model.threshold = Threshold(0.2, 0.5, 1)
        save_model(model, tmp_path / "other.pt")
        return tmp_path / "other.pt"

    return write


def predict(model, *layers, **options):
    return list(predict_each(model, [picture_of(each) for each in layers], **options))


def test_a_plane(model_file, make_blobs):
    image = make_blobs(SIZE, 0)[0]
    shown = layer(image)
    ((denoised, labels),) = predict(model_file, shown, normalise="image")
    model = denoiseg_flow.load_model(model_file)
    wanted = denoiseg_flow.predict(model, image, pixel_size=(0.25, 0.25), normalise="image")
    assert np.array_equal(denoised[0], wanted.denoised)
    assert np.array_equal(labels[0], wanted.labels) and labels[0].any()
    assert (denoised[1]["name"], labels[1]["name"]) == ("cells denoised", "cells labels")
    assert (denoised[2], labels[2]) == ("image", "labels")
    assert labels[1]["features"]["area_um2"].equals(wanted.objects["area_um2"])
    for _, arguments, _ in (denoised, labels):
        for key in ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels"):
            assert arguments[key] is getattr(shown, key)


def test_layers_are_predicted_one_by_one(model_file, make_blobs):
    images = [make_blobs(SIZE, seed)[0] for seed in range(2)]
    results = predict(model_file, *(layer(each, name=f"{n}") for n, each in enumerate(images)))
    assert [made[0][1]["name"] for made in results] == ["0 denoised", "1 denoised"]
    for image, (denoised, _) in zip(images, results, strict=True):
        assert abs(denoised[0] - image).mean() < abs(denoised[0] - images[0] - 50).mean()


@pytest.mark.parametrize("axes", [(1,), (2,), (2, 1), (1, 2)])
def test_stacks_and_series_plane_by_plane(model_file, make_blobs, axes):
    """A single plane in a stack keeps its axes."""
    count = np.prod(axes)
    planes = np.stack([make_blobs(SIZE, seed)[0] for seed in range(count)])
    ((denoised, labels),) = predict(model_file, layer(planes.reshape(*axes, SIZE, SIZE)))
    assert denoised[0].shape == labels[0].shape == (*axes, SIZE, SIZE)
    alone = [predict(model_file, layer(plane))[0] for plane in planes]
    assert np.array_equal(denoised[0].reshape(planes.shape), [each[0][0] for each in alone])
    found = labels[0].reshape(planes.shape)
    assert np.array_equal(found > 0, [each[1][0] > 0 for each in alone])


def test_volumes_need_a_scale(write_model):
    model = write_model(dimensions=3, patch_depth=4)
    volume = np.random.default_rng(0).normal(100, 25, (4, SIZE, SIZE)).astype(np.float32)
    with pytest.raises(InputError, match="layer 'cells' does not say how far apart its planes"):
        predict(model, layer(volume, scale=1, unit="pixel"))
    results = [predict(model, layer(volume, 0.5, unit)) for unit in ("pixel", "micrometer")]
    results += [predict(model, layer(volume, 500, "nanometer"))]
    wanted = denoiseg_flow.predict(
        denoiseg_flow.load_model(model), volume, pixel_size=(0.5, 0.5, 0.5)
    )
    for ((denoised, labels),) in results:
        assert np.array_equal(denoised[0], wanted.denoised)
        assert np.array_equal(labels[0], wanted.labels)
        assert labels[1]["features"]["volume_um3"].equals(wanted.objects["volume_um3"])


def test_the_step_of_a_time_series_is_no_pixel_size(model_file, make_blobs):
    series = layer(make_blobs(SIZE, 0)[0][None])
    series.units = ("second", "micrometer", "micrometer")
    assert picture_of(series).pixel_size == (0.25, 0.25)
    series.units = ("second", "second", "second")
    assert picture_of(series).pixel_size is None


@pytest.mark.parametrize("steps", [1, 2])
def test_channels_are_layers(write_model, make_blobs, steps):
    model = write_model(channels=2)
    images = np.stack([[make_blobs(SIZE, 2 * n + s)[0] for s in range(steps)] for n in range(2)])
    layers = [layer(each, name=name) for each, name in zip(images, "ab", strict=True)]
    ((first, second, labels),) = predict(model, *layers)
    assert [each[1]["name"] for each in (first, second, labels)] == [
        "a denoised",
        "b denoised",
        "a labels",
    ]
    wanted = denoiseg_flow.predict(
        denoiseg_flow.load_model(model), images, axes="CZYX", planes=True
    )
    shown = np.stack([first[0], second[0]])
    assert shown.shape == images.shape and labels[0].shape == images.shape[1:]
    assert np.array_equal(shown.squeeze(), wanted.denoised.squeeze())
    with pytest.raises(InputError, match="reads 2 channels at once; select 2 image layers"):
        predict(model, layers[0])
    with pytest.raises(InputError, match="select 2 image layers of the same size"):
        predict(model, layers[0], layer(images[1, :, :16]))


def test_colours_come_last(write_model):
    model = write_model(channels=3, colour=True)
    image = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    opaque = np.concatenate([image, np.full((SIZE, SIZE, 1), 255, np.uint8)], axis=-1)
    wanted = denoiseg_flow.predict(denoiseg_flow.load_model(model), image, axes="YXS")
    for pixels in (image, opaque):
        ((denoised, labels),) = predict(model, layer(pixels, rgb=True))
        assert denoised[0].dtype == np.uint8 and denoised[1]["rgb"]
        assert np.array_equal(denoised[0], np.moveaxis(wanted.denoised, 0, -1))
        assert np.array_equal(labels[0], wanted.labels)
    opaque[0, 0, 3] = 0
    with pytest.raises(InputError, match="layer 'cells' is partly transparent"):
        predict(model, layer(opaque, rgb=True))


def test_colour_and_grey_are_not_mixed_up(write_model, model_file):
    grey, colours = layer(np.ones((SIZE, SIZE))), layer(np.ones((SIZE, SIZE, 3)), rgb=True)
    with pytest.raises(InputError, match="layer 'cells' is in colour, but the model reads grey"):
        predict(model_file, grey, colours)
    with pytest.raises(InputError, match="layer 'cells' is grey, but the model reads colours"):
        predict(write_model(channels=3, colour=True), grey)


def test_the_highest_resolution_is_predicted():
    pyramid = layer(np.zeros((4, 4)))
    pyramid.data, pyramid.multiscale = [np.ones((4, 4)), np.zeros((2, 2))], True
    assert np.array_equal(picture_of(pyramid).pixels, np.ones((4, 4)))


def test_without_a_layer_or_a_model(tmp_path, model_file):
    with pytest.raises(InputError, match="no image layer is selected"):
        predict(model_file)
    with pytest.raises(InputError, match=r"missing\.pt does not exist"):
        predict(tmp_path / "missing.pt", layer(np.zeros((4, 4))))
