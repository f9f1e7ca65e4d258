"""The precision of objects by their confidence: closed forms, and what no data may change."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from denoiseg_flow.evaluation import object_precision
from denoiseg_flow.evaluation.object_precision import (
    FEWEST,
    GROUPS,
    are_correct,
    design_effect,
    fit_precision,
    judge_objects,
    wilson,
)
from denoiseg_flow.models.precision_curve import PrecisionCurve


def objects(*groups):
    """Objects of groups (confidence, correct, wrong), in turn in one of ten images."""
    rows = [
        (value, number < right) for value, right, wrong in groups for number in range(right + wrong)
    ]
    table = pd.DataFrame(rows, columns=["confidence", "correct"])
    return table.assign(image=[f"i{number % 10}" for number in range(len(table))])


def test_shares_of_groups():
    curve = fit_precision(objects((0.2, 5, 15), (0.8, 15, 5)))
    assert curve.confidence == [0.2, 0.8]
    assert curve.precision == [0.25, 0.75]
    assert (curve.n_objects, curve.n_images) == (40, 10)
    assert curve.at(np.array([0.0, 0.2, 0.5, 0.8, 1.0, np.nan])) == pytest.approx(
        [0.25, 0.25, 0.5, 0.75, 0.75, np.nan], nan_ok=True
    )
    for share, low, high in zip(curve.precision, curve.lower, curve.upper, strict=True):
        interval = binomtest(round(20 * share), 20).proportion_ci(method="wilson")
        assert low <= interval.low + 1e-4 and interval.high - 1e-4 <= high


def test_perfect_calibration_stays():
    shares = [0.05, 0.25, 0.45, 0.65, 0.85, 1.0]
    curve = fit_precision(
        objects(*((share, round(FEWEST * share), round(FEWEST * (1 - share))) for share in shares))
    )
    assert curve.precision == pytest.approx(shares, abs=1e-4)
    assert curve.at(np.linspace(0.05, 1, 50)) == pytest.approx(np.linspace(0.05, 1, 50), abs=1e-4)


def test_a_fall_is_levelled():
    """Of 20 and 20 objects, the more confident ones are less often correct."""
    curve = fit_precision(objects((0.3, 16, 4), (0.7, 8, 12)))
    assert curve.precision == [0.6, 0.6]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 4)), min_size=20, max_size=99)
)
def test_more_confident_objects_are_never_less_precise(rows):
    table = pd.DataFrame(rows, columns=["confidence", "correct", "image"])
    curve = fit_precision(table)
    assert 1 <= len(curve.confidence) <= min(GROUPS, len(table) // FEWEST)
    assert (np.diff(curve.confidence) > 0).all()
    assert (np.diff(curve.at(np.linspace(0, 1, 101))) >= 0).all()
    low, share, high = (np.array(each) for each in (curve.lower, curve.precision, curve.upper))
    assert (low <= share + 1e-4).all() and (share <= high + 1e-4).all()
    assert low.min() >= 0 and high.max() <= 1


def test_too_few_objects_tell_nothing():
    assert fit_precision(objects((0.5, FEWEST - 1, 0))) is None
    assert fit_precision(objects((0.5, FEWEST, 0))).precision == [1.0]


@pytest.mark.parametrize("right, count", [(0, 20), (7, 20), (20, 20), (150, 160)])
def test_interval_is_that_of_wilson(right, count):
    known = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right / count, count) == pytest.approx((known.low, known.high))


def test_objects_of_an_image_that_are_all_alike_count_as_one():
    """Four images of six objects, all correct or all wrong: k m / (m - 1)."""
    images = pd.Series(np.repeat(list("abcd"), 6))
    residuals = np.repeat([0.5, -0.5, 0.5, -0.5], 6)
    assert design_effect(residuals, np.full(24, 0.5), images) == pytest.approx(6 * 4 / 3)
    assert design_effect(np.tile([0.5, -0.5], 12), np.full(24, 0.5), images) == 1
    assert design_effect(residuals[:6], np.full(6, 0.5), images[:6]) == 1, "unknown"


def test_correct_is_an_overlap_of_more_than_half():
    truth = np.zeros((6, 12), np.int32)
    truth[0:2, 0:4], truth[0:2, 6:10], truth[4:, :] = 1, 2, -1
    labels = np.zeros_like(truth)
    labels[0:2, 1:4] = 3  # IoU 3 / 4
    labels[0:2, 8:12] = 5  # 1 / 3
    labels[5, 3:6] = 7  # not annotated there
    assert are_correct(truth, labels) == {3: True, 5: False}


def test_every_image_is_predicted_by_a_network_not_trained_on_it(monkeypatch, make_model):
    """Of two objects, one is found; the networks tell who they are by their confidence."""
    model, other = make_model(), make_model()
    model.held_out = {"a": other}
    truth = np.zeros((8, 8), np.int32)
    truth[:3, :3] = 1
    labels = truth.copy()
    labels[5:, 5:] = 4
    monkeypatch.setattr(object_precision, "segment", lambda own, image: labels)
    monkeypatch.setattr(
        object_precision,
        "object_confidences",
        lambda own, image, labels: np.array([0.9, 0.3]) if own is other else np.array([0.8, 0.2]),
    )
    table = judge_objects(model, ((name, np.zeros((1, 8, 8)), truth) for name in "ab"))
    assert table["image"].tolist() == ["a", "a", "b", "b"]
    assert table["confidence"].tolist() == [0.9, 0.3, 0.8, 0.2]
    assert table["correct"].tolist() == [True, False, True, False]


def test_a_curve_has_a_number_for_each_group():
    with pytest.raises(ValueError):
        PrecisionCurve([0.1], [0.2, 0.3], [0.1], [0.4], 20, 2)
    with pytest.raises(ValueError, match="groups"):
        PrecisionCurve([float("nan")], [0.2], [0.1], [0.4], 20, 2)
