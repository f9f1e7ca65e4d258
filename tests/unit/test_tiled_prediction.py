"""Tiles that are computed together: of one image or of several, and what a GPU does meanwhile."""

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from denoiseg_flow import tiled_prediction
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods import Method
from denoiseg_flow.models import Normalisation
from denoiseg_flow.networks.layout import PLANES, Layout
from denoiseg_flow.tiled_prediction import predict_images, predict_tiles

JOINT = Method(name="joint", target="blind_spot", alpha=0.5)
GRID = replace(JOINT, name="grid", masking="grid_interpolate", grid=3, mask_channel=True)
VOLUMES = Layout(3, patch_depth=8, z_factors=(2,))


def make_images(layout, sides=((40, 56), (40, 56), (40, 33), (8, 8), (40, 56))):
    """Noise of several sizes, some of them the same."""
    rng = np.random.default_rng(0)
    channels = [layout.channels] * (layout.channels > 1)
    depth = [10] * (layout.dimensions == 3)
    return [rng.normal(100, 25, (*channels, *depth, *shape)) for shape in sides]


def close(found, expected):
    """Whether two tiles are the same, but for float32 sums in another order."""
    assert found.place == expected.place
    for kind in ("denoised", "j_invariant", "probabilities"):
        values, wanted = getattr(found, kind), getattr(expected, kind)
        assert (values is None) == (wanted is None)
        if wanted is not None:
            np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4)
    return True


@pytest.mark.parametrize("batch", [2, 3, 100])
@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("method", [JOINT, GRID], ids=lambda method: method.name)
@pytest.mark.parametrize(
    "layout",
    [PLANES, Layout(channels=2), VOLUMES, Layout(3, plane_by_plane=True)],
    ids=["planes", "channels", "volumes", "plane by plane"],
)
def test_batches_give_the_tiles_of_single_predictions(make_model, layout, method, augmented, batch):
    model = make_model(method=method, depth=1, filters=2, layout=layout)
    model.recipe = replace(model.recipe, test_time_augmentation=augmented)
    if layout.channels > 1:
        model.normalisation = Normalisation((100.0, 90.0), (25.0, 30.0))
    images = make_images(layout)
    if layout.dimensions == 3 or augmented:
        images = images[1:4]
    tile = (6, 16, 16)[-layout.dimensions :]
    found = list(predict_images(model, images, tile, batch))
    alone = [
        (number, result)
        for number, image in enumerate(images)
        for result in predict_tiles(model, image, tile)
    ]
    assert [number for number, _ in found] == [number for number, _ in alone]
    assert all(close(one, other) for (_, one), (_, other) in zip(found, alone, strict=True))


def test_tiles_of_equal_shape_fill_batches_across_images(make_model, monkeypatch):
    model = make_model(depth=1, filters=2)
    sizes, compute = [], tiled_prediction._compute_at_once
    monkeypatch.setattr(
        tiled_prediction,
        "_compute_at_once",
        lambda model, tiles, transfer: sizes.append(len(tiles)) or compute(model, tiles, transfer),
    )
    images = [np.zeros((16, 16)), np.zeros((16, 16)), np.zeros((8, 16)), np.zeros((16, 16))]
    list(predict_images(model, images, (16, 16), batch=3))
    assert sizes == [2, 1, 1]
    sizes.clear()
    list(predict_images(model, images[:2], (16, 16)))  # on a CPU
    assert sizes == [1, 1]


class Elsewhere(tiled_prediction.Transfer):
    """Transfers of a device that works while the host does; its results come when waited for."""

    log: ClassVar[Counter] = Counter()
    waiting: ClassVar[list] = []

    def __init__(self, device):
        super().__init__(device)
        self.overlaps = True

    def empty(self, shape):
        return torch.empty(shape)

    def to_host(self, values):
        target = torch.full(values.shape, torch.nan)
        self.waiting.append((target, values))
        return target.numpy()

    def mark(self):
        waiting, self.waiting[:] = [*self.waiting], []
        self.log["under way"] += 1
        self.log["most"] = max(self.log["most"], self.log["under way"])

        def wait():
            self.log["under way"] -= 1
            with torch.inference_mode():
                for target, values in waiting:
                    target.copy_(values)

        return wait


def test_a_gpu_computes_while_the_last_results_are_used(make_model, monkeypatch):
    """One batch is under way besides the one that is used, and images are opened only then."""
    model, opened = make_model(depth=1, filters=2), []
    images = make_images(PLANES, [(16, 16)] * 6)
    alone = [next(predict_tiles(model, image)) for image in images]

    def lazily():
        for image in images:
            opened.append(len(opened))
            yield image

    monkeypatch.setattr(Elsewhere, "waiting", [])
    monkeypatch.setattr(Elsewhere, "log", Counter())
    monkeypatch.setattr(tiled_prediction, "Transfer", Elsewhere)
    for number, tile in predict_images(model, lazily(), batch=1):
        assert close(tile, alone[number])
        assert len(opened) <= number + 3  # in use, under way, and one that may differ in shape
    assert Elsewhere.log["most"] == 2 and Elsewhere.log["under way"] == 0


def test_batches_are_halved_until_they_fit(make_model, monkeypatch):
    model, compute = make_model(depth=1, filters=2), tiled_prediction._compute_at_once
    images = make_images(PLANES, [(16, 16)] * 5)
    alone = [next(predict_tiles(model, image)) for image in images]

    def small_gpu(model, tiles, transfer):
        if len(tiles) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(model, tiles, transfer)

    monkeypatch.setattr(tiled_prediction, "_compute_at_once", small_gpu)
    found = list(predict_images(model, images, batch=5))
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]
    assert all(close(tile, alone[number]) for number, tile in found)


def test_a_tile_that_does_not_fit(make_model, monkeypatch):
    def full_gpu(model, tiles, transfer):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiled_prediction, "_compute_at_once", full_gpu)
    with pytest.raises(InputError) as caught:
        list(predict_tiles(make_model(depth=1), np.zeros((20, 30))))
    assert str(caught.value) == (
        "cpu has too little free memory for a tile of 20x30 pixels; set 'tile' (--tile) lower, or "
        "run fewer jobs at once"
    )
