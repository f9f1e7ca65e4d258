"""Volumes and channels are predicted without seams, as the whole image would be."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.store import open_image, open_labels, read_metadata, write_image
from denoiseg_flow.methods import classical
from denoiseg_flow.methods.classes import FOREGROUND
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.instances import label_instances
from denoiseg_flow.methods.networks import split_output
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models import tiled_prediction
from denoiseg_flow.models.model import ClassicalModel
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.predict_run import predict_any, predict_file, self_supervised_losses
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.models.tiled_prediction import predict_tiles, tile_shape

JOINT = Method("denoiseg", target="blind_spot", alpha=0.5)
N2S = Method("n2s", target="blind_spot", masking="grid_interpolate", alpha=1)

LAYOUTS = {
    "isotropic": Layout(3, patch_depth=4, z_factors=(2, 2)),
    "anisotropic": Layout(3, patch_depth=4, z_factors=(1, 2)),
    "flat": Layout(3, patch_depth=5, z_factors=(1, 1)),
    "plane by plane": Layout(3, plane_by_plane=True),
    "channels": Layout(2, channels=2),
    "volumes with channels": Layout(3, channels=2, patch_depth=4, z_factors=(1, 2)),
}


def draw(layout, *sides, seed=0):
    """An image (channel, [z,] y, x), the second channel brighter than the first."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 25, (layout.channels, *sides)).astype(np.float32)
    image += 200 * np.arange(layout.channels, dtype=np.float32).reshape(-1, *[1] * len(sides))
    return image


@pytest.fixture
def model_of(make_model):
    def make(name, method=JOINT, depth=2):
        model = make_model(method, depth=depth, layout=LAYOUTS[name])
        if model.layout.channels > 1:
            model.normalisation = Normalisation((100.0, 300.0), (25.0, 50.0))
        return model

    return make


def sides_of(layout, depth=9):
    return (depth, 21, 30)[-layout.dimensions :]


def untiled(model, image):
    """The network on the whole image at once, mirrored up to a multiple of its stride."""
    layout, network = model.layout, model.network
    sides = image.shape[1:]
    missing = [(0, -side % step) for side, step in zip(sides, network.stride, strict=True)]
    mean, std = (values.numpy() for values in model.normalisation.scale(layout.dimensions))
    x = np.pad((image - mean) / std, [(0, 0), *missing], mode="reflect")
    with torch.inference_mode():
        denoised, logits = split_output(network(torch.from_numpy(x)[None]), layout.channels)
    inside = (..., *(slice(side) for side in sides))
    return (
        (denoised[0].numpy() * std + mean)[inside],
        logits[0].softmax(dim=0).numpy()[inside],
    )


def stitched(model, image, tile=None):
    """Denoised image and probabilities from all tiles, each pixel exactly once."""
    sides = image.shape[1:]
    denoised = np.full(image.shape, np.nan, np.float32)
    probabilities = np.full((3, *sides), np.nan, np.float32)
    times = np.zeros(sides, int)
    for part in predict_tiles(model, image, tile):
        denoised[:, *part.place] = part.denoised
        probabilities[:, *part.place] = part.probabilities
        times[part.place] += 1
    assert (times == 1).all()
    return denoised, probabilities


@pytest.mark.parametrize("tile", [None, (4, 8, 8), (1, 5, 40)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_no_seams(model_of, name, tile):
    model = model_of(name)
    image = draw(model.layout, *sides_of(model.layout))
    tile = tile and tile[-model.layout.dimensions :]
    expected, expected_probabilities = untiled(model, image)
    denoised, probabilities = stitched(model, image, tile)
    assert np.abs(denoised - expected).max() < 1e-4 * np.ptp(expected)
    assert np.abs(probabilities - expected_probabilities).max() < 1e-4


@pytest.mark.parametrize("name", ["anisotropic", "volumes with channels"])
def test_turned_image_turned_prediction(model_of, name):
    """With test-time augmentation, which turns planes and leaves their order."""
    model = model_of(name)
    model = replace(model, recipe=replace(model.recipe, test_time_augmentation=True))
    image = draw(model.layout, 9, 24, 32)
    upright, _ = stitched(model, image)
    turned, _ = stitched(model, np.rot90(image, axes=(-2, -1)).copy(), (4, 8, 8))
    assert np.abs(np.rot90(upright, axes=(-2, -1)) - turned).max() < 1e-4 * np.ptp(upright)


@pytest.mark.parametrize("name", ["isotropic", "anisotropic", "flat"])
def test_seams_would_be_seen_along_z(model_of, name):
    model = model_of(name)
    model.network.halo = (0, *model.network.halo[1:])
    image = draw(model.layout, 24, 16, 16)
    expected, _ = untiled(model, image)
    denoised, _ = stitched(model, image, (8, 16, 16))
    assert np.abs(denoised - expected).max() > 1e-2 * np.ptp(expected)


def test_planes_know_nothing_of_each_other_only_if_asked_for(model_of):
    for name, changes in (("plane by plane", False), ("flat", True)):
        model = model_of(name)
        image = draw(model.layout, 6, 16, 16)
        other = image.copy()
        other[:, 3] += 50
        (before,), (after,) = (stitched(model, each)[0] for each in (image, other))
        assert not np.array_equal(before[3], after[3])
        assert (not np.array_equal(before[2], after[2])) == changes


@pytest.mark.parametrize("shape", [(1, 5, 7), (2, 1, 40), (5, 33, 1), (3, 3, 3)])
@pytest.mark.parametrize("name", ["isotropic", "anisotropic", "plane by plane"])
def test_any_size(model_of, name, shape):
    """Thinner than a patch, or narrower than the field of view."""
    model = model_of(name)
    image = draw(model.layout, *shape)
    expected, _ = stitched(model, image)
    denoised, _ = stitched(model, image, (4, 4, 4))
    assert np.isfinite(denoised).all()
    assert np.abs(denoised - expected).max() < 1e-4 * max(float(np.ptp(expected)), 1.0)


@pytest.mark.parametrize("grid", [2, 4])
@pytest.mark.parametrize("name", LAYOUTS)
def test_j_invariance(model_of, name, grid):
    """The prediction of a pixel depends on no pixel of its subset, to the last bit.

    Of several channels, each has another subset, so that what hides in one is seen in the others.
    """
    model = model_of(name, replace(N2S, grid=grid), depth=1)
    layout = model.layout
    image = draw(layout, *sides_of(layout, depth=5))
    z, y, x = np.indices((1, *image.shape[1:])[-3:])
    subsets = ((y + z) % grid) * grid + (x + 2 * z) % grid
    subsets = subsets.reshape(image.shape[1:])
    numbers = [1 + number * grid**2 // layout.channels for number in range(layout.channels)]
    masked = np.array([subsets == number % grid**2 for number in numbers])

    def predicted(noisy, tile=None):
        found = np.empty(noisy.shape, np.float32)
        for part in predict_tiles(model, noisy, tile):
            found[:, *part.place] = part.j_invariant
        return found

    before = predicted(image)
    changed = np.where(masked, image + 1e4, image).astype(np.float32)
    after = predicted(changed)
    assert np.array_equal(after[masked], before[masked])
    assert (after[~masked] != before[~masked]).any()
    tiled = predicted(image, (4, 8, 8)[-layout.dimensions :])
    assert np.abs(tiled - before).max() < 1e-4 * np.ptp(before)


@pytest.mark.parametrize("shape", [(5, 2000, 2000), (100, 100, 100), (300, 40, 5000)])
@pytest.mark.parametrize("halo", [(0, 23, 23), (5, 23, 23), (23, 23, 23), (40, 107, 107)])
def test_tiles_of_volumes_waste_less_than_they_keep_and_stay_small(shape, halo):
    kept = tile_shape(shape, halo)
    computed = []
    for length, side, reach in zip(shape, kept, halo, strict=True):
        computed.append(side if side == length else side + 2 * reach)
        assert 2 * side >= computed[-1]
    # An axis that cannot be cut once more has less than six halos.
    least = [min(length, 6 * reach + 1) for length, reach in zip(shape, halo, strict=True)]
    assert np.prod(computed) <= max(tiled_prediction.TILE_VOXELS, np.prod(least))


def test_tiles_of_volumes_by_hand(monkeypatch):
    monkeypatch.setattr(tiled_prediction, "TILE_VOXELS", 1000)
    assert tile_shape((10, 10, 10), (1, 1, 1)) == (10, 10, 10)
    # Two of 7 planes, rows or columns: of 12 instead of 10, the fewest are computed twice.
    assert tile_shape((10, 10, 12), (1, 1, 1)) == (10, 10, 5)
    # Where nothing is seen of either side, cutting costs nothing.
    assert tile_shape((40, 10, 10), (0, 2, 2)) == (10, 10, 10)
    # Half of 13 planes and of 8 rows is kept, and columns are not cut: not as small as wanted.
    assert tile_shape((20, 20, 20), (3, 2, 9)) == (7, 4, 20)
    # Each voxel is computed four times.
    assert tile_shape((10, 10, 10), (0, 0, 0), 4) == (10, 5, 5)
    # Four halos are more than there is.
    assert tile_shape((20, 20, 20), (9, 9, 9)) == (20, 20, 20)


METADATA = Metadata("ZYX", {"Z": 1.5, "Y": 0.2, "X": 0.3})


def test_files_of_volumes(model_of, tmp_path):
    model = model_of("anisotropic")
    image = draw(model.layout, 9, 21, 30)
    write_image(tmp_path / "a.tif", image, METADATA)
    denoised, probabilities = stitched(model, image)
    model.threshold = Threshold(float(np.median(probabilities[FOREGROUND])), 0.5, 1)
    model.recipe = replace(model.recipe, preserve_mean=True)
    predict_file(model, tmp_path / "a.tif", tmp_path / "out", True)
    found = open_image(tmp_path / "out/denoised/a.tif")
    assert found.mean() == pytest.approx(image.mean(), abs=1e-3)
    assert np.ptp(found - denoised) < 1e-3
    (wanted,) = label_instances(probabilities, [model.threshold.value], "components")
    np.testing.assert_array_equal(open_labels(tmp_path / "out/labels/a.tif"), wanted)
    stored = tifffile.imread(tmp_path / "out/probabilities/a.tif")  # (z, channel, y, x)
    np.testing.assert_array_equal(stored.swapaxes(0, 1), probabilities)
    for kind in ("denoised", "labels"):
        assert read_metadata(tmp_path / "out" / kind / "a.tif") == METADATA
    told = read_metadata(tmp_path / "out/probabilities/a.tif")
    assert told == METADATA.with_channels(("background", "foreground", "border"))


def test_each_channel_keeps_its_own_mean(model_of, tmp_path):
    model = model_of("channels")
    model.recipe = replace(model.recipe, preserve_mean=True)
    image = draw(model.layout, 21, 30)
    write_image(tmp_path / "a.tif", image, Metadata("CYX", {}, ("DAPI", "GFP")))
    predict_file(model, tmp_path / "a.tif", tmp_path / "out", False)
    found = open_image(tmp_path / "out/denoised/a.tif")
    assert found.mean(axis=(1, 2)) == pytest.approx(image.mean(axis=(1, 2)), abs=1e-3)
    assert read_metadata(tmp_path / "out/denoised/a.tif").channels == ("DAPI", "GFP")
    assert open_labels(tmp_path / "out/labels/a.tif").shape == (21, 30)


@pytest.mark.parametrize("planes", [False, True])
def test_classical_denoisers_of_volumes_and_channels(tmp_path, planes):
    method = Method("gaussian", classical="gaussian", planes=planes)
    model = ClassicalModel(method, {}, 1.5, None)
    image = draw(LAYOUTS["volumes with channels"], 6, 20, 20)
    write_image(tmp_path / "a.tif", image, Metadata("CZYX"))
    predict_any(model, tmp_path / "a.tif", tmp_path / "out", False)
    found = open_image(tmp_path / "out/denoised/a.tif")
    for channel, each in zip(image, found, strict=True):
        if planes:
            expected = np.stack([classical.denoise("gaussian", plane, 1.5) for plane in channel])
        else:
            expected = classical.denoise("gaussian", channel, 1.5)
        np.testing.assert_array_equal(each, expected)


@pytest.mark.parametrize("name", LAYOUTS)
def test_self_supervised_losses_are_means_over_channels(model_of, tmp_path, name):
    model = model_of(name)
    layout = model.layout
    image = draw(layout, *sides_of(layout))
    axes = ("C" if layout.channels > 1 else "") + "ZYX"[-layout.dimensions :]
    write_image(tmp_path / "a.tif", image, Metadata(axes))
    (row,) = self_supervised_losses(model, tmp_path, ["a"]).itertuples()
    losses = []
    for number in range(layout.channels):

        def denoised(noisy, number=number):
            whole = image.copy()
            whole[number] = noisy
            return stitched(model, whole)[0][number]

        losses.append(classical.masked_pixel_loss(denoised, image[number]))
    assert row.loss == pytest.approx(np.mean(losses))
