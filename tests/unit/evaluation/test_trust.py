"""What is said about results."""

import numpy as np
import pandas as pd
import pytest

from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.data.store import write_array
from denoiseg_flow.evaluation import trust
from denoiseg_flow.evaluation.confidence import LOW
from denoiseg_flow.evaluation.trust import (
    BINS,
    Segmented,
    about_precision,
    about_size,
    find_doubts,
    reliability,
)
from denoiseg_flow.findings import worst
from denoiseg_flow.methods.classes import BORDER, FOREGROUND
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.models.model import ThresholdModel
from denoiseg_flow.study.grid import Run


def pair(probability, share, size=100):
    """An image of one probability, a share of which (columns) is an object; the border aside."""
    mask = np.zeros((size, size), np.int32)
    mask[:, : round(share * size)] = 1
    probabilities = np.zeros((3, size, size), np.float32)
    probabilities[FOREGROUND] = probability
    probabilities[BORDER] = 1 - probability
    return probabilities, mask


def test_reliability_of_one_probability():
    found = reliability([pair(0.75, 0.5), pair(0.75, 1.0)])
    assert found.n_images == 2 and found.n_pixels.sum() == 20_000
    (place,) = np.flatnonzero(found.n_pixels)
    assert place == int(0.75 * BINS)
    assert found.probability[place] == pytest.approx(0.75)
    # One column of the 50 is the border of the object.
    assert found.frequency[place] == pytest.approx((49 + 100) / 200, abs=0.011)
    assert found.excess == pytest.approx(0.75 - found.frequency[place])


def test_ignored_pixels_are_not_compared():
    probabilities, mask = pair(0.95, 1.0)
    mask[:50] = -1
    assert reliability([(probabilities, mask)]).n_pixels.sum() == 5_000
    assert reliability([]) is None


def images(**columns):
    values = {"image": ["a", "b"], "AP": np.nan, "objects": 1, "confidence": np.nan}
    residuals = {"smoothed": 0.0, "invented": 0.0, "removed": 1.0}
    return pd.DataFrame(values | residuals | columns)


@pytest.mark.parametrize(
    ("columns", "topic", "named"),
    [
        ({"smoothed": [0.0, 0.2]}, "oversmoothing", ("b",)),
        ({"invented": [0.05, 0.02]}, "hallucinated structure", ("a", "b")),
        ({"removed": [0.3, 0.4]}, "remaining noise", ()),
        ({"AP": [0.9, 0.2]}, "scores", ()),
        ({"confidence": [0.9, 0.2]}, "confidence", ("b",)),
        ({"confidence": [0.3, 0.2]}, "confidence", ("b", "a")),
    ],
)
def test_doubts(columns, topic, named):
    (found,) = worst(find_doubts(images(**columns), None))
    assert (found.severity, found.topic, found.images) == ("warning", topic, named)


def test_nothing_to_doubt():
    (found,) = find_doubts(images(), None)
    assert (found.severity, found.topic) == ("note", "residual")
    assert "In 100.0% of all windows, the residual looks like noise" in found.sentence
    unknown, noise_free = find_doubts(images(removed=np.nan), None)
    assert unknown.topic == "remaining noise" and "is unknown" in unknown.sentence
    assert noise_free == found
    assert find_doubts(images(smoothed=np.nan, invented=np.nan, removed=np.nan), None) == []


def test_confidence_in_words():
    for objects, words in (([0, 3], "; without any object: 1)"), ([2, 3], ")")):
        (found,) = worst(find_doubts(images(confidence=[0.0, 0.8], objects=objects), None))
        assert f"labels of 1 of 2 images are doubtful (confidence below {LOW}{words}" in (
            found.sentence
        )
    sure, _ = find_doubts(images(confidence=[0.9, 0.8]), None)
    assert sure.severity == "note"
    assert "confidence in the labels of 2 images is 0.80 (b) to 0.90" in sure.sentence


def test_a_residual_with_correlated_pixels_is_not_only_noise():
    """Edges fill few windows, but most of the residual."""
    (found,) = find_doubts(images(), None, (0.47, 0.02))
    assert (found.severity, found.topic) == ("warning", "residual")
    assert "correlation 0.47, in the noise 0.02" in found.sentence
    (rows,) = find_doubts(images(), None, (0.9, 0.8))  # noise along rows
    (unknown,) = find_doubts(images(), None, (float("nan"), 0.0))
    assert rows.severity == unknown.severity == "note"


def test_probabilities_in_words():
    (careful,) = find_doubts(images().iloc[:0], reliability([pair(0.6, 0.9)]))
    assert "underestimated by 0.30 on average (1 test image)" in careful.sentence
    (sure,) = find_doubts(images().iloc[:0], reliability([pair(0.9, 0.3)] * 2))
    assert "overestimated by 0.6" in sure.sentence and "(2 test images)" in sure.sentence
    (right,) = find_doubts(images().iloc[:0], reliability([pair(0.75, 0.76)]))
    assert right.severity == "note"


def test_a_threshold_has_no_probabilities_to_compare(tmp_path):
    split = pd.DataFrame({"image": ["a"], "subset": ["test"], "annotated": [1]})
    model = ThresholdModel(Method("m", segmenter="otsu"), {}, PLANES, (1.0,))
    run = Run("data", "n0", "m", 0, 1)
    segmented = Segmented(run, model, tmp_path, Predictions(tmp_path))
    assert trust._calibration(split, PreparedData(tmp_path), segmented) is None


def test_another_size_is_noted_with_what_denoised_images_lose(make_model):
    (joint,) = about_size(make_model(layout=Layout(downscale=3)))
    assert joint.severity == "note"
    assert "at 1/3 of their size" in joint.sentence
    assert "details finer than 3 pixels" in joint.sentence
    (baseline,) = about_size(make_model(Method("baseline"), layout=Layout(downscale=3)))
    assert "denoised" not in baseline.sentence
    (magnified,) = about_size(make_model(layout=Layout(downscale=0.5)))
    assert magnified.sentence == (
        "The network reads images at twice their size, because their objects are small in pixels."
    )
    assert not list(about_size(make_model()))


def judged(expected, n_correct, n_wrong=0):
    """Objects of one expected precision, in turn in one of ten images."""
    correct = [1] * n_correct + [0] * n_wrong
    names = [f"i{number % 10}" for number in range(len(correct))]
    table = pd.DataFrame({"image": names, "expected_precision": expected, "correct": correct})
    return table.astype({"correct": "Int64"})


@pytest.mark.parametrize(
    ("objects", "severity", "words"),
    [
        (judged(0.8, 160, 40), "note", "Of 200 objects in 10 test images, 80% are correct"),
        (judged(0.95, 120, 80), "warning", "95% were expected by their confidence. Do not rely"),
        (judged(0.9, 17, 3), "note", "; too few objects for a reliable estimate"),
    ],
)
def test_expected_precision_in_words(objects, severity, words):
    (found,) = about_precision(objects)
    assert (found.severity, found.topic) == (severity, "expected precision")
    assert words in found.sentence


def test_expected_precision_that_cannot_be_checked():
    unknown = judged(0.8, 30)
    assert not list(about_precision(unknown.drop(columns="expected_precision")))
    assert not list(about_precision(unknown.assign(correct=pd.NA)))
    assert not list(about_precision(pd.DataFrame({"image": []})))


def test_objects_of_an_image_with_what_is_known_of_them(tmp_path, make_model, monkeypatch):
    model, run = make_model(), Run("nuclei", "n10", "denoiseg", 4, 1)
    write_array(tmp_path / "a.tif", np.zeros((8, 8), np.float32))
    labels, truth = np.zeros((8, 8), np.uint16), np.zeros((8, 8), np.int32)
    labels[0:2, 0:4], labels[6, 6] = 2, 5
    truth[0:2, 0:3] = 1
    monkeypatch.setattr(trust, "object_confidences", lambda *_: np.array([0.9, 0.2]))
    seen = Segmented(run, model, tmp_path, Predictions(tmp_path))
    table = trust._judge(seen, "a", labels, truth)
    assert table.to_dict("records") == [
        {"image": "a", "label": 2, "y": 0.5, "x": 1.5, "area": 8, "confidence": 0.9, "correct": 1},
        {"image": "a", "label": 5, "y": 6.0, "x": 6.0, "area": 1, "confidence": 0.2, "correct": 0},
    ]
    assert "correct" not in trust._judge(seen, "a", labels, None)
    monkeypatch.setattr(trust, "object_confidences", lambda *_: np.zeros(0))
    nothing = trust._judge(seen, "a", 0 * labels, truth)
    assert nothing.empty and set(nothing) == set(table)
