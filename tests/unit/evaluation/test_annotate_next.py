"""Which images to annotate next."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from denoiseg_flow.data.store import write_array
from denoiseg_flow.evaluation import annotate_next
from denoiseg_flow.evaluation.annotate_next import (
    FEWEST,
    LISTED,
    confidence_and_features,
    coverage_order,
    crops,
    entropy,
    overlap,
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


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70))
def test_crops_lie_in_the_image_and_do_not_overlap(height, width, side):
    places = crops((height, width), side)
    sizes = min(side, height), min(side, width)
    assert len(places) == (height // sizes[0]) * (width // sizes[1])
    covered = np.zeros((height, width), int)
    for place in places:
        assert covered[place].shape == sizes
        covered[place] += 1
    assert covered.max() == 1
    assert sum(overlap(places[0], place) for place in places) == 1
    assert covered[::-1, ::-1].sum() == covered.sum()


def test_a_single_crop_is_the_centre():
    assert crops((10, 9), 6) == [(slice(2, 8), slice(1, 7))]
    assert crops((10, 9), None) == [(slice(0, 10), slice(0, 9))]
    assert crops((6, 6), 3)[-1] == (slice(3, 6), slice(3, 6))


@pytest.fixture
def quarters(monkeypatch, tmp_path):
    """Images of four quarters; the value of each is its feature, and its confidence is told."""

    def make(images, confidence):
        for name, values in images.items():
            write_array(
                tmp_path / f"{name}.tif", np.kron(values, np.ones((4, 4))).astype(np.float32)
            )

        def look(_, part):
            value = float(part[0, 0, 0])
            return confidence(value), np.array([value])

        monkeypatch.setattr(annotate_next, "confidence_and_features", look)
        return tmp_path

    return make


def test_crops_are_suggested_like_images(quarters):
    values = {"known": [[0, 0], [0, 0]], "a": [[1, 2], [3, 4]], "b": [[5, 6], [7, 8]]}
    folder = quarters(values, lambda value: value / 10)
    table = suggest(None, folder, ["known"], ["a", "b"], side=4)
    assert len(table) == 8
    assert {(row.image, row.y, row.x): row.confidence for row in table.itertuples()} == {
        (name, 4 * y, 4 * x): values[name][y][x] / 10
        for name in "ab" for y in range(2) for x in range(2)
    }  # fmt: skip
    taken = {"a": [(slice(3, 5), slice(0, 2))]}
    left = suggest(None, folder, ["known"], ["a", "b"], 4, taken)
    assert set(zip(left["image"], left["y"], left["x"], strict=True)) == {
        ("a", 0, 4), ("a", 4, 4), *(("b", y, x) for y in (0, 4) for x in (0, 4))
    }  # fmt: skip


def test_empty_background_of_an_image_is_as_sure_as_its_objects(quarters):
    """An image in which nothing is found at all stays in doubt."""
    values = {"sure": [[8, 0], [0, 6]], "lost": [[0, 0], [0, 0]]}
    folder = quarters(values, lambda value: value / 10)
    table = suggest(None, folder, [], ["sure", "lost"], side=4)
    told = table.groupby("image")["confidence"].agg(["min", "max"])
    assert told.loc["lost"].tolist() == [0, 0]
    assert told.loc["sure"].tolist() == [0.6, 0.8]
    assert sorted(table.loc[table["image"] == "sure", "confidence"])[1:3] == [0.7, 0.7]


def test_as_many_are_ranked_as_are_asked_for(looks):
    values = {f"i{number}": float(number) for number in range(20)}
    folder = looks(values, {})
    assert len(suggest(None, folder, [], list(values))) == FEWEST
    assert len(suggest(None, folder, [], list(values), least=15)) == 15
