"""Tiles are computed in batches, of one image or of several, to the same results."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

import numpy as np
import pytest
import torch
from torch import nn

from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models import tiled_prediction
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.tiled_prediction import (
    TILE,
    predict_images,
    predict_tiles,
    tile_shape,
)

N2S = Method("n2s", target="blind_spot", masking="grid_interpolate", alpha=1)
LAYOUTS = {
    "planes": Layout(),
    "channels": Layout(2, channels=2),
    "volumes": Layout(3, channels=2, patch_depth=4, z_factors=(1, 2)),
    "plane by plane": Layout(3, plane_by_plane=True),
}


def draw(layout, *sizes, dtype=np.float32):
    """Images (channel, [z,] y, x) of so many pixels along y and x, and five planes."""
    rng = np.random.default_rng(0)
    shapes = [(layout.channels, *(5, *sides)[-layout.dimensions :]) for sides in sizes]
    return [rng.normal(100, 25, shape).astype(dtype) for shape in shapes]


SMALL = [(12, 20), (12, 20), (9, 14), (12, 20), (3, 30)]
MIXED = [(40, 40), (40, 40), (21, 30), (40, 40), (3, 70)]


def collected(model, images, **options):
    """What was predicted, the places of all tiles by image, and the batches of the network."""
    batches = []
    hook = model.predictor.register_forward_hook(lambda _, inputs, __: batches.append(inputs[0]))
    results = list(predict_images(model, iter(images), **options))
    hook.remove()
    return results, [len(batch) for batch in batches]


def check_same(found, expected):
    assert [number for number, _ in found] == [number for number, _ in expected]
    for (_, tile), (_, other) in zip(found, expected, strict=True):
        assert tile.place == other.place
        for kind in ("denoised", "probabilities", "j_invariant"):
            one, two = getattr(tile, kind), getattr(other, kind)
            if two is None:
                assert one is None
            else:
                assert one.dtype == np.float32
                np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "name, method",
    [
        *(("planes", method) for method in ("joint", "augmented", "multiscale", "n2s", "told")),
        *(("channels", "told"), ("volumes", "n2s"), ("plane by plane", "joint")),
        *(("volumes", "multiscale"), ("plane by plane", "multiscale")),
    ],
)
def test_batches_change_nothing(make_model, name, method):
    layout = LAYOUTS[name]
    hiding = {"n2s": N2S, "told": replace(N2S, grid=2, mask_channel=True)}
    model = make_model(*filter(None, [hiding.get(method)]), layout=layout)
    if layout.channels > 1:
        model.normalisation = Normalisation((100.0, 80.0), (25.0, 50.0))
    model.recipe = replace(
        model.recipe,
        test_time_augmentation=method == "augmented",
        multiscale=method == "multiscale",
    )
    images, tile = draw(layout, *SMALL), (2, 8, 8)[-layout.dimensions :]
    expected, sizes = collected(model, images, tile=tile, batch=1)
    assert set(sizes) == {1}
    for batch in (3, 100):
        found, sizes = collected(model, images, tile=tile, batch=batch)
        assert max(sizes) == min(batch, max(sizes)) > 1
        check_same(found, expected)


def test_tiles_of_equal_shape_fill_batches_across_images(make_model):
    model = make_model()
    images = draw(model.layout, *MIXED)
    # Of 40 x 40 pixels 3 x 3 tiles; the first two images follow each other.
    found, sizes = collected(model, images, tile=(16, 16), batch=8)
    per_image = [len(list(tiles)) for _, tiles in groupby(found, key=itemgetter(0))]
    assert per_image[0] == per_image[1] == per_image[3] > 1
    assert sizes[: -(-2 * per_image[0] // 8)] == [8] * (2 * per_image[0] // 8) + [
        *[2 * per_image[0] % 8] * (2 * per_image[0] % 8 > 0)
    ]
    assert sum(sizes) == len(found)


def test_images_are_asked_for_when_they_are_needed(make_model):
    """One more than what is computed, to know that a batch ends."""
    model, asked = make_model(), []

    def images():
        for number, image in enumerate(draw(model.layout, *[(16, 16)] * 9)):
            asked.append(number)
            yield image

    for number, _ in predict_images(model, images(), batch=3):
        assert len(asked) <= 3 * (number // 3 + 1)
    assert asked == list(range(9))


SHORT = [
    torch.OutOfMemoryError("no memory left"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize(
    ("most", "error"), [(1, SHORT[0]), (2, SHORT[0]), *((5, error) for error in SHORT)]
)
def test_batches_are_halved_where_memory_is_short(make_model, most, error):
    model = make_model()
    images = draw(model.layout, *[(40, 40)] * 2)
    expected, _ = collected(model, images, tile=(16, 16), batch=1)

    def refuse(_, inputs):
        if len(inputs[0]) > most:
            raise error

    hook = model.predictor.register_forward_pre_hook(refuse)
    found, sizes = collected(model, images, tile=(16, 16), batch=8)
    hook.remove()
    assert max(sizes) <= most
    check_same(found, expected)


def test_other_errors_are_not_for_want_of_memory(make_model):
    model = make_model()

    def fail(*_):
        raise RuntimeError("sizes do not match")

    model.predictor.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        list(predict_images(model, draw(model.layout, *MIXED), batch=8))


@pytest.mark.parametrize("error", SHORT)
def test_lack_of_memory_for_a_single_tile_is_an_error(make_model, error):
    model = make_model()

    def refuse(*_):
        raise error

    model.predictor.register_forward_pre_hook(refuse)
    with pytest.raises(InputError) as caught:
        list(predict_images(model, draw(model.layout, *MIXED), batch=8))
    assert str(caught.value) == (
        "cpu has too little free memory for a tile of 40x40 pixels; lower 'tile' (--tile), or run "
        "fewer jobs at once"
    )


class Ahead(tiled_prediction.Transfer):
    """Copies as to a GPU, but that of the results is only made when it is waited for."""

    def __init__(self, device):
        super().__init__(device)
        self.overlaps, self.left = True, []

    def empty(self, shape):
        return torch.full(shape, torch.nan)

    def to_host(self, values):
        target = np.full(values.shape, np.nan, np.float32)
        self.left.append(lambda: np.copyto(target, values.numpy()))
        return target

    def mark(self):
        copies, self.left = self.left, []
        return lambda: [copy() for copy in copies]


def test_a_gpu_is_one_batch_ahead(make_model, monkeypatch):
    """Its results are not looked at before they have arrived, and the last ones arrive too."""
    model, calls = make_model(), []
    images = draw(model.layout, *MIXED)
    expected, _ = collected(model, images, tile=(16, 16), batch=1)
    monkeypatch.setattr(tiled_prediction, "Transfer", Ahead)
    found, _ = collected(model, images, tile=(16, 16), batch=4)
    check_same(found, expected)
    model.predictor.register_forward_hook(lambda *_: calls.append(1))
    seen = [len(calls) for _ in predict_images(model, images[:2], tile=(16, 16), batch=1)]
    assert seen == [*range(2, len(seen) + 1), len(seen)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_have_a_number_of_pixels(make_model, monkeypatch, device):
    model = make_model()
    if device == "cuda":
        monkeypatch.setattr(tiled_prediction, "Transfer", Ahead)
    magnified = make_model(
        Method("denoiseg", target="blind_spot", alpha=0.5), layout=Layout(downscale=0.5)
    )
    assert tile_shape((999, 999), (0, 0), 4) == (TILE / 2, TILE / 2)
    monkeypatch.setitem(tiled_prediction.BATCH_PIXELS, device, 32 * 32 * 3)
    assert collected(magnified, draw(model.layout, *[(16, 16)] * 5))[1] == [3, 2]
    for pixels, expected in ((16 * 16 * 4, [4, 4, 1]), (16 * 16 * 4 - 1, [3, 3, 3]), (1, [1] * 9)):
        monkeypatch.setitem(tiled_prediction.BATCH_PIXELS, device, pixels)
        _, sizes = collected(model, draw(model.layout, *[(16, 16)] * 9))
        assert sizes == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, ">u2", np.float64, bool])
def test_pixels_of_any_type(make_model, dtype):
    model = make_model()
    (image,) = draw(model.layout, (21, 30))
    image = np.clip(image, 0, 255).astype(dtype)
    (tile,), (expected,) = (predict_tiles(model, each) for each in (image, image.astype("f4")))
    assert np.array_equal(tile.denoised, expected.denoised)


class Seen(nn.Module):
    """Keeps what it is shown."""

    stride, halo = (4, 4), (0, 0)

    def __init__(self):
        super().__init__()
        self.unused, self.shown = nn.Parameter(torch.zeros(1)), []

    def forward(self, x):
        self.shown.append(x.clone())
        return torch.cat([x] * 4, dim=1)


@pytest.mark.parametrize("shape", [(8, 12), (7, 9), (1, 5), (2, 1), (3, 3), (5, 6)])
def test_beyond_its_end_an_image_is_mirrored(make_model, shape):
    model = make_model()
    model.network, model.normalisation = Seen(), Normalisation((10.0,), (4.0,))
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    list(predict_tiles(model, image[None]))
    (shown,) = model.predictor.shown
    expected = np.pad(image, [(0, -side % 4) for side in shape], mode="reflect")
    assert np.array_equal(shown[0, 0].numpy(), (expected - np.float32(10)) / np.float32(4))


PAGES = """
import resource
import numpy as np
import torch
from denoiseg_flow.models import tiled_prediction

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(faults() for _ in range(3)))
tiled_prediction._keep_freed_memory()
print(min(faults() for _ in range(9)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc is told to keep memory")
def test_freed_memory_is_kept():
    """Of 64 MB, 16,000 pages are handed out by the system each time, or none."""
    env = os.environ | {"THP_MEM_ALLOC_ENABLE": "0"}  # larger pages are fewer
    command = [sys.executable, "-c", PAGES]
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    given_back, kept = map(int, result.stdout.split())
    # The system itself may take back pages that seem idle.
    assert 10 * kept < given_back
