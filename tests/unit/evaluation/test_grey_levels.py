"""Grey levels: measured piece by piece, and far from those of a training or not."""

import numpy as np
import pytest

from denoiseg_flow.evaluation import grey_levels
from denoiseg_flow.evaluation.grey_levels import (
    GreyLevels,
    measure,
    trained_on,
    warning_of_other_levels,
)
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.models.model import ClassicalModel
from denoiseg_flow.models.normalisation import Normalisation

TRAINED = GreyLevels(1, 40.0, 20.0)


@pytest.mark.parametrize("offset", [0, 1e9, -1e12])
@pytest.mark.parametrize("piece", [7, 10**6])
def test_as_numpy_measures_them(monkeypatch, offset, piece):
    monkeypatch.setattr(grey_levels, "PIECE", piece)
    rng = np.random.default_rng(0)
    images = [rng.normal(offset + 5, 3, (2, *shape)) for shape in ((5, 9), (1, 1), (3, 4, 5))]
    for number, levels in enumerate(measure(images)):
        values = np.concatenate([image[number].ravel() for image in images])
        assert levels.mean == pytest.approx(values.mean(), rel=1e-12)
        assert levels.std == pytest.approx(values.std(), rel=1e-3 if offset < 0 else 1e-6)


def test_nothing_is_measured_of_no_pixels():
    assert GreyLevels().std == GreyLevels().mean == 0 and measure([]) == []


@pytest.mark.parametrize(
    ("mean", "std", "far"),
    [
        (40, 20, False),
        (30, 1, False),  # an empty image: the background of the others, and noise
        (4, 2, False),
        (200, 150, False),
        (40 / 255, 20 / 255, True),
        (40 / 65535, 20 / 65535, True),
        (40 * 16, 20 * 16, True),
        (40 * 257, 20 * 257, True),
        (40 + 1e9, 20, True),
        (40 + 32768, 20, True),
        (-300, 20, True),
        (0, 0, True),
    ],
)
def test_far_from_those_of_a_training(mean, std, far):
    assert GreyLevels(1, mean, std).far_from(TRAINED) == far


def test_of_levels_around_zero_the_mean_says_nothing():
    assert not GreyLevels(1, 0.01, 0.001).far_from(GreyLevels(1, 0.0, 1.0))


def test_the_first_channel_that_is_far_is_named():
    levels = [TRAINED, GreyLevels(1, 1e4, 20)]
    warning = warning_of_other_levels("a.tif", levels, [TRAINED, TRAINED])
    assert "channel 1 of a.tif (mean 1e+04, standard deviation 20) are far from" in warning
    assert warning_of_other_levels("a.tif", levels[:1], [TRAINED]) is None
    assert warning_of_other_levels("a.tif", levels, []) is None


def test_what_a_model_knows(make_model):
    model = make_model()
    model.normalisation = Normalisation((1.0, 2.0), (3.0, 4.0))
    model.origin = {"grey_levels": [[5.0, 6.0]]}
    assert [(each.mean, each.std) for each in trained_on(model)] == [(5, 6)]
    model.origin = {}
    assert [(each.mean, each.std) for each in trained_on(model)] == [(1, 3), (2, 4)]
    bounded = make_model(Method("dae", target="clean", network="autoencoder", alpha=1))
    assert trained_on(bounded) == []
    median = Method("median", classical="median", parameter=1)
    assert trained_on(ClassicalModel(median, {}, 1, None)) == []
