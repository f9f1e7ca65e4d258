"""The simulated dataset is reproducible, and as difficult as it says."""

import numpy as np
import pytest
from scipy import ndimage

from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.simulated import nuclei, simulator
from denoiseg_flow.errors import InputError

SIX = list(simulator.simulate(n_images=6, size=128, seed=1))
FILAMENTS = list(simulator.simulate(n_images=6, size=128, seed=1, structure="filaments"))


def test_types_and_shapes():
    for item in SIX:
        assert (item.image.dtype, item.mask.dtype) == (np.uint8, np.int32)
        assert item.clean.dtype == np.float32
        assert item.image.shape == item.mask.shape == item.clean.shape == (128, 128)
        assert item.annotated


def test_an_image_depends_on_seed_and_number_only():
    again = list(simulator.simulate(n_images=3, size=128, seed=1))[2]
    np.testing.assert_array_equal(again.image, SIX[2].image)
    np.testing.assert_array_equal(again.mask, SIX[2].mask)
    other = list(simulator.simulate(n_images=3, size=128, seed=2))[2]
    assert not np.array_equal(other.image, SIX[2].image)
    assert not np.array_equal(SIX[0].image, SIX[1].image)


def test_nuclei_are_whole_numbered_and_within_the_count():
    for item in SIX:
        n_objects = item.mask.max()
        assert 4 <= n_objects <= 22
        assert np.array_equal(np.unique(item.mask), np.arange(n_objects + 1))
        for label in range(1, n_objects + 1):
            nucleus = item.mask == label
            assert ndimage.label(nucleus)[1] == 1
            assert nucleus.sum() >= nuclei.SMALLEST


def test_some_nuclei_touch_without_gap():
    pairs = set()
    for item in SIX:
        left, right = item.mask[:, :-1], item.mask[:, 1:]
        touching = (left > 0) & (right > 0) & (left != right)
        pairs |= {(item.name, *pair) for pair in zip(left[touching], right[touching], strict=True)}
    assert len(pairs) >= 5


def test_grey_values_resemble_8_bit_microscopy():
    background = [np.median(item.clean[item.mask == 0]) for item in SIX]
    contrast = [
        item.clean[item.mask == label].mean() - level
        for item, level in zip(SIX, background, strict=True)
        for label in range(1, item.mask.max() + 1)
    ]
    assert all(8 < level < 35 for level in background)
    assert 35 < np.median(contrast) < 120
    assert min(contrast) < 30, "no nucleus is dim"


@pytest.mark.parametrize("items", [SIX, FILAMENTS], ids=["nuclei", "filaments"])
def test_noise_is_photon_noise(items):
    inner = [item for item in items if item.clean.max() < 230]
    residual = np.concatenate([(i.image - i.clean).ravel() for i in inner])
    clean = np.concatenate([i.clean.ravel() for i in inner])
    assert abs(residual.mean()) < 0.05
    rounding = 1 / 12
    for low, high in [(10, 30), (60, 120)]:
        here = (clean > low) & (clean < high)
        expected = (clean[here].mean() - simulator.CAMERA_OFFSET) / simulator.PHOTONS_PER_LEVEL
        assert residual[here].var() == pytest.approx(expected + rounding, rel=0.1)


def test_nuclei_stay_the_same_whatever_else_is_simulated():
    """Other nuclei would change every number that a study of the default dataset came to."""
    assert int(SIX[0].image.sum()) == pytest.approx(396_340, rel=1e-4)
    assert int(SIX[5].image.sum()) == pytest.approx(423_625, rel=1e-4)


def test_filaments_have_truth_but_no_masks():
    for item in FILAMENTS:
        assert (item.image.dtype, item.clean.dtype) == (np.uint8, np.float32)
        assert item.image.shape == item.clean.shape == (128, 128)
        assert item.mask is None and not item.annotated


def test_cells_of_an_epithelium_are_dark_fill_the_image_and_differ_little_in_size():
    for item in simulator.simulate(n_images=3, size=128, seed=1, structure="membranes"):
        assert (item.image.dtype, item.mask.dtype) == (np.uint8, np.int32)
        inside = item.mask > 0
        assert 0.5 < inside.mean() < 0.9
        assert item.clean[inside].mean() < 0.7 * item.clean[~inside].mean()
        whole = item.mask * 1
        border = np.unique(np.concatenate([whole[0], whole[-1], whole[:, 0], whole[:, -1]]))
        sizes = np.delete(np.bincount(whole.ravel()), border)
        radius = np.sqrt(np.median(sizes) / np.pi)
        assert 4 < radius < 10  # of 6 to 10, less half a membrane


@pytest.mark.parametrize("structure", ["filaments", "membranes"])
def test_an_image_of_filaments_or_membranes_depends_on_seed_number_and_size_only(structure):
    options = {"n_images": 3, "size": 128, "structure": structure}
    expected = list(simulator.simulate(n_images=6, size=128, seed=1, structure=structure))
    again = list(simulator.simulate(seed=1, n_nuclei=(0, 0), **options))[2]
    np.testing.assert_array_equal(again.image, expected[2].image)
    np.testing.assert_array_equal(again.clean, expected[2].clean)
    other = list(simulator.simulate(seed=2, **options))[2]
    assert not np.array_equal(other.image, expected[2].image)
    assert not np.array_equal(expected[0].image, expected[1].image)


def test_filaments_are_thin_bright_and_of_the_grey_values_of_nuclei():
    for item in FILAMENTS:
        background = np.percentile(item.clean, 5)
        assert 8 < background < 35
        assert 30 < np.percentile(item.clean, 97) - background < 180
        assert item.clean.max() <= 245
        # Thin: nothing that is bright survives an opening wider than a filament.
        opened = ndimage.grey_opening(item.clean, 15)
        assert np.percentile(opened - background, 50) < 30
        bright = item.clean > background + 30
        assert 0.02 < bright.mean() < 0.6


def test_number_of_filaments_grows_with_the_area():
    def coverage(size):
        items = simulator.simulate(n_images=8, size=size, structure="filaments")
        return np.mean([item.clean - item.clean.min() for item in items])

    (tiny,) = simulator.simulate(n_images=1, size=16, structure="filaments")
    assert tiny.image.min() < tiny.image.max()
    assert 0.5 < coverage(256) / coverage(128) < 2


def test_filaments_are_written_without_masks(tmp_path):
    simulator.write(tmp_path, n_images=2, size=32, structure="filaments")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "images"]


def test_no_nuclei_is_possible():
    (empty,) = simulator.simulate(n_images=1, size=32, n_nuclei=(0, 0))
    assert not empty.mask.any() and empty.image.min() < empty.image.max()


@pytest.mark.parametrize(
    ("annotated", "expected"), [(None, 8), (3, 3), (0, 0), (0.5, 4), (1.0, 8), (1, 1)]
)
def test_annotated_as_number_or_fraction(annotated, expected):
    assert simulator.count_annotated(8, annotated) == expected


def test_write(tmp_path):
    simulator.write(tmp_path, n_images=3, size=48, n_nuclei=(2, 4), annotated=2, seed=5)
    listing = {k: [p.name for p in sorted((tmp_path / k).iterdir())] for k in ("images", "masks")}
    assert listing["images"] == ["sim_0000.tif", "sim_0001.tif", "sim_0002.tif"]
    assert listing["masks"] == listing["images"][:2]
    first = next(simulator.simulate(n_images=3, size=48, n_nuclei=(2, 4), seed=5))
    np.testing.assert_array_equal(read_image(tmp_path / "images" / "sim_0000.tif"), first.image)
    np.testing.assert_array_equal(read_image(tmp_path / "clean" / "sim_0000.tif"), first.clean)
    np.testing.assert_array_equal(read_image(tmp_path / "masks" / "sim_0000.tif"), first.mask)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"n_images": 0}, "n_images"),
        ({"size": 8}, "size"),
        ({"n_nuclei": (5, 2)}, "n_nuclei"),
        ({"n_nuclei": (5,)}, "n_nuclei"),
        ({"n_images": 3, "annotated": 4}, "annotated"),
        ({"annotated": 1.5}, "annotated"),
        ({"structure": "filaments", "annotated": 3}, "annotated is 3, but simulated filaments"),
        ({"structure": "filaments", "annotated": 0}, "annotated"),
        ({"structure": "yeast"}, "available: nuclei, filaments"),
    ],
)
def test_refuses_impossible_parameters(options, key):
    with pytest.raises(InputError, match=key):
        next(simulator.simulate(**options))
