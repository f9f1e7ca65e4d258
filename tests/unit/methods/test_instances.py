"""Objects from probabilities, and the threshold between them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.methods.classes import relative_distance
from denoiseg_flow.methods.instances import (
    HIGHEST,
    PROMINENCE,
    STEP,
    find_seeds,
    grow_seeds,
    height_of,
    label_foreground,
    label_instances,
    watershed_mask,
)
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.training import threshold as choosing
from denoiseg_flow.training.threshold import THRESHOLDS, choose_threshold

COMPONENTS, WATERSHED, DISTANCE = "components", "watershed", "distance"


def of(foreground, border=0.0):
    """Probabilities (3, [z,] y, x) of the given foreground and border."""
    foreground, border = np.broadcast_arrays(np.float32(foreground), np.float32(border))
    return np.stack([1 - foreground - border, foreground, border])


def squares(value_inside, value_between):
    """Two squares with a bridge between them: probabilities and their two labels."""
    truth = np.zeros((12, 20), np.int32)
    truth[3:9, 2:8], truth[3:9, 12:18] = 1, 2
    foreground = np.zeros(truth.shape, np.float32)
    foreground[5:7, 8:12] = value_between
    foreground[truth > 0] = value_inside
    return of(foreground), truth


def labelled(probabilities, threshold, way):
    (labels,) = label_instances(probabilities, [threshold], way)
    return labels


# The threshold


def test_thresholds_of_the_reference():
    tried = THRESHOLDS[COMPONENTS]
    assert np.allclose(tried, np.arange(0.10, 1.001, 0.05))
    assert (tried[0], tried[-1], len(tried)) == (0.1, 1.0, 19)
    assert set(tried[:-1]) < set(THRESHOLDS[WATERSHED]) and list(tried) == sorted(tried)


def test_of_equally_good_thresholds(monkeypatch):
    """The reference takes the highest, we the middle of the widest range, wherever that lies."""

    def choose(good, way):
        scores = iter([float(any(low <= t <= high for low, high in good)) for t in THRESHOLDS[way]])
        monkeypatch.setattr(choosing, "average_precision", lambda *_: next(scores))
        return choose_threshold([squares(0.8, 0.0)], way).value

    assert choose([(0.2, 0.4)], COMPONENTS) == 0.4
    assert choose([(0.2, 0.4)], WATERSHED) == 0.3
    assert choose([(0.2, 0.25), (0.5, 0.7)], WATERSHED) == 0.6
    assert choose([(0, 0.02)], WATERSHED) == 0.01
    assert choose([(0.96, 1)], WATERSHED) == 0.98


@pytest.mark.parametrize("bridge", [0.42, 0.45])
def test_a_threshold_that_cuts_the_bridge_is_chosen(bridge):
    """Below it both squares are one object; a probability at the threshold does not exceed it."""
    probabilities, truth = squares(0.47, bridge)
    assert choose_threshold([(probabilities, truth)], COMPONENTS) == Threshold(0.45, 1.0, 1)


def test_threshold_serves_all_images_alike():
    """One image wants more than 0.6, another less than 0.7, a third is right everywhere."""
    images = [squares(0.9, 0.61), squares(0.69, 0.0), squares(0.95, 0.0)]
    assert choose_threshold(images, COMPONENTS) == Threshold(0.65, 1.0, 3)


def test_best_compromise():
    """No threshold suits both: the mean of 1 and 0 is the best there is."""
    images = [squares(0.9, 0.7), squares(0.5, 0.0)]
    chosen = choose_threshold(images, COMPONENTS)
    assert chosen == Threshold(0.85, pytest.approx(0.5), 2)


def test_probability_must_exceed_the_threshold():
    """At 1.0 nothing is left, even where the network is certain."""
    probabilities, truth = squares(1.0, 0.97)
    assert choose_threshold([(probabilities, truth)], COMPONENTS) is not None
    assert not labelled(probabilities, THRESHOLDS[COMPONENTS][-1], COMPONENTS).any()


def test_images_without_objects_take_no_part():
    """False positives on them at low thresholds must not count."""
    probabilities, truth = squares(0.8, 0.0)
    empty = (np.full_like(probabilities, 0.9), np.zeros_like(truth))
    assert choose_threshold([(probabilities, truth), empty], COMPONENTS) == Threshold(0.75, 1.0, 1)


@pytest.mark.parametrize("truths", [[], [np.zeros((12, 20), int)], [np.full((12, 20), -1)]])
def test_nothing_to_choose_by(truths):
    images = [(of(np.ones((12, 20))), truth) for truth in truths]
    assert choose_threshold(images, COMPONENTS) is None


def test_ignored_pixels_take_no_part():
    """Where the annotator looked away, whatever is predicted is no mistake."""
    probabilities, truth = squares(0.8, 0.0)
    probabilities[1, 0, :] = 0.99
    assert choose_threshold(
        [(probabilities, truth)], COMPONENTS
    ).average_precision == pytest.approx(2 / 3)
    truth[0, :] = -1
    assert choose_threshold([(probabilities, truth)], COMPONENTS).average_precision == 1.0


def test_every_way_gets_its_own_threshold():
    """The watershed needs no high threshold to cut the bridge: it has a seed on either side."""
    image = squares(0.8, 0.42)
    assert choose_threshold([image], COMPONENTS) == Threshold(0.75, 1.0, 1)
    assert choose_threshold([image], WATERSHED) == Threshold(0.5, 1.0, 1)


@pytest.mark.parametrize(("dip", "prominence"), [(0.27, 0.2), (0.42, 0.3), (0.22, 0.15)])
def test_the_prominence_that_separates_objects_is_chosen(dip, prominence):
    probabilities, truth = squares(0.9, 0.9)
    distance = np.where(truth > 0, 0.9, np.where(probabilities[1] > 0, 0.9 - dip, 0))
    maps = np.stack([*probabilities, distance.astype(np.float32)])
    chosen = choose_threshold([(maps, truth)], DISTANCE)
    assert (chosen.prominence, chosen.n_images) == (prominence, 1)
    (labels,) = label_instances(maps, [chosen.value], DISTANCE, chosen.prominence)
    assert labels.max() == 2
    (merged,) = label_instances(maps, [chosen.value], DISTANCE, dip + 0.1)
    assert merged.max() == 1


def test_a_flat_distance_still_finds_objects():
    """A network that has learned little predicts distances far below 1."""
    probabilities, truth = squares(0.9, 0.0)
    maps = np.stack([*probabilities, np.where(truth > 0, 0.22, 0).astype(np.float32)])
    assert choose_threshold([(maps, truth)], DISTANCE).average_precision == 1


def test_images_are_looked_at_one_at_a_time(monkeypatch):
    """The next one is made when the one before has been scored at all thresholds."""
    scored = []
    monkeypatch.setattr(choosing, "average_precision", lambda *_: scored.append(1) or 0.5)

    def images():
        for number in range(3):
            assert len(scored) == number * len(THRESHOLDS[WATERSHED])
            yield squares(0.8, 0.0)

    assert choose_threshold(images(), WATERSHED) == Threshold(0.5, 0.5, 3)


# Components


def test_components_are_connected_by_sides():
    foreground = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 1]], bool)
    assert np.array_equal(label_foreground(foreground), [[1, 1, 0], [0, 0, 2], [3, 0, 2]])


def test_components_of_volumes_are_connected_by_faces():
    """In raster order, planes first."""
    foreground = np.zeros((3, 3, 3), bool)
    foreground[0, 0, 0] = foreground[1, 0, 0] = foreground[1, 1, 0] = True
    foreground[2, 2, 0] = foreground[0, 2, 2] = foreground[1, 1, 1] = True
    expected = np.zeros((3, 3, 3), int)
    expected[:2, 0, 0] = expected[1, 1, :2] = 1
    expected[0, 2, 2], expected[2, 2, 0] = 2, 3
    assert np.array_equal(label_foreground(foreground), expected)


@pytest.mark.parametrize("count, dtype", [(0, "u2"), (65_535, "u2"), (65_536, "u4")])
def test_labels_take_as_many_bits_as_they_need(count, dtype):
    foreground = np.zeros((2 * 256, 2 * 257), bool)
    spots = np.argwhere(np.ones((256, 257), bool))[:count] * 2
    foreground[spots[:, 0], spots[:, 1]] = True
    labels = label_foreground(foreground)
    assert labels.dtype == dtype
    assert len(np.unique(labels)) == count + 1
    assert labels.max() == count


# Watershed


def test_closed_form():
    """A row of pixels: the lowest one goes to the higher of its neighbours, the wall parts."""
    height = [0.9, 0.8, 0.30, 0.20, 0.35, 0.9, 0.0, 0.4]
    found = labelled(of([height]), 0.1, WATERSHED)
    assert found.tolist() == [[1, 1, 1, 2, 2, 2, 0, 0]]
    assert labelled(of([height]), 0.1, COMPONENTS).tolist() == [[1, 1, 1, 1, 1, 1, 0, 2]]


@pytest.mark.parametrize(
    "height, expected",
    [
        ([0.66, 0.36, 0.61, -0.3], [1, 1, 1, 0]),  # the lower peak rises by 0.25 only
        ([0.66, 0.26, 0.61, -0.3], [1, 0, 2, 0]),
        ([0.28, 0.02, -0.3, 0.32, 0.11, 0.31], [0, 0, 0, 1, 1, 1]),  # the first is too low
    ],
)
def test_a_seed_must_rise_above_the_saddle(height, expected):
    """Uneven insides stay in one piece, and what is left of the seed ends 0.3 below its peak."""
    seeds, _ = ndimage.label(find_seeds(np.array([height])))
    assert seeds.tolist() == [expected]


def discs(gap):
    """Two discs of radius 10 that touch, with a border between them but for a gap."""
    y, x = np.mgrid[:30, :46]
    left, right = ((y - 15) ** 2 + (x - centre) ** 2 <= 100 for centre in (13, 33))
    wall = (left | right) & (abs(x - 23) <= 1)
    border = np.where(wall & (abs(y - 15) >= gap), 0.8, np.where(wall, 0.3, 0.0))
    foreground = np.where(left | right, 0.95 - border, 0.0)
    return of(foreground, border), left | right


def test_gap_in_the_border():
    """The components run together there, and the watershed does not."""
    probabilities, both = discs(gap=2)
    assert labelled(probabilities, 0.5, COMPONENTS).max() == 1
    found = labelled(probabilities, 0.5, WATERSHED)
    assert found.max() == 2
    assert np.array_equal(found > 0, probabilities[1] > 0.5)
    sides = np.where(np.arange(46) < 23, 1, 2)
    apart = np.arange(46) != 23  # the pixels in the middle are as far from either
    assert np.array_equal(found[:, apart], ((found > 0) * sides)[:, apart])
    whole = labelled(probabilities, 0.1, WATERSHED)
    assert np.array_equal(whole > 0, both & (probabilities[1] > 0.1))


def test_foreground_without_a_seed_is_dropped():
    foreground = np.zeros((9, 20))
    foreground[2:7, 2:7], foreground[2:7, 12:17] = 0.9, 0.45
    found = labelled(of(foreground), 0.3, WATERSHED)
    assert np.array_equal(found, (foreground == 0.9).astype(int))
    assert labelled(of(foreground), 0.3, COMPONENTS).max() == 2


def test_border_makes_no_seed():
    """Certain foreground, but as certain a border: nothing to begin with."""
    assert not labelled(of(np.full((4, 4), 0.5), 0.5), 0.3, WATERSHED).any()
    assert not labelled(of(np.full((4, 4), 0.7), 0.11), 0.3, WATERSHED).any()
    assert labelled(of(np.full((4, 4), 0.7), 0.09), 0.3, WATERSHED).all()


def test_seeds_remain_above_the_threshold():
    foreground = np.zeros((9, 12))
    foreground[1:8, 1:8], foreground[4, 4] = 0.6, 0.99
    found = labelled(of(foreground), 0.95, WATERSHED)
    assert np.array_equal(found, (foreground > 0).astype(int))


def balls(gap):
    """Two balls of radius 6 that touch, with a border between them but for a gap."""
    z, y, x = np.mgrid[:15, :15, :27]
    left, right = (
        (z - 7) ** 2 + (y - 7) ** 2 + (x - centre) ** 2 <= 36 for centre in (7, 19)
    )  # fmt: skip
    wall = (left | right) & (abs(x - 13) <= 1)
    border = np.where(wall, np.where((z - 7) ** 2 + (y - 7) ** 2 >= gap**2, 0.8, 0.3), 0.0)
    return of(np.where(left | right, 0.95 - border, 0.0), border), left | right


def test_gap_in_the_border_of_volumes():
    """The plane through both centres would not tell them from one; seeds in the volume do."""
    probabilities, both = balls(gap=2)
    assert labelled(probabilities, 0.5, COMPONENTS).max() == 1
    found = labelled(probabilities, 0.1, WATERSHED)
    assert np.array_equal(found > 0, both & (probabilities[1] > 0.1))
    sides = np.where(np.arange(27) < 13, 1, 2)
    apart = np.arange(27) != 13
    assert np.array_equal(found[..., apart], ((found > 0) * sides)[..., apart])


def test_a_volume_of_one_plane_is_labelled_as_that_plane():
    probabilities, _ = discs(gap=2)
    for way in (COMPONENTS, WATERSHED):
        plane = labelled(probabilities, 0.3, way)
        volume = labelled(probabilities[:, None], 0.3, way)
        assert np.array_equal(volume[0], plane)
        assert plane.max() > 0


def test_the_threshold_of_volumes():
    """The best one for planes is the best for volumes of such planes."""
    probabilities, truth = (
        np.repeat(values[..., None, :, :], 4, axis=-3) for values in squares(0.8, 0.42)
    )
    assert choose_threshold([(probabilities, truth)], COMPONENTS) == Threshold(0.75, 1.0, 1)
    assert choose_threshold([(probabilities, truth)], WATERSHED) == Threshold(0.5, 1.0, 1)


@st.composite
def rough_maps(draw):
    """Class probabilities and a distance, without any relation between them."""
    sides = draw(st.sampled_from([(40, 40), (6, 20, 20)]))
    shape = draw(st.tuples(*(st.integers(1, side) for side in sides)))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    blur = (0, *[1.5 if len(shape) == 2 else 1.2] * len(shape))
    *noise, distance = ndimage.gaussian_filter(rng.standard_normal((4, *shape)), blur)
    strength = draw(st.sampled_from([3, 10, 30]))
    weights = np.exp(strength * np.stack(noise))
    return np.stack([*weights / weights.sum(axis=0), strength * distance]).astype(np.float32)


ways = pytest.mark.parametrize("way", [WATERSHED, DISTANCE])


@ways
@given(maps=rough_maps())
def test_seeds_are_h_maxima(way, maps):
    """As scikit-image finds them by morphological reconstruction."""
    height = height_of(maps, way)
    rise = round(PROMINENCE / STEP)
    steps = np.pad(np.floor(np.minimum(height, HIGHEST) / STEP), 1, constant_values=-100)
    beside = ndimage.generate_binary_structure(height.ndim, 1)
    cut = reconstruction(steps - rise, steps, footprint=beside)
    expected = local_maxima(cut, connectivity=1) & (cut >= 0)
    assert np.array_equal(find_seeds(height), expected[(slice(1, -1),) * height.ndim])


@ways
@given(maps=rough_maps(), threshold=st.sampled_from(THRESHOLDS[WATERSHED]))
def test_equals_a_plain_watershed(way, maps, threshold):
    """And every object is in one piece, with one seed."""
    height = height_of(maps, way)
    seeds, count = ndimage.label(find_seeds(height))
    mask = watershed_mask(maps[1], height, threshold)
    found = grow_seeds(height, seeds, mask)
    assert np.array_equal(found, watershed(-height, seeds, mask=mask))
    assert np.array_equal(found, labelled(maps, threshold, way))
    assert np.array_equal(found[seeds > 0], seeds[seeds > 0])
    assert not found[~mask].any()
    for number in range(1, count + 1):
        assert ndimage.label(found == number)[1] == 1


def test_the_distance_separates_objects_whose_foreground_and_border_do_not():
    truth = np.zeros((24, 44), np.int32)
    y, x = np.ogrid[:24, :44]
    truth[(y - 12) ** 2 + (x - 13) ** 2 < 81] = 1
    truth[(y - 12) ** 2 + (x - 30) ** 2 < 81] = 2
    probabilities = of(0.9 * (truth > 0))
    maps = np.concatenate([probabilities, relative_distance(truth)[None]])
    assert labelled(probabilities, 0.5, WATERSHED).max() == 1
    assert np.array_equal(labelled(maps, 0.5, DISTANCE) > 0, truth > 0)
    assert average_precision(truth, labelled(maps, 0.5, DISTANCE)) == 1


def test_labels_at_several_thresholds_are_those_at_each():
    probabilities, _ = discs(gap=2)
    for way in (COMPONENTS, WATERSHED):
        together = label_instances(probabilities, THRESHOLDS[way], way)
        for threshold, labels in zip(THRESHOLDS[way], together, strict=True):
            assert np.array_equal(labels, labelled(probabilities, threshold, way))
