"""Whether noise is independent from pixel to pixel."""

import numpy as np
import pytest

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.noise import noisy_copy
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array
from denoiseg_flow.evaluation.noise_structure import REACH, noise_of_files, noise_structure

WHITE = {"kind": "gaussian", "sigma": 10}
DRAWS = range(3)


@pytest.fixture(scope="module")
def nuclei():
    return [each.clean for each in simulate(n_images=5)]


def structure(images, level, seed):
    level = level | {"seed": seed}
    return noise_structure(
        noisy_copy(image, level, f"image_{number}", "n") for number, image in enumerate(images)
    )


@pytest.mark.parametrize(
    "level", [WHITE, {"kind": "gaussian", "sigma": 3}, {"kind": "poisson", "photons": 0.5}]
)
def test_white_noise_is_not_accused(nuclei, level):
    found = [structure(nuclei, level, seed) for seed in DRAWS]
    assert {each.kind for each in found} == {"independent"}
    assert {str(each.struct_mask) for each in found} == {"None"}


@pytest.mark.parametrize("axis, length", [("x", 2), ("y", 3), ("x", 5)])
def test_correlated_noise_is_detected_with_its_length(nuclei, axis, length):
    """A sum over ``length`` pixels is correlated with the ``length - 1`` on either side."""
    level = {"kind": "structured", "sigma": 10, "length": length, "axis": axis}
    found = [structure(nuclei, level, seed) for seed in DRAWS]
    assert {each.kind for each in found} == {axis}
    masks = [np.array(each.struct_mask) for each in found]
    assert all(mask.all() and min(mask.shape) == 1 for mask in masks)
    assert {mask.shape[0 if axis == "x" else 1] for mask in masks} == {1}
    assert np.median([mask.size for mask in masks]) == 2 * (length - 1) + 1


def test_correlation_of_a_sum_of_pixels(nuclei):
    """1 - distance / length, less what the fitted surface takes with it."""
    level = {"kind": "structured", "sigma": 10, "length": 4, "axis": "x"}
    found = noise_structure([noisy_copy(np.zeros((512, 512), "f4"), level | {"seed": 0}, "a", "n")])
    expected = np.maximum(1 - np.arange(1, REACH + 1) / 4, 0)
    assert found.along_x == pytest.approx(expected, abs=0.12)
    assert found.along_x[0] > found.along_x[1] > found.along_x[2] > 0.1
    assert np.abs(found.along_y).max() < 0.12


def test_blurred_noise_is_correlated_in_both_directions():
    noise = np.random.default_rng(0).normal(100, 10, (257, 257))
    blurred = (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) / 4
    found = noise_structure([blurred])
    assert found.kind == "both"
    assert found.struct_mask is None


def test_stripes_over_the_whole_width_get_the_longest_mask():
    rng = np.random.default_rng(0)
    image = 100 + rng.normal(0, 10, (256, 1)) + rng.normal(0, 2, (256, 256))
    assert np.shape(noise_structure([image]).struct_mask) == (1, 2 * REACH + 1)


@pytest.mark.parametrize("image", [np.full((64, 64), 7, np.uint8), np.zeros((5, 5))])
def test_images_without_noise(image):
    found = noise_structure([image])
    assert found.kind == "unknown"
    assert np.isnan(found.along_x).all()
    assert found.struct_mask is None


def test_small_images():
    image = np.random.default_rng(0).normal(0, 1, (6, 9))
    found = noise_structure([image])
    assert np.isnan(found.along_y).tolist() == [False] * 5 + [True] * 3
    assert np.isfinite(found.along_x).all()


def test_integers_and_bright_images_are_measured_alike(nuclei):
    noisy = noisy_copy(nuclei[0], WHITE | {"seed": 0}, "a", "n")
    whole = np.rint(noisy + 100).astype(np.uint16)
    first, second = noise_structure([noisy]), noise_structure([whole])
    assert first.along_x == pytest.approx(second.along_x, abs=0.05)


@pytest.mark.parametrize("axes", ["YX", "ZYX", "CYX", "CZYX"])
def test_noise_of_files_is_that_of_one_plane(axes, tmp_path):
    """The middle one of volumes, and that of the first channel."""
    shape = tuple({"C": 2, "Z": 5, "Y": 60, "X": 70}[axis] for axis in axes)
    image = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    write_array(tmp_path / "a.tif", image, Metadata(axes))
    place = tuple({"C": 0, "Z": 2}[axis] for axis in axes[:-2])
    found, expected = noise_of_files([tmp_path / "a.tif"]), noise_structure([image[place]])
    assert (found.kind, found.struct_mask) == (expected.kind, expected.struct_mask)
    for direction in ("along_x", "along_y"):
        assert np.array_equal(getattr(found, direction), getattr(expected, direction))
