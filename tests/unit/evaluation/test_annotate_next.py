"""Which images to annotate next."""

import math

import numpy as np
import pytest

from denoiseg_flow.data.store import write_array
from denoiseg_flow.evaluation import annotate_next
from denoiseg_flow.evaluation.annotate_next import (
    FEWEST,
    LISTED,
    confidence_and_features,
    coverage_order,
    entropy,
    suggest,
)
from denoiseg_flow.evaluation.confidence import object_confidences, segment
from denoiseg_flow.methods.pixel_classifier import PixelClassifier
from denoiseg_flow.models.threshold import Threshold


def test_entropy_in_bits():
    assert entropy(np.full((3, 1, 1), 1 / 3)) == pytest.approx(math.log2(3))
    assert entropy(np.array([1.0, 0, 0]).reshape(3, 1, 1)) == pytest.approx(0)
    assert entropy(np.array([0.5, 0.5, 0]).reshape(3, 1, 1)) == pytest.approx(1)


def points(*values):
    return np.array(values, float)[:, None]


def test_groups_are_covered_one_after_the_other():
    """Nine images of three kinds, of which one is annotated: the largest other kind is first."""
    features = points(0, 0.1, 5, 5.1, 5.2, 5.3, 6.9, 7, 7.1)
    order = coverage_order(features, points(0.05), np.arange(9), 3)
    assert order[0] in (4, 5) and order[1] == 7
    assert len(set(order)) == 3


def test_only_candidates_are_taken():
    features = points(0, 5, 5.1, 10)
    assert coverage_order(features, points(0), np.array([3, 0]), 5).tolist() == [3, 0]
    assert coverage_order(points(1, 2), points(0), np.array([], int), 5).tolist() == []


def test_features_on_any_scale_count_alike():
    features = np.array([[0, 0], [0, 1e-6], [1e6, 0]], float)
    order = coverage_order(features, features[:1], np.array([1, 2]), 2)
    scaled = coverage_order(features * [1e-6, 1e6], features[:1], np.array([1, 2]), 2)
    assert order.tolist() == scaled.tolist()


@pytest.fixture
def looks(monkeypatch, tmp_path):
    """Images of one value, which is their feature; the confidence is told."""

    def make(values, confidence):
        for name, value in values.items():
            write_array(tmp_path / f"{name}.tif", np.full((4, 4), value, np.float32))
        told = {value: confidence.get(name, 1.0) for name, value in values.items()}

        def look(_, image):
            value = float(image[0, 0, 0])
            return told[value], np.array([value])

        monkeypatch.setattr(annotate_next, "confidence_and_features", look)
        return tmp_path

    return make


def test_doubtful_images_that_stand_for_others(looks):
    values = {"known": 0.0} | {f"i{number}": float(number) for number in range(1, 31)}
    sure = {f"i{number}": 0.9 for number in range(1, 31)}
    unsure = {f"i{number}": 0.1 for number in range(1, 31, 3)}  # ten: the doubtful third
    folder = looks(values, sure | unsure)
    table = suggest(None, folder, ["known"], [name for name in values if name != "known"])
    assert table["rank"].tolist() == list(range(1, 11))
    assert set(table["image"]) == set(unsure)
    assert table["confidence"].eq(0.1).all()
    assert 16 <= int(table["image"][0][1:]) <= 25, "the middle of what lies far from the known one"


def test_few_images_are_all_listed_and_many_are_not(looks, monkeypatch):
    values = {"known": 0.0} | {f"i{number}": float(number) for number in range(1, 200)}
    folder = looks(values, {})
    names = list(values)[1:]
    assert len(suggest(None, folder, ["known"], names[:FEWEST])) == FEWEST
    assert len(suggest(None, folder, ["known"], names)) == LISTED
    assert suggest(None, folder, ["known"], []).empty
    monkeypatch.setattr(annotate_next, "MANY", 20)
    drawn = suggest(None, folder, ["known"], names)
    assert len(drawn) == FEWEST and drawn.equals(suggest(None, folder, ["known"], names))


def test_what_a_network_thinks(make_model, make_blobs):
    model = make_model()
    model.threshold = Threshold(0.3, 0.5, 1)
    image = make_blobs(64, 0)[0][None]
    confidence, features = confidence_and_features(model, image)
    objects = object_confidences(model, image, segment(model, image))
    assert 0 < confidence == objects.mean() < 1
    assert features.shape == (2 * 2,)  # mean and spread of two filters
    again = confidence_and_features(model, image)
    assert again[0] == confidence and np.array_equal(again[1], features)
    assert not any(layer._forward_pre_hooks for layer in model.network.modules())
    other = confidence_and_features(model, image + 50)
    assert not np.allclose(other[1], features)


def test_what_a_pixel_classifier_thinks(make_model, make_blobs):
    model = make_model()
    model.network = PixelClassifier(model.layout)
    image = make_blobs(48, seed=0)[0][None]
    confidence, features = confidence_and_features(model, image)
    assert confidence == 0  # it knows nothing yet, so no class is above the threshold
    n_features = model.network.forest.n_features
    assert features.shape == (2 * n_features,)
    image = (image - model.normalisation.mean[0]) / model.normalisation.std[0]
    assert features[[0, n_features]] == pytest.approx([image.mean(), image.std()], rel=1e-4)
