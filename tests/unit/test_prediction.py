"""Images of any size, tile by tile: no seams, right scale, right files."""

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from denoiseg_flow.data import images
from denoiseg_flow.data.planes import read_pixel_size
from denoiseg_flow.instances import Threshold, label_foreground
from denoiseg_flow.labels import FOREGROUND
from denoiseg_flow.methods import Method
from denoiseg_flow.models import Normalisation
from denoiseg_flow.prediction import (
    input_folder,
    predict_file,
    predict_folder,
    predict_foreground,
    predict_tiles,
)

N2V = Method(name="n2v", target="blind_spot", alpha=1)
BASELINE = Method(name="baseline", alpha=0)
JOINT = Method(name="denoiseg", target="blind_spot", alpha=0.5)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(100, 25, shape).astype(np.float32)


def stitched(model, image, **options):
    """Denoised image and probabilities from all tiles, each pixel exactly once."""
    denoised = np.full(image.shape, np.nan, np.float32)
    probabilities = np.full((3, *image.shape), np.nan, np.float32)
    times = np.zeros(image.shape, int)
    for tile in predict_tiles(model, image, **options):
        denoised[tile.place] = tile.denoised
        probabilities[:, *tile.place] = tile.probabilities
        times[tile.place] += 1
    assert (times == 1).all()
    return denoised, probabilities


def untiled(model, image):
    """The network on the whole image at once, mirrored up to a multiple of its stride."""
    stride, (mean, std) = model.network.stride, (100.0, 25.0)
    missing = [(0, -size % stride) for size in image.shape]
    padded = np.pad((image - np.float32(mean)) / np.float32(std), missing, mode="reflect")
    with torch.inference_mode():
        output = model.network(torch.from_numpy(padded)[None, None])[0]
    output = output[:, : image.shape[0], : image.shape[1]]
    return (output[0] * std + mean).numpy(), output[1:].softmax(dim=0).numpy()


@pytest.mark.parametrize("tile", [4, 7, 30, 512])
@pytest.mark.parametrize("shape", [(64, 64), (37, 53), (1, 40), (33, 1), (1, 1), (3, 5), (90, 9)])
@pytest.mark.parametrize("depth", [1, 2])
def test_no_seams(make_model, depth, shape, tile):
    model, image = make_model(depth=depth), draw(shape)
    denoised, probabilities = stitched(model, image, tile=tile)
    whole_denoised, whole_probabilities = untiled(model, image)
    data_range = max(float(np.ptp(whole_denoised)), 1.0)
    assert np.abs(denoised - whole_denoised).max() < 1e-4 * data_range
    assert np.abs(probabilities - whole_probabilities).max() < 1e-4


def test_seams_would_be_seen(make_model):
    """Without a halo the very same comparison fails."""
    model, image = make_model(depth=2), draw((64, 64))
    model.network.halo = 0
    denoised, _ = stitched(model, image, tile=16)
    expected, _ = untiled(model, image)
    assert np.abs(denoised - expected).max() > 1e-2 * np.ptp(expected)


@pytest.mark.parametrize("shape", [(37, 53), (1, 1), (5, 200)])
def test_probabilities_sum_to_one(make_model, shape):
    _, probabilities = stitched(make_model(), draw(shape), tile=16)
    assert probabilities.dtype == np.float32
    assert probabilities.sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert probabilities.min() >= 0


class Watched:
    """An image that remembers the largest piece that was read of it."""

    def __init__(self, image):
        self.image, self.shape, self.largest = image, image.shape, 0

    def __getitem__(self, place):
        piece = self.image[place]
        self.largest = max(self.largest, piece.size)
        return piece


def test_memory_is_bounded_by_the_tile(make_model):
    model = make_model()
    image = Watched(draw((300, 200)))
    for tile in predict_tiles(model, image, tile=32):
        assert tile.denoised.size <= 32**2
    side = 32 + 2 * (model.network.halo + model.network.stride)
    assert 32**2 < image.largest <= side**2


class Copy(nn.Module):
    """Denoises by leaving the image as it is; foreground is what is brighter than the mean."""

    stride, halo = 4, 3

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        certain = 20 * torch.sign(x)
        return torch.cat([x, -certain, certain, torch.full_like(x, -40)], dim=1)


@pytest.fixture
def copying(make_model):
    def make(method=JOINT):
        model = make_model(method)
        model.network = Copy()
        return model

    return make


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32])
@pytest.mark.parametrize("mean, std", [(100.0, 25.0), (0.0, 1.0), (30_000.0, 5.0)])
def test_intensities_stay_on_the_scale_of_the_input(copying, dtype, mean, std):
    model = copying()
    model.normalisation = Normalisation(mean, std)
    image = np.clip(draw((40, 50)), 0, 255).astype(dtype)
    denoised, _ = stitched(model, image, tile=16)
    assert denoised.dtype == np.float32
    assert denoised == pytest.approx(image.astype(np.float32), abs=max(mean, 255) * 1e-6)


def test_foreground_is_the_second_class(copying):
    image = draw((21, 34))
    foreground = predict_foreground(copying(), image)
    assert (foreground.shape, foreground.dtype) == (image.shape, np.float32)
    assert np.array_equal(foreground > 0.5, image > 100)


@pytest.fixture
def source(tmp_path):
    """An image with pixels of 0.2 x 0.3 micrometres."""
    path = tmp_path / "noisy" / "007.tif"
    images.write_image(path, draw((45, 38)), pixel_size=(0.2, 0.3))
    return path


@pytest.mark.parametrize(
    "method, kept, expected",
    [
        (N2V, True, {"denoised"}),
        (BASELINE, False, {"labels"}),
        (BASELINE, True, {"labels", "probabilities"}),
        (JOINT, False, {"denoised", "labels"}),
        (
            JOINT,
            True,
            {"denoised", "labels", "probabilities"},
        ),
    ],
)
def test_writes_what_the_method_yields(make_model, source, tmp_path, method, kept, expected):
    model, folder = make_model(method), tmp_path / "predictions"
    predict_file(model, source, folder, kept)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {f"{kind}/007.tif" for kind in expected}
    denoised, probabilities = stitched(model, images.open_image(source))
    for kind in expected:
        path = folder / kind / "007.tif"
        assert read_pixel_size(path) == pytest.approx((0.2, 0.3), rel=1e-5)
        found = tifffile.imread(path)
        if kind == "labels":
            wanted = label_foreground(probabilities[FOREGROUND] > model.threshold.value)
            assert np.array_equal(found, wanted)
            assert found.dtype == np.uint16
        else:
            assert found.dtype == np.float32
            assert np.array_equal(found, denoised if kind == "denoised" else probabilities)


def test_many_objects_need_32_bits(copying, tmp_path):
    """More than 65,535 single bright pixels."""
    image = np.full((514, 514), 90, np.float32)
    image[::2, ::2] = 110
    images.write_image(tmp_path / "many.tif", image)
    predict_file(copying(BASELINE), tmp_path / "many.tif", tmp_path / "out", False)
    labels = tifffile.imread(tmp_path / "out/labels/many.tif")
    assert (labels.dtype, labels.max()) == (np.uint32, 257**2)


@pytest.mark.parametrize("value, found", [(0.1, True), (1.0, False)])
def test_threshold_of_the_model_decides(copying, source, tmp_path, value, found):
    model = copying(BASELINE)
    model.threshold = Threshold(value, 1.0, 1)
    predict_file(model, source, tmp_path / "out", False)
    assert tifffile.imread(tmp_path / "out/labels/007.tif").any() == found


def test_folder_of_images_or_of_a_run(copying, tmp_path):
    """A run's own denoised images are read where a method takes those as its input."""
    for folder, shift in (("noisy", 0), ("run/denoised", 500)):
        for number, name in enumerate("abc"):
            images.write_image(tmp_path / folder / f"{name}.tif", draw((9, 9), number) + shift)
    assert input_folder(tmp_path / "noisy") == tmp_path / "noisy"
    assert input_folder(tmp_path / "run") == tmp_path / "run" / "denoised"
    for folder, shift in (("noisy", 0), ("run", 500)):
        out = tmp_path / "out" / folder
        predict_folder(copying(N2V), tmp_path / folder, ["a", "c"], out, False)
        assert sorted(path.name for path in (out / "denoised").iterdir()) == ["a.tif", "c.tif"]
        found = tifffile.imread(out / "denoised/c.tif")
        assert found == pytest.approx(draw((9, 9), 2) + shift, abs=1e-3)
