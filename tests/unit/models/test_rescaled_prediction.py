"""Images that a network reads at another magnification."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from denoiseg_flow.data.files.tiles import boxes
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models import rescaled_prediction
from denoiseg_flow.models.prediction import label_maps, predict_maps
from denoiseg_flow.models.rescaled_prediction import predict_rescaled, resample, rescaled_shape
from denoiseg_flow.models.tiled_prediction import predict_images
from denoiseg_flow.models.weights import load_pretrained

VOLUMES = Layout(3, patch_depth=4, z_factors=(1,))


def whole(shape):
    return tuple(slice(0, length) for length in shape)


def grey(*shape):
    return np.random.default_rng(0).normal(100, 25, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(20, 31), (41, 7), (90, 75), (13, 80), (1, 1), (41, 30)])
def test_as_pytorch_resamples_planes(shape):
    image = grey(2, 41, 30)
    expected = functional.interpolate(
        torch.from_numpy(image)[None], shape, mode="bilinear", antialias=True
    )
    found = resample(image, shape, whole(shape))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=1e-4)


def test_each_axis_of_a_volume_by_itself():
    """The same as first all planes, and then all lines along z."""
    image = grey(1, 9, 20, 21)
    planes = resample(image[0], (30, 8), whole((30, 8)))
    lines = np.moveaxis(planes, 0, 1).reshape(1, 30, 9, 8)
    expected = [resample(lines[:, y], (4, 8), whole((4, 8))) for y in range(30)]
    found = resample(image, (4, 30, 8), whole((4, 30, 8)))
    np.testing.assert_allclose(found, np.stack(expected, axis=2), rtol=1e-5)


@pytest.mark.parametrize("shape", [(50, 23), (9, 70), (40, 40)])
def test_boxes_are_parts_of_the_whole(shape):
    image, together = grey(2, 40, 40), np.empty((2, *shape), np.float32)
    for place, _ in boxes(shape, (7, 11)):
        together[:, *place] = resample(image, shape, place)
    np.testing.assert_allclose(together, resample(image, shape, whole(shape)), rtol=1e-6)


def test_the_same_shape_is_the_same_image():
    image = grey(1, 12, 15)
    np.testing.assert_array_equal(resample(image, (12, 15), whole((12, 15))), image)


def test_at_least_one_pixel_is_left():
    assert rescaled_shape((3, 100, 101), (0.1, 0.5, 2)) == (1, 50, 202)


def predicted(model, image, factors, tile=None):
    """The results of all boxes, put together."""
    results = {}
    for number, box in predict_rescaled(model, [image], tile, factors):
        assert number == 0
        for kind in ("denoised", "j_invariant", "maps"):
            values = getattr(box, kind)
            if values is not None:
                empty = np.full((len(values), *image.shape[1:]), np.nan, np.float32)
                results.setdefault(kind, empty)[:, *box.place] = values
    assert all(np.isfinite(values).all() for values in results.values())
    return results


@pytest.mark.parametrize(
    ("layout", "shape", "factors"),
    [
        (None, (60, 70), (0.5, 0.7)),
        (None, (60, 70), (1.5, 1)),
        (Layout(downscale=2), (60, 70), (0.6, 1.3)),
        (VOLUMES, (6, 40, 44), (1, 0.5, 0.8)),
        (VOLUMES, (6, 20, 24), (2, 1.5, 1)),
    ],
)
@pytest.mark.parametrize("masking", ["neighbours", "grid_interpolate"])
def test_what_the_network_makes_of_the_resampled_image(
    make_model, monkeypatch, layout, shape, factors, masking
):
    """And neither the tiles nor the boxes are to be seen."""
    method = Method("n2v", target="blind_spot", masking=masking, alpha=1)
    if masking == "neighbours":
        method = Method("denoiseg", target="blind_spot", alpha=0.5)
    model, image = make_model(method, layout=layout), grey(1, *shape)
    other = rescaled_shape(shape, factors)
    ((_, tile),) = predict_images(model, [resample(image, other, whole(other))])
    found = predicted(model, image, factors)
    assert ("j_invariant" in found) == (masking != "neighbours")
    for kind, values in found.items():
        expected = resample(getattr(tile, kind), shape, whole(shape))
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["maps"].sum(axis=0), 1, rtol=1e-4)

    monkeypatch.setattr(rescaled_prediction, "TILES", {2: (17, 23), 3: (3, 17, 23)})
    cut = predicted(model, image, factors, [12] * len(shape))
    for kind, values in cut.items():
        np.testing.assert_allclose(values, found[kind], rtol=1e-4, atol=1e-3)


def test_no_factor_is_no_resampling(make_model):
    model, image = make_model(), grey(1, 33, 47)
    ((_, tile),) = predict_images(model, [image])
    for factors in (None, (1.0, 1.0), (1.01, 0.99)):
        found = predicted(model, image, factors)
        np.testing.assert_array_equal(found["denoised"], tile.denoised)
        np.testing.assert_array_equal(found["maps"], tile.maps)


def test_several_images_one_after_the_other(make_model):
    model, images = make_model(), [grey(1, 33, 47), grey(1, 20, 64)]
    together = list(predict_maps(model, images, factors=(0.5, 0.5)))
    for image, maps in zip(images, together, strict=True):
        np.testing.assert_array_equal(maps, predicted(model, image, (0.5, 0.5))["maps"])


@pytest.mark.parametrize("ratio", [0.5, 3.0])
def test_objects_of_another_magnification_are_found(make_blobs, ratio):
    """By a network that was pretrained on objects of the size in the image; each one, in place."""
    model = load_pretrained("simulated_objects")
    image, truth = make_blobs(96, 0)
    image = np.kron(image, np.ones((2, 2), np.float32))  # discs of 18 pixels
    truth = np.kron(truth, np.ones((2, 2), np.int32))
    shape = rescaled_shape(image.shape, (ratio, ratio))
    other = resample(image[None], shape, whole(shape))
    labels = label_maps(model, next(predict_maps(model, [other], factors=(1 / ratio,) * 2)))
    assert labels.shape == shape and labels.max() == truth.max()
    centre = [
        tuple(int(ratio * (along.start + along.stop) / 2) for along in place)
        for number in range(1, truth.max() + 1)
        for place in [tuple(slice(min(k), max(k) + 1) for k in np.nonzero(truth == number))]
    ]
    there = {int(labels[place]) for place in centre}
    assert there == set(range(1, truth.max() + 1))
    sizes = np.bincount(labels.ravel())[1:] / np.bincount(truth.ravel())[1:].mean() / ratio**2
    assert all(0.6 < size < 1.7 for size in sizes)
    assert not [pair for pair in itertools.pairwise(np.unique(labels)) if pair[1] - pair[0] != 1]
