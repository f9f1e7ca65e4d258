"""Objects by a threshold: the formula of Otsu, nothing in noise, and objects that touch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import threshold_otsu

from denoiseg_flow.methods.instances import find_seeds, grow_seeds
from denoiseg_flow.methods.thresholding import (
    BINS,
    FARTHEST,
    NECK,
    NO_OBJECTS,
    RADIUS,
    SURROUNDINGS,
    Levels,
    add_channels,
    find_foreground,
    find_levels,
    height_of_objects,
    reach,
)

WAYS = ["otsu", "local_threshold"]


def levels_of(image):
    low, high = float(image.min()), float(image.max())
    return find_levels(np.histogram(image, BINS, (low, high))[0], low, high)


def objects(image, way="otsu", z_step=1.0):
    """Labels of an image in memory."""
    height = height_of_objects(find_foreground(image, levels_of(image), way, z_step), z_step)
    seeds, _ = ndimage.label(find_seeds(height))
    return grow_seeds(height, seeds, height > -np.inf)


def discs(*centres, shape=(96, 128), radius=10.0, z_step=1.0):
    """A mask of discs or balls."""
    steps = (z_step, 1, 1)[-len(shape) :]
    places = np.indices(shape)
    mask = np.zeros(shape, bool)
    for centre in centres:
        away = [(at - c) * step for at, c, step in zip(places, centre, steps, strict=True)]
        mask |= sum(each**2 for each in away) <= radius**2
    return mask


def noise(shape=(96, 128), sigma=20.0, seed=0):
    return np.random.default_rng(seed).normal(0, sigma, shape)


def test_the_threshold_is_that_of_another_implementation():
    image = 100.0 * discs((40, 40), (50, 90)) + noise()
    ends = float(image.min()), float(image.max())
    found = find_levels(np.histogram(image, 256, ends)[0], *ends).threshold
    width = (ends[1] - ends[0]) / 256  # it returns the centre of a bin, not its end
    assert found == pytest.approx(threshold_otsu(image, 256) + width / 2, abs=width / 10)


def test_between_two_grey_levels_the_threshold_is_halfway():
    image = np.where(discs((40, 40)), 30.0, 10.0)
    assert levels_of(image).threshold == pytest.approx(20, abs=0.01)
    assert levels_of(image).floor == pytest.approx(18, abs=0.01)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_objects_do_not_depend_on_the_unit_of_grey_levels(way, unit):
    image = 100.0 * discs((40, 40), (50, 90)) + ndimage.gaussian_filter(noise(), 1)
    assert np.array_equal(objects(unit * (image - 300), way), objects(image, way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("smoothed", [0, 1, 2, 4])
@pytest.mark.parametrize(
    "light", [0, np.linspace(0, 60, 128), -0.01 * (np.arange(128.0) - 64) ** 2], ids=str
)
def test_images_without_objects_have_none(way, smoothed, light):
    for seed in range(3):
        image = ndimage.gaussian_filter(noise(seed=seed) + light, smoothed)
        assert objects(image, way).max() == 0


@pytest.mark.parametrize("way", WAYS)
def test_counted_photons_alone_are_no_objects(way):
    photons = np.random.default_rng(0).poisson(2.0, (96, 128)).astype(float)
    for smoothed in (0, 1, 2):
        assert objects(ndimage.gaussian_filter(photons, smoothed), way).max() == 0


def test_a_constant_image_has_no_objects():
    assert find_levels(np.array([12]), 3.0, 3.0) == NO_OBJECTS
    assert not find_foreground(np.full((8, 9), 3.0), NO_OBJECTS, "local_threshold").any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("contrast", [60, 120, 1000])
def test_one_small_object_in_a_large_image_is_found(way, contrast):
    """Otsu's classes would be the two halves of the noise."""
    truth = discs((100, 200), shape=(400, 500), radius=7)
    image = ndimage.gaussian_filter(contrast * truth + noise(truth.shape), 2)
    found = objects(image, way)
    assert found.max() == 1
    assert (found[truth] > 0).mean() > 0.8
    assert (found[~ndimage.binary_dilation(truth, iterations=4)] == 0).all()


@pytest.mark.parametrize("z_step", [1.0, 5.0])
def test_surroundings_are_as_wide_along_z(z_step):
    image = noise((9, 20, 30))
    sigma = (SURROUNDINGS / z_step, SURROUNDINGS, SURROUNDINGS)
    around = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3)
    found = find_foreground(image, Levels(99.0, 10.0), "local_threshold", z_step)
    assert np.array_equal(found, (image > around) & (image > 10))


def test_touching_discs_are_divided_at_their_neck():
    (labels,) = [objects(1.0 * discs((48, 40), (48, 57)))]
    assert labels.max() == 2
    assert len(set(labels[48, [40, 57]])) == 2
    assert np.bincount(labels.ravel())[1:] == pytest.approx(labels.astype(bool).sum() / 2, rel=0.1)


@given(st.floats(0.5, 3))
def test_the_size_of_objects_does_not_decide_about_their_division(scale):
    """Two discs as far apart, in units of their radius, are divided at any size."""
    for apart, count in [(0.6, 1), (1.8, 2)]:
        radius = 9 * scale
        mask = discs((48, 60), (48, 60 + apart * radius), radius=radius)
        assert objects(1.0 * mask).max() == count


def test_thin_and_small_objects_are_discarded():
    image = np.zeros((40, 60))
    image[4:36, 5:8] = image[10:20, 20:30] = 1  # three and ten pixels wide
    labels = objects(image)
    assert labels[:, :15].max() == 0
    assert (labels[10:20, 20:30] == 1).all()


def test_the_landscape_measures_ratios_of_distances():
    row = height_of_objects(np.pad(np.ones((80, 400), bool), 1))[40]
    deep = np.minimum(np.arange(1, 41), FARTHEST)
    expected = 0.3 * np.log(deep / RADIUS) / np.log(NECK) + 0.3
    assert row[1:41] == pytest.approx(expected, rel=1e-5)
    assert row[0] == -np.inf


def test_distances_along_z_are_those_of_the_specimen():
    """Two balls above each other, with z-slices three pixel widths apart."""
    centres = [(5, 24, 24), (10.5, 24, 24)]
    image = 1.0 * discs(*centres, shape=(16, 48, 48), radius=9, z_step=3.0)
    assert objects(image, z_step=3.0).max() == 2
    flat = np.zeros((9, 40, 40))
    flat[4, 10:30, 10:30] = 1  # one z-slice: thinner than RADIUS only if slices are close
    assert [int(objects(flat, z_step=step).max()) for step in (1.0, 4.0)] == [0, 1]


def test_channels_are_added_in_units_of_their_scales():
    image = np.stack([np.full((2, 3), 6), np.full((2, 3), 10)]).astype(np.uint16)
    assert np.array_equal(add_channels(image, [2.0, 5.0]), np.full((2, 3), 5.0))


@pytest.mark.parametrize("way, radius", [("otsu", 65), ("local_threshold", 140)])
def test_reach(way, radius):
    assert reach(way, 2) == (radius, radius)
    assert reach(way, 3, z_step=4.0) == (-(-radius // 4), radius, radius)
