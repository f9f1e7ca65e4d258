"""How confident a network is: the formula, and real and unlike images with the shipped network."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import skimage as ski
from scipy import ndimage

from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.evaluation import confidence as module
from denoiseg_flow.evaluation.confidence import (
    LOW,
    centre,
    confidence,
    doubt,
    object_confidences,
    of_labels,
    segment,
    with_confidence,
)
from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.precision_curve import PrecisionCurve
from denoiseg_flow.models.weights import load_pretrained


@pytest.fixture
def answer(monkeypatch):
    """Tell what a network sees in the mirrored image; collect what it is asked."""
    asked = []

    def tell(foreground):
        maps = np.stack([1 - foreground, foreground, 0 * foreground]).astype(np.float32)

        def predict_maps(model, images, tile, factors):
            for image in images:
                asked.append((model, image, tile))
                yield maps[..., ::-1]

        monkeypatch.setattr(module, "predict_maps", predict_maps)
        return asked

    return tell


def test_overlap_times_probability(make_model, answer):
    labels = np.zeros((8, 12), np.uint16)
    labels[0:2, 0:4] = 3
    labels[4:6, 0:4] = 5
    labels[6:8, 8:12] = 9
    foreground = np.zeros(labels.shape)
    foreground[0:2, 0:4] = 0.8  # found again
    foreground[4:6, 2:6] = 0.6  # half of it, and as much beside it
    image = np.arange(96.0).reshape(1, 8, 12)
    asked = answer(foreground)
    model = make_model()
    model = replace(model, recipe=replace(model.recipe, test_time_augmentation=True))
    found = object_confidences(model, image, labels, 64)
    assert found == pytest.approx([0.8, (4 / 12) * (0.6 / 2), 0])
    ((once, mirrored, tile),) = asked
    assert np.array_equal(mirrored, image[..., ::-1])
    assert tile == 64 and not once.recipe.test_time_augmentation
    assert confidence(found, 3) == pytest.approx(0.3)


def test_without_objects(make_model, answer):
    asked = answer(np.ones((8, 8)))
    nothing = object_confidences(make_model(), np.zeros((1, 8, 8)), np.zeros((8, 8), np.uint16))
    assert nothing.shape == (0,) and not asked
    assert confidence(nothing, 0) == 0
    assert np.isnan(confidence(nothing, 2)), "the objects are elsewhere"


def test_the_centre_of_large_images_is_examined(make_model, answer, monkeypatch):
    monkeypatch.setattr(module, "SIDE", 4)
    assert centre((2, 3)) == (slice(0, 4), slice(0, 4))
    assert centre((4, 10, 8)) == (slice(0, 4), slice(4, 6), slice(3, 5))
    labels = np.zeros((10, 8), np.uint16)
    labels[:, 0], labels[5, 4] = 1, 2
    image = np.arange(80.0).reshape(1, 10, 8)
    foreground = np.zeros((4, 4))
    foreground[2, 2] = 0.9
    asked = answer(foreground)
    assert object_confidences(make_model(), image, labels) == pytest.approx([0.9])
    assert np.array_equal(asked[0][1], image[:, 3:7, 2:6][..., ::-1])


def test_objects_get_their_confidence_and_expected_precision(monkeypatch):
    monkeypatch.setattr(module, "SIDE", 4)
    labels = np.zeros((10, 8), np.uint16)
    labels[:, 0], labels[3, 2:4], labels[5, 4] = 1, 5, 7  # the first is not in the centre
    found = of_labels(labels, np.array([0.4, 0.9]))
    assert found.to_dict() == {5: 0.4, 7: 0.9}
    table = pd.DataFrame({"label": [1, 7, 5]})
    curve = PrecisionCurve([0.4, 0.8], [0.5, 0.9], [0.4, 0.8], [0.6, 1.0], 40, 2)
    known = with_confidence(table, found, curve)
    assert known["confidence"].tolist()[1:] == [0.9, 0.4] and np.isnan(known["confidence"][0])
    assert known["expected_precision"].tolist()[1:] == [0.9, 0.5]
    assert np.isnan(known["expected_precision"][0])
    assert list(with_confidence(table, found, None)) == ["label", "confidence"]


def test_what_is_said_about_an_image():
    assert doubt("a.tif", LOW, 2) is None
    assert doubt("a.tif", float("nan"), 2) is None
    assert doubt("a.tif", 0.321, 2).startswith(
        f"the labels of a.tif are doubtful (confidence 0.32, below {LOW})"
    )
    assert doubt("a.tif", 0.0, 0) == "no object was found in a.tif (confidence 0)"


# The networks of the package


def viewer(name):
    """Return what finds the labels of an image and their confidence with a pretrained network."""
    model = load_pretrained(name)

    def look(image):
        image = np.asarray(image, np.float32)[None]
        own = Normalisation((float(image.mean()),), (float(image.std()) or 1.0,))
        fitting = replace(model, normalisation=own)
        labels = segment(fitting, image)
        objects = object_confidences(fitting, image, labels)
        return labels, confidence(objects, len(objects))

    return look


@pytest.fixture(scope="module")
def judge():
    return viewer("simulated_objects")


SIDE = 128


def noise(kind, seed):
    rng = np.random.default_rng(seed)
    return {
        "gaussian": rng.normal(100, 10, (SIDE, SIDE)),
        "photons": rng.poisson(2, (SIDE, SIDE)),
        "hot pixels": 100 + 900 * (rng.random((SIDE, SIDE)) < 0.005),
    }[kind]


@pytest.mark.parametrize("kind", ["gaussian", "photons"])
def test_nothing_is_found_in_noise_alone(judge, kind):
    for seed in range(3):
        labels, value = judge(noise(kind, seed))
        assert labels.max() == 0 and value == 0


def test_what_is_found_among_hot_pixels_is_not_believed(judge):
    for seed in range(3):
        labels, value = judge(noise("hot pixels", seed))
        assert labels.max() <= 2 and value == 0


@pytest.mark.parametrize("image", [np.full((SIDE, SIDE), 7), np.add.outer(*[np.arange(SIDE)] * 2)])
def test_nothing_is_found_in_even_light(judge, image):
    labels, value = judge(image)
    assert labels.max() == 0 and value == 0


def scattered(radius, count=9):
    """Distances (y, x) from the rims of cells, negative inside."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    centres = rng.uniform(10, SIDE - 10, (count, 2))
    return np.min([np.hypot(y - cy, x - cx) for cy, cx in centres], axis=0) - radius


def bright_field():
    """Dark cells with bright rims on a bright background."""
    away = scattered(12)
    image = 180 - 60 / (1 + np.exp(away / 1.5)) + 55 * np.exp(-(((away - 2) / 2) ** 2))
    return image + np.random.default_rng(1).normal(0, 5, image.shape)


def histology():
    """Dark nuclei in tissue of uneven grey, as a stained section without its colours."""
    rng = np.random.default_rng(1)
    tissue = 170 + 250 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 6)
    return tissue - 80 / (1 + np.exp(scattered(7, 20))) + rng.normal(0, 6, (SIDE, SIDE))


UNLIKE = {
    "bright field": bright_field,
    "histology": histology,
    "stained section": lambda: ski.color.rgb2gray(ski.data.immunohistochemistry())[:SIDE, :SIDE],
    "bricks": lambda: ski.data.brick()[:SIDE, :SIDE],
    "grass": lambda: ski.data.grass()[:SIDE, :SIDE],
    "page": lambda: ski.data.page()[:SIDE, :SIDE],
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_images_of_another_kind_are_doubtful(judge, kind):
    _, value = judge(UNLIKE[kind]())
    assert value < LOW


def test_clear_images_of_objects_are_not(judge):
    for each in simulate(n_images=3, size=SIDE, seed=3):
        labels, value = judge(each.image)
        assert labels.max() > 0 and value > LOW


def test_a_network_of_membranes_doubts_all_but_epithelia():
    """It is trained on images full of cells, and finds a few in noise as well."""
    look = viewer("simulated_membranes")
    nuclei = [each.image for each in simulate(n_images=2, size=SIDE, seed=3)]
    noises = [noise(kind, seed=0) for kind in ("gaussian", "photons", "hot pixels")]
    for image in (*nuclei, *noises):
        labels, value = look(image)
        assert labels.max() < 20 and value < LOW
    for each in simulate(n_images=2, size=SIDE, seed=3, structure="membranes"):
        labels, value = look(each.image)
        assert average_precision(each.mask, labels) > 0.85 and value > LOW
