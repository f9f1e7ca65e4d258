"""Images of any size, tile by tile: no seams, right scale, right files."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import scipy
import tifffile
import torch
from torch import nn
from torch.nn import functional

from denoiseg_flow.data import store
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.layout import input_folder
from denoiseg_flow.data.store import read_metadata
from denoiseg_flow.evaluation.annotate_next import entropy
from denoiseg_flow.methods import classical
from denoiseg_flow.methods.classes import FOREGROUND
from denoiseg_flow.methods.definition import Method, as_dict
from denoiseg_flow.methods.instances import label_instances
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models import predict_run, tiled_instances, tiled_prediction
from denoiseg_flow.models.model import CERTAINTY_WINDOW, ClassicalModel, ImageModels
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.predict_run import predict_file, predict_folder, self_supervised_losses
from denoiseg_flow.models.prediction import predict_probabilities
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.models.tiled_prediction import PREFERENCE, predict_tiles

N2V = Method(name="n2v", target="blind_spot", alpha=1)
BASELINE = Method(name="baseline", alpha=0)
JOINT = Method(name="denoiseg", target="blind_spot", alpha=0.5)
N2S = Method(name="n2s", target="blind_spot", masking="grid_interpolate", alpha=1)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(100, 25, shape).astype(np.float32)


def cut(model, image, tile=None):
    """The tiles of an image (y, x), of that side or as large as they are by default."""
    return predict_tiles(model, image[None], tile and (tile,) * model.layout.dimensions)


def stitched(model, image, **options):
    """Denoised image and probabilities from all tiles, each pixel exactly once."""
    denoised = np.full(image.shape, np.nan, np.float32)
    probabilities = np.full((3, *image.shape), np.nan, np.float32)
    times = np.zeros(image.shape, int)
    for tile in cut(model, image, **options):
        denoised[tile.place] = tile.denoised[0]
        probabilities[:, *tile.place] = tile.probabilities
        times[tile.place] += 1
    assert (times == 1).all()
    return denoised, probabilities


def missing_in(image, strides):
    """How many pixels each axis of an image lacks at its end to be a multiple of the stride."""
    return [(0, -size % stride) for size, stride in zip(image.shape, strides, strict=True)]


def untiled(model, image):
    """The network on the whole image at once, mirrored up to a multiple of its stride."""
    mean, std = 100.0, 25.0
    missing = missing_in(image, model.network.stride)
    padded = np.pad((image - np.float32(mean)) / np.float32(std), missing, mode="reflect")
    with torch.inference_mode():
        output = model.network(torch.from_numpy(padded)[None, None])[0]
    output = output[:, : image.shape[0], : image.shape[1]]
    return (output[0] * std + mean).numpy(), output[1:].softmax(dim=0).numpy()


def at_both_sizes(model, image):
    """The network on a whole image and on the means of its blocks, and the weight of the former.

    Sides of the image are multiples of twice the stride.
    """
    denoised, found = untiled(model, image)
    height, width = image.shape
    half = image.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3), dtype=np.float32)
    of_half = torch.from_numpy(untiled(model, half)[1])[None]
    enlarged = functional.interpolate(of_half, scale_factor=2, mode="bilinear")[0].numpy()
    known = scipy.ndimage.uniform_filter(np.ones(image.shape), CERTAINTY_WINDOW, mode="constant")

    def certainty(classes):
        relative = 1 - entropy(classes) / np.log2(3)
        return scipy.ndimage.uniform_filter(relative, CERTAINTY_WINDOW, mode="constant") / known

    weight = scipy.special.expit(PREFERENCE * (certainty(found) - certainty(enlarged)))
    return denoised, weight * found + (1 - weight) * enlarged, weight


@pytest.mark.parametrize(("depth", "tile"), [(1, 7), (2, 20), (2, 512)])
def test_maps_are_mostly_those_of_the_more_certain_size(make_model, depth, tile):
    model, image = make_model(depth=depth), draw((64, 120))
    image[:, :60] = scipy.ndimage.gaussian_filter(image[:, :60], 2)
    with torch.no_grad():  # new networks are hardly certain of anything
        [*model.network.parameters()][-2].mul_(30)
    expected, maps, weight = at_both_sizes(model, image)
    assert weight.min() < 0.45 and weight.max() > 0.55
    both = replace(model, recipe=replace(model.recipe, multiscale=True))
    denoised, probabilities = stitched(both, image, tile=tile)
    assert np.abs(denoised - expected).max() < 1e-4 * np.ptp(expected)
    assert np.abs(probabilities - maps).max() < 1e-4


def test_methods_that_only_denoise_read_one_size(make_model):
    model = make_model(N2V)
    both = replace(model, recipe=replace(model.recipe, multiscale=True))
    assert both.halo == model.halo and both.stride == model.stride


def oriented(model):
    """The same model with test-time augmentation."""
    return replace(model, recipe=replace(model.recipe, test_time_augmentation=True))


def untiled_oriented(model, image):
    """Mean over all orientations of the whole image, whose sides are multiples of the stride."""
    results = []
    for mirrored, turns in product((False, True), range(4)):
        view = np.rot90(image[:, ::-1] if mirrored else image, turns).copy()
        denoised, probabilities = untiled(model, view)
        result = np.rot90(np.stack([denoised, *probabilities]), -turns, (1, 2))
        results.append(result[:, :, ::-1] if mirrored else result)
    mean = np.mean(results, axis=0)
    return mean[0], mean[1:]


@pytest.mark.parametrize(
    "depth, shape, tile",
    [
        *((1, (36, 52), 7), (2, (36, 52), 4), (2, (64, 64), 30), (2, (88, 12), 30)),
        *((2, (4, 40), 7), (2, (32, 4), 7), (2, (4, 4), 512)),
    ],
)
def test_no_seams_in_any_orientation(make_model, depth, shape, tile):
    model, image = make_model(depth=depth), draw(shape)
    denoised, probabilities = stitched(oriented(model), image, tile=tile)
    whole_denoised, whole_probabilities = untiled_oriented(model, image)
    data_range = max(float(np.ptp(whole_denoised)), 1.0)
    assert np.abs(denoised - whole_denoised).max() < 1e-4 * data_range
    assert np.abs(probabilities - whole_probabilities).max() < 1e-4
    plain, _ = stitched(model, image, tile=tile)
    assert np.abs(denoised - plain).max() > 1e-3 * data_range


@pytest.mark.parametrize("shape", [(37, 53), (1, 40), (33, 1), (1, 1), (90, 9)])
def test_no_seams_in_any_orientation_of_any_size(make_model, shape):
    """Beyond the end of the image lies its mirror image, in whatever orientation."""
    model, image = oriented(make_model(depth=2)), draw(shape)
    expected, expected_probabilities = stitched(model, image)
    denoised, probabilities = stitched(model, image, tile=8)
    assert np.abs(denoised - expected).max() < 1e-4 * max(float(np.ptp(expected)), 1.0)
    assert np.abs(probabilities - expected_probabilities).max() < 1e-4


def test_turned_image_turned_prediction(make_model):
    """With test-time augmentation, and not without it."""
    image = draw((32, 48))
    plain = make_model(depth=2)
    for model, equal in ((oriented(plain), True), (plain, False)):
        denoised, probabilities = stitched(model, image)
        turned, turned_probabilities = stitched(model, np.rot90(image).copy())
        for upright, other in (
            (denoised, turned),
            (probabilities, turned_probabilities),
        ):
            difference = np.rot90(upright, axes=(-2, -1)) - other
            assert (np.abs(difference).max() < 1e-4 * np.ptp(upright)) == equal


@pytest.mark.parametrize(
    "depth, shape, tile",
    [
        *((1, (37, 53), 7), (2, (37, 53), 4), (2, (64, 64), 30), (2, (90, 9), 30)),
        *((2, (1, 40), 7), (2, (33, 1), 4), (2, (3, 5), 4), (2, (1, 1), 512), (2, (90, 9), 512)),
    ],
)
def test_no_seams(make_model, depth, shape, tile):
    model, image = make_model(depth=depth), draw(shape)
    denoised, probabilities = stitched(model, image, tile=tile)
    whole_denoised, whole_probabilities = untiled(model, image)
    data_range = max(float(np.ptp(whole_denoised)), 1.0)
    assert np.abs(denoised - whole_denoised).max() < 1e-4 * data_range
    assert np.abs(probabilities - whole_probabilities).max() < 1e-4


@pytest.mark.parametrize("downscale", [4, 0.5])
@pytest.mark.parametrize("shape, tile", [((37, 53), 7), ((64, 64), 30), ((5, 40), 512)])
def test_no_seams_between_tiles_of_another_size(make_model, shape, tile, downscale):
    model, image = make_model(layout=Layout(downscale=downscale)), draw(shape)
    denoised, probabilities = stitched(model, image, tile=tile)
    whole_denoised, whole_probabilities = untiled(model, image)
    assert np.abs(denoised - whole_denoised).max() < 1e-4 * max(np.ptp(whole_denoised), 1.0)
    assert np.abs(probabilities - whole_probabilities).max() < 1e-4


def test_seams_would_be_seen(make_model):
    """Without a halo the very same comparison fails."""
    model, image = make_model(depth=2), draw((64, 64))
    model.network.halo = (0, 0)
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
    image = Watched(draw((1, 300, 200)))
    for tile in predict_tiles(model, image, (32, 32)):
        assert tile.denoised.size <= (32 + model.network.halo[0] + model.network.stride[0]) ** 2
    side = 32 + 2 * (model.network.halo[0] + model.network.stride[0])
    assert 32**2 < image.largest <= side**2


# J-invariance


def stitched_j_invariant(model, image, **options):
    """The J-invariant denoised image from all tiles."""
    denoised = np.full(image.shape, np.nan, np.float32)
    for tile in cut(model, image, **options):
        denoised[tile.place] = tile.j_invariant[0]
    return denoised


def untiled_j_invariant(model, image):
    """One subset of the grid after the other, hidden by hand in the whole mirrored image."""
    method, (mean, std) = model.method, (100.0, 25.0)
    missing = missing_in(image, model.network.stride)
    x = np.pad((image - np.float32(mean)) / np.float32(std), missing, mode="reflect")
    rows, columns = (np.pad(axis, missing, mode="reflect") for axis in np.indices(image.shape))
    ring = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]], float)
    result = np.empty_like(x)
    for subset in range(method.grid**2):
        mask = (rows % method.grid) * method.grid + columns % method.grid == subset
        sums, weights = (
            scipy.ndimage.convolve(values, ring, mode="constant")
            for values in (x * ~mask, 1.0 * ~mask)
        )
        guess = sums / weights if method.masking == "grid_interpolate" else np.zeros_like(x)
        channels = np.stack([np.where(mask, guess, x), mask][: 1 + method.mask_channel])
        with torch.inference_mode():
            output = model.network(torch.from_numpy(channels.astype(np.float32))[None])[0, 0]
        result[mask] = output.numpy()[mask]
    return result[: image.shape[0], : image.shape[1]] * std + mean


# Every two of these properties meet in some method.
GRIDS = [
    Method(
        "n2s", "noisy", "blind_spot", masking, grid=grid, mask_channel=told, network=name, alpha=1
    )
    for name, masking, told, grid in [
        ("unet", "grid_interpolate", False, 4),
        ("unet", "grid_zero", True, 5),
        ("unet_blurpool", "grid_interpolate", True, 4),
        ("unet_blurpool", "grid_zero", False, 5),
        ("dncnn", "grid_zero", False, 4),
        ("dncnn", "grid_interpolate", True, 5),
    ]
]


def words(method):
    told = "told" if method.mask_channel else "not told"
    return f"{method.network} {method.masking} {method.grid} {told}"


@pytest.mark.parametrize("method", GRIDS, ids=words)
def test_j_invariance(make_model, method):
    """The prediction of a pixel does not depend on the pixels of its subset, to the last bit."""
    model, rng = make_model(method), np.random.default_rng(1)
    image = draw({4: (11, 18), 5: (13, 9)}[method.grid])
    y, x = np.indices(image.shape)
    subsets = (y % method.grid) * method.grid + x % method.grid
    for tile in (12, 512):
        denoised, _ = stitched(model, image, tile=tile)
        before = stitched_j_invariant(model, image, tile=tile)
        masked = subsets == rng.choice(subsets.ravel())
        changed = np.where(masked, image + rng.normal(0, 1e4, image.shape), image).astype("f4")
        after = stitched_j_invariant(model, changed, tile=tile)
        assert np.array_equal(after[masked], before[masked])
        # It does depend on other pixels, and on its own in a single pass that shows all.
        assert (after[~masked] != before[~masked]).any()
        single, _ = stitched(model, changed, tile=tile)
        assert (single[masked] != denoised[masked]).any()
        others = np.where(masked, image, image + 10)
        assert (stitched_j_invariant(model, others, tile=tile)[masked] != before[masked]).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1)])
@pytest.mark.parametrize("method", [GRIDS[0], GRIDS[1], GRIDS[4]], ids=words)
def test_j_invariance_of_lines_of_pixels(make_model, method, shape):
    """Their mirrored copies are hidden with them."""
    model, image = make_model(method), draw(shape)
    before = stitched_j_invariant(model, image)
    for place in np.ndindex(shape):
        changed = image.copy()
        changed[place] += 1e4
        assert stitched_j_invariant(model, changed)[place] == before[place]


def test_what_is_hidden_of_a_channel_is_seen_of_others(make_model, monkeypatch):
    """In prediction as in training, for noise is independent from channel to channel."""
    layout = Layout(2, channels=2)
    model, masks = make_model(replace(N2S, mask_channel=True), layout=layout), []
    model.normalisation = Normalisation((100.0, 80.0), (25.0, 50.0))
    run = tiled_prediction._run
    monkeypatch.setattr(
        tiled_prediction, "_run",
        lambda *given: (masks.append(given[-1]), run(*given))[1],
    )  # fmt: skip
    list(predict_tiles(model, np.stack([draw((12, 16))] * 2)))
    masks = [mask for mask in masks if mask.dtype == torch.bool]
    assert len(masks) == 16
    assert (sum(mask.int() for mask in masks) == 1).all()
    for mask in masks:
        assert mask[:, 0].any() and mask[:, 1].any() and not (mask[:, 0] & mask[:, 1]).any()


@pytest.mark.parametrize("method", [m for m in GRIDS if m.grid == 4], ids=words)
def test_j_invariant_tiles_have_no_seams(make_model, method):
    model = make_model(method)
    for shape in ((27, 5), (2, 21)):
        image = draw(shape)
        expected = untiled_j_invariant(model, image)
        tolerance = 1e-4 * np.ptp(expected)
        for tile in (8, 512):
            assert (
                np.abs(stitched_j_invariant(model, image, tile=tile) - expected).max() < tolerance
            )


@pytest.mark.parametrize("method", [N2V, BASELINE, JOINT, replace(N2S, target="clean")])
def test_only_grids_are_predicted_j_invariantly(make_model, method):
    (tile,) = predict_tiles(make_model(method), draw((1, 9, 9)))
    assert tile.j_invariant is None


class Copy(nn.Module):
    """Denoises by leaving the image as it is; foreground is what is brighter than the mean."""

    stride, halo = (4, 4), (3, 3)

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
    model.normalisation = Normalisation((mean,), (std,))
    image = np.clip(draw((40, 50)), 0, 255).astype(dtype)
    denoised, _ = stitched(model, image, tile=16)
    assert denoised.dtype == np.float32
    assert denoised == pytest.approx(image.astype(np.float32), abs=max(mean, 255) * 1e-6)


def test_probabilities_of_the_whole_image(copying):
    image = draw((21, 534))
    probabilities = predict_probabilities(copying(), image[None])
    assert (probabilities.shape, probabilities.dtype) == ((3, *image.shape), np.float32)
    assert np.array_equal(probabilities[FOREGROUND] > 0.5, image > 100)


@pytest.fixture
def source(tmp_path):
    """An image with pixels of 0.2 x 0.3 micrometres."""
    path = tmp_path / "noisy" / "007.tif"
    store.write_array(path, draw((45, 38)), Metadata("YX", {"Y": 0.2, "X": 0.3}))
    return path


@pytest.mark.parametrize(
    "method, kept, expected",
    [
        (N2V, True, {"denoised"}),
        (N2S, True, {"denoised", "j_invariant"}),
        (replace(N2S, alpha=0.5), False, {"denoised", "j_invariant", "labels"}),
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
    (image,) = store.open_image(source)
    denoised, probabilities = stitched(model, image)
    planes = {"denoised": denoised, "probabilities": probabilities}
    if method.masks_grid:
        planes["j_invariant"] = stitched_j_invariant(model, image)
    if method.segments:
        model.threshold = Threshold(float(np.median(probabilities[FOREGROUND])), 0.5, 1)
    predict_file(model, source, folder, kept)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {f"{kind}/007.tif" for kind in expected}
    for kind in expected:
        path = folder / kind / "007.tif"
        assert read_metadata(path).spacing() == pytest.approx((0.2, 0.3), rel=1e-5)
        found = tifffile.imread(path)
        if kind == "labels":
            threshold = model.threshold.value
            (wanted,) = label_instances(probabilities, [threshold], "components")
            assert wanted.any()
            assert np.array_equal(found, wanted)
            assert found.dtype == np.uint16
        else:
            assert found.dtype == np.float32
            assert np.array_equal(found, planes[kind])


def with_and_without_mean(model, noisy, folder):
    """What is written of an image, where its mean is preserved and where it is not."""
    tifffile.imwrite(folder / "a.tif", noisy)
    found = {}
    for preserve in (False, True):
        recipe = replace(model.recipe, preserve_mean=preserve)
        predict_file(replace(model, recipe=recipe), folder / "a.tif", folder / str(preserve), False)
        for kind in (folder / str(preserve)).iterdir():
            found[kind.name, preserve] = tifffile.imread(kind / "a.tif")
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("method", [N2V, Method("n2n", target="second_noisy", alpha=1)])
def test_mean_of_the_noisy_image_is_preserved(make_model, tmp_path, monkeypatch, dtype, method):
    """Over the whole image, by the same shift in all of its tiles."""
    monkeypatch.setattr(tiled_prediction, "TILE", 32)
    monkeypatch.setattr(predict_run, "PIECE", 1000)
    noisy = draw((70, 90)).astype(dtype)
    found = with_and_without_mean(make_model(method), noisy, tmp_path)
    plain, preserved = found["denoised", False], found["denoised", True]
    assert abs(plain.mean(dtype=float) - noisy.mean(dtype=float)) > 1
    assert preserved.mean(dtype=float) == pytest.approx(noisy.mean(dtype=float), abs=1e-4)
    assert np.ptp(preserved - plain) < 1e-3


def test_clean_images_tell_their_mean_themselves(make_model, tmp_path):
    """Noise such as dropped pixels has another mean."""
    model = make_model(Method("supervised", target="clean", alpha=1))
    found = with_and_without_mean(model, draw((40, 50)), tmp_path)
    assert np.array_equal(found["denoised", False], found["denoised", True])


def test_a_shift_by_the_mean_would_tell_masked_pixels(make_model, tmp_path):
    found = with_and_without_mean(make_model(N2S), draw((20, 30)), tmp_path)
    assert np.array_equal(found["j_invariant", False], found["j_invariant", True])
    assert not np.array_equal(found["denoised", False], found["denoised", True])


def test_many_objects_need_32_bits(copying, tmp_path):
    """More than 65,535 single bright pixels."""
    image = np.full((514, 514), 90, np.float32)
    image[::2, ::2] = 110
    store.write_array(tmp_path / "many.tif", image)
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
            store.write_array(tmp_path / folder / f"{name}.tif", draw((9, 9), number) + shift)
    assert input_folder(tmp_path / "noisy") == tmp_path / "noisy"
    assert input_folder(tmp_path / "run") == tmp_path / "run" / "denoised"
    for folder, shift in (("noisy", 0), ("run", 500)):
        out = tmp_path / "out" / folder
        predict_folder(copying(N2V), tmp_path / folder, ["a", "c"], out, False)
        assert sorted(path.name for path in (out / "denoised").iterdir()) == ["a.tif", "c.tif"]
        found = tifffile.imread(out / "denoised/c.tif")
        assert found == pytest.approx(draw((9, 9), 2) + shift, abs=1e-3)


# Models of other kinds


def test_each_image_is_predicted_by_its_own_network(make_model, tmp_path):
    method = replace(N2S, each_image=True)
    models = {name: make_model(method) for name in "ab"}
    models["b"].normalisation = Normalisation((300.0,), (5.0,))
    for number, name in enumerate("ab"):
        store.write_array(tmp_path / "noisy" / f"{name}.tif", draw((20, 30), number))
    both = ImageModels(method, models["a"].recipe, models["a"].identity, models)
    predict_folder(both, tmp_path / "noisy", ["a", "b"], tmp_path / "out", False)
    for number, name in enumerate("ab"):
        for kind, predict in (
            ("denoised", lambda *given: stitched(*given)[0]),
            ("j_invariant", stitched_j_invariant),
        ):
            found = tifffile.imread(tmp_path / "out" / kind / f"{name}.tif")
            assert np.array_equal(found, predict(models[name], draw((20, 30), number)))


@pytest.mark.parametrize("name, value, sigma", [("median", 2, None), ("nlm", 0.8, 20.0)])
def test_classical_denoisers_write_what_they_yield(tmp_path, source, name, value, sigma):
    model = ClassicalModel(Method(name, classical=name), {}, value, sigma)
    predict_folder(model, source.parent, ["007"], tmp_path / "out", True)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == [tmp_path / "out" / "denoised" / "007.tif"]
    expected = classical.denoise(name, store.open_image(source)[0], value, sigma)
    assert np.array_equal(tifffile.imread(files[0]), expected)
    assert read_metadata(files[0]).spacing() == pytest.approx((0.2, 0.3), rel=1e-5)


# Instances, errors and memory


def test_recipe_says_how_instances_are_made(copying, tmp_path):
    """Two bright squares, and a bridge that is foreground and border alike."""

    class Bridged(Copy):
        def forward(self, x):
            # Above the mean: foreground; far above: foreground and border with 0.5 each.
            logits = 20 * torch.sign(x)
            border = torch.where(x > 2, logits, -40.0)
            return torch.cat([x, -logits, logits, border], dim=1)

    image = np.full((20, 40), 50, np.float32)
    image[5:15, 5:15] = image[5:15, 25:35] = 130
    image[9:11, 15:25] = 200
    store.write_array(tmp_path / "a.tif", image)
    counts = {}
    for way in ("components", "watershed"):
        model = copying(BASELINE)
        model.network, model.recipe = Bridged(), replace(model.recipe, instances=way)
        predict_file(model, tmp_path / "a.tif", tmp_path / way, False)
        labels = tifffile.imread(tmp_path / way / "labels/a.tif")
        assert np.array_equal(labels > 0, image > 100)
        counts[way] = labels.max()
    assert counts == {"components": 1, "watershed": 2}


@pytest.mark.parametrize("broken", ["second tile", "TiledInstances.write"])
def test_error_leaves_no_files(copying, source, tmp_path, monkeypatch, broken):
    started, read = [], tiled_prediction._read

    def fail(*_):
        started.extend(path for path in (tmp_path / "out").rglob("*.tif"))
        raise OSError(28, "No space left on device")
        yield

    def read_or_fail(tile, target):
        if tile.kept[0].start:
            next(fail())
        read(tile, target)

    monkeypatch.setattr(tiled_instances.TiledInstances, "_bands", fail)
    if broken == "second tile":
        monkeypatch.setattr(tiled_prediction, "TILE", 16)
        monkeypatch.setitem(tiled_prediction.BATCH_PIXELS, "cpu", 1)
        monkeypatch.setattr(tiled_prediction, "_read", read_or_fail)
    with pytest.raises(OSError, match="No space left"):
        predict_file(copying(), source, tmp_path / "out", True)
    assert started
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


MEMORY = """
import json, sys
from pathlib import Path
import numpy as np, tifffile, torch
from torch import nn
from denoiseg_flow.models import (
    predict_run, rescaled_prediction, tiled_components, tiled_instances, tiled_prediction,
)
from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.normalisation import Normalisation

class Bright(nn.Module):
    stride, halo = (4, 4), (3, 3)
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
    def forward(self, x):
        return torch.cat([x, -9e3 * x, 9e3 * x, -4e4 * torch.ones_like(x)], dim=1)

given = json.loads(sys.argv[1])
torch.set_num_threads(1)
# Less is in memory at once, so that images need not be large to have more pixels.
tiled_prediction.TILE = 256
tiled_instances.TILES[2] = (256, 256)
predict_run.PIECE = tiled_components.PIECE = 2**16
model = TrainedModel(
    Method(name="denoiseg", target="blind_spot", alpha=0.5), Recipe(**given["recipe"]), {},
    Normalisation((0.0,), (1.0,)), Bright(), threshold=Threshold(0.5, 1.0, 1),
)
peaks = []
for side, released in ((600, True), (given["side"], True), (given["side"], False)):
    if not released:
        for module in (
            predict_run, rescaled_prediction, tiled_components, tiled_instances, tiled_prediction,
        ):
            module.release = lambda array: None
    path = Path(given["folder"], f"{side}.tif")
    image = tifffile.memmap(path, shape=(side, side), dtype=np.float32, photometric="minisblack")
    wave = np.sin(np.arange(side) / 7)
    for y in range(side):
        image[y] = np.sin(y / 9) + wave - 1
        if y % 256 == 0:
            release(image)
    del image
    predict_run.predict_file(model, path, Path(given["folder"]), False, None, given["factors"])
    # Not getrusage: that peak begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peaks.append(int(status.split("VmHWM:")[1].split()[0]))
labels = tifffile.imread(Path(given["folder"], "labels", path.name))
denoised = tifffile.memmap(Path(given["folder"], "denoised", path.name), mode="r")
print(json.dumps({
    "growth": [1024 * (peak - peaks[0]) for peak in peaks[1:]], "objects": int(labels.max()),
    "wrong": float(((labels > 0) != (denoised > 0)).mean()),
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured as Linux counts it")
@pytest.mark.parametrize(("factors", "wrong"), [(None, 1e-4), ([0.8, 0.6], 0.02)])
def test_memory_does_not_grow_with_the_image(make_recipe, tmp_path, factors, wrong):
    """Input, denoised image, labels and heights take 4 bytes per pixel each: none is in memory.

    Nor are the resampled image and its results. The same measurement without giving back the pages
    that were used shows that it can tell.
    """
    side = 1600
    recipe = as_dict(make_recipe(instances="watershed", preserve_mean=True))
    given = {"side": side, "folder": str(tmp_path), "recipe": recipe, "factors": factors}
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, json.dumps(given)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["wrong"] < wrong and found["objects"] > 450
    released, kept = found["growth"]
    assert released < 4 * side**2
    assert kept > 12 * side**2


def test_cross_validated_images_are_predicted_by_networks_that_have_not_seen_them(
    make_model, tmp_path
):
    model, other = make_model(JOINT), make_model(JOINT)
    with torch.no_grad():
        other.network.head.weight.mul_(-1)
    model.held_out = {"b": other}
    for name in "ab":
        store.write_array(tmp_path / "noisy" / f"{name}.tif", draw((20, 24)))
    predict_folder(model, tmp_path / "noisy", ["a", "b"], tmp_path / "out", False)
    found = {name: tifffile.imread(tmp_path / f"out/denoised/{name}.tif") for name in "ab"}
    assert not np.array_equal(found["a"], found["b"])
    for name, each in (("a", model), ("b", other)):
        predict_file(each, tmp_path / "noisy" / f"{name}.tif", tmp_path / "alone", False)
        assert np.array_equal(tifffile.imread(tmp_path / f"alone/denoised/{name}.tif"), found[name])


def test_self_supervised_losses_of_a_network(make_model, make_blobs, tmp_path):
    blobs = {name: make_blobs(48, seed, sigma=20)[0] for seed, name in enumerate("ab")}
    for name, image in blobs.items():
        store.write_array(tmp_path / f"{name}.tif", image)
    model = make_model()

    def denoised(image):
        return stitched(model, image.astype(np.float32))[0]

    table = self_supervised_losses(model, tmp_path, ["b", "a"])
    assert table["image"].tolist() == ["b", "a"]
    for row in table.itertuples():
        assert row.loss == pytest.approx(classical.masked_pixel_loss(denoised, blobs[row.image]))
        assert row.loss > 20**2


@pytest.mark.parametrize("noise_sigma", [None, 15.0])
def test_self_supervised_losses_are_those_of_the_calibration(make_blobs, tmp_path, noise_sigma):
    image, _ = make_blobs(48, 0, sigma=20)
    store.write_array(tmp_path / "a.tif", image)
    model = ClassicalModel(Method("tv", classical="tv"), {}, 1.5, noise_sigma)
    (row,) = self_supervised_losses(model, tmp_path, ["a"]).itertuples()
    table = classical.calibrate("tv", [1.5], [image], noise_sigma)
    assert row.loss == pytest.approx(table["loss_self_supervised"][0])


@pytest.mark.parametrize("grid", [3, 4])
def test_networks_of_single_images_are_judged_where_they_learned_nothing(
    make_model, tmp_path, monkeypatch, grid
):
    """On the subset that training sets aside, wherever the part that is judged begins."""
    monkeypatch.setattr(predict_run, "JUDGED", 32)
    image = draw((43, 42))
    store.write_array(tmp_path / "a.tif", image)
    single = make_model(replace(N2S, grid=grid, each_image=True))
    model = ImageModels(single.method, single.recipe, {}, {"a": single})
    looked_at = []

    def loss(function, image, masked):
        looked_at.append(masked)
        return 0.0

    monkeypatch.setattr(predict_run, "masked_pixel_loss", loss)
    self_supervised_losses(model, tmp_path, ["a"])
    ((mask,),) = looked_at
    y, x = np.indices(image.shape)
    aside = (y % grid) * grid + x % grid == grid**2 - 1
    assert np.array_equal(mask, aside[5:37, 5:37])


def test_of_large_images_the_centre_is_judged(make_model, tmp_path, monkeypatch):
    image = np.random.default_rng(0).normal(100, 10, (40, 72)).astype(np.float32)
    store.write_array(tmp_path / "large.tif", image)
    store.write_array(tmp_path / "centre.tif", image[4:36, 20:52])
    monkeypatch.setattr(predict_run, "JUDGED", 32)
    table = self_supervised_losses(make_model(), tmp_path, ["large", "centre"])
    assert table["loss"][0] == table["loss"][1]
