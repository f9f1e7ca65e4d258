"""Objects from probabilities, and the threshold between them."""

import numpy as np
import pytest

from denoiseg_flow.instances import THRESHOLDS, Threshold, choose_threshold, label_foreground


def discs(value_inside, value_between, value_outside=0.0):
    """Two squares with a bridge between them: probabilities and their two labels."""
    truth = np.zeros((12, 20), np.int32)
    truth[3:9, 2:8], truth[3:9, 12:18] = 1, 2
    foreground = np.full(truth.shape, value_outside, np.float32)
    foreground[5:7, 8:12] = value_between
    foreground[truth > 0] = value_inside
    return foreground, truth


def test_thresholds_of_the_reference():
    assert np.allclose(THRESHOLDS, np.arange(0.10, 1.001, 0.05))
    assert (THRESHOLDS[0], THRESHOLDS[-1], len(THRESHOLDS)) == (0.1, 1.0, 19)


@pytest.mark.parametrize("bridge", [0.42, 0.45])
def test_lowest_threshold_that_cuts_the_bridge_is_chosen(bridge):
    """Below it both squares are one object; a probability at the threshold does not exceed it."""
    foreground, truth = discs(0.8, bridge)
    assert choose_threshold([(foreground, truth)]) == Threshold(0.45, 1.0, 1)


def test_threshold_serves_all_images_alike():
    """One image wants more than 0.6, another less than 0.7, a third is right everywhere."""
    images = [discs(0.9, 0.61), discs(0.69, 0.0), discs(0.95, 0.0)]
    assert choose_threshold(images) == Threshold(0.65, 1.0, 3)


def test_best_compromise():
    """No threshold suits both: the mean of 1 and 0 is the best there is."""
    images = [discs(0.9, 0.7), discs(0.5, 0.0)]
    chosen = choose_threshold(images)
    assert chosen == Threshold(0.1, pytest.approx(0.5), 2)


def test_probability_must_exceed_the_threshold():
    """At 1.0 nothing is left, even where the network is certain."""
    foreground, truth = discs(1.0, 0.97)
    assert choose_threshold([(foreground, truth)]) is not None
    assert not label_foreground(foreground > THRESHOLDS[-1]).any()


def test_images_without_objects_take_no_part():
    """False positives on them at low thresholds must not count."""
    foreground, truth = discs(0.8, 0.0)
    empty = (np.full_like(foreground, 0.9), np.zeros_like(truth))
    assert choose_threshold([(foreground, truth), empty]) == Threshold(0.1, 1.0, 1)


@pytest.mark.parametrize("truths", [[], [np.zeros((12, 20), int)], [np.full((12, 20), -1)]])
def test_nothing_to_choose_by(truths):
    foregrounds = [np.ones((12, 20), np.float32) for _ in truths]
    assert choose_threshold(zip(foregrounds, truths, strict=True)) is None


def test_ignored_pixels_take_no_part():
    """Where the annotator looked away, whatever is predicted is no mistake."""
    foreground, truth = discs(0.8, 0.0, 0.0)
    foreground[0, :] = 0.99
    assert choose_threshold([(foreground, truth)]).average_precision == pytest.approx(2 / 3)
    truth[0, :] = -1
    assert choose_threshold([(foreground, truth)]).average_precision == 1.0


def test_components_are_connected_by_sides():
    foreground = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 1]], bool)
    assert np.array_equal(label_foreground(foreground), [[1, 1, 0], [0, 0, 2], [3, 0, 2]])


@pytest.mark.parametrize("count, dtype", [(0, "u2"), (65_535, "u2"), (65_536, "u4")])
def test_labels_take_as_many_bits_as_they_need(count, dtype):
    foreground = np.zeros((2 * 256, 2 * 257), bool)
    spots = np.argwhere(np.ones((256, 257), bool))[:count] * 2
    foreground[spots[:, 0], spots[:, 1]] = True
    labels = label_foreground(foreground)
    assert labels.dtype == dtype
    assert len(np.unique(labels)) == count + 1
    assert labels.max() == count
