"""What was removed from images: good results are not accused, bad ones are found."""

import numpy as np
import pytest
from scipy import ndimage

from denoiseg_flow.data.noise import noisy_copy
from denoiseg_flow.data.simulated import simulator
from denoiseg_flow.evaluation.noise_structure import REACH, NoiseStructure, noise_structure
from denoiseg_flow.evaluation.residuals import WINDOW, judge_residual

WHITE = NoiseStructure(np.zeros(REACH), np.zeros(REACH), "independent")
SIGMA = 20


@pytest.fixture(scope="module")
def clean():
    """Twenty noise-free images of nuclei."""
    return [each.clean for each in simulator.simulate(n_images=20, seed=5)]


def noise(seed, shape=(128, 128)):
    return np.random.default_rng(seed).normal(0, SIGMA, shape)


def spots(image, strength, seed):
    """Three round spots that are not there."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(image.shape)
    spotted = image.copy()
    for centre in rng.uniform(16, 112, (3, 2)):
        distance = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
        spotted += strength * np.exp(-distance / (2 * 5**2))
    return spotted


def test_the_truth_is_never_accused(clean):
    for seed, truth in enumerate(clean):
        judged = judge_residual(truth + noise(seed), truth, WHITE)
        assert not judged.smoothed.any() and not judged.invented.any()
        assert judged.removed == pytest.approx(1, abs=0.1)
        assert np.abs(judged.along_x).max() < 0.05 and np.abs(judged.along_y).max() < 0.05


LEVELS = [
    {"kind": "gaussian", "sigma": 20},
    {"kind": "poisson", "photons": 0.5},
    {"kind": "bernoulli", "dropped": 0.1},
    {"kind": "salt_and_pepper", "flipped": 0.1},
    {"kind": "poisson_gaussian_bernoulli", "photons": 0.5, "sigma": 10, "dropped": 0.1},
    {"kind": "structured", "sigma": 20, "length": 11, "axis": "y"},
]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: "-".join(map(str, level.values())))
def test_noise_of_any_kind_is_known_where_it_is_left(clean, level):
    """And the truth, which leaves none, is not accused of anything."""
    clean = clean[:6]
    noisy = [noisy_copy(x, level | {"seed": 0}, "n", str(k)) for k, x in enumerate(clean)]
    structure = noise_structure(noisy)
    for kept in (0.0, 0.8):
        judged = [
            judge_residual(image, truth + kept * (image - truth), structure)
            for image, truth in zip(noisy, clean, strict=True)
        ]
        assert np.median([each.removed for each in judged]) == pytest.approx(1 - kept, abs=0.05)
        assert np.mean([each.smoothed.mean() for each in judged]) < 0.01
        assert np.mean([each.invented.mean() for each in judged]) < 0.01


def test_where_noise_cannot_be_told_from_structure(clean):
    blurred = ndimage.gaussian_filter(noise(0), 1) + clean[0]
    structure = noise_structure([blurred])
    assert structure.kind == "both"
    assert np.isnan(judge_residual(blurred, clean[0], structure).removed)


def test_blur_is_found(clean):
    judged = [
        judge_residual(truth + noise(seed), ndimage.gaussian_filter(truth, 3), WHITE)
        for seed, truth in enumerate(clean)
    ]
    assert np.mean([each.smoothed.mean() for each in judged]) > 0.2
    assert sum(each.smoothed.any() for each in judged) >= 16
    assert np.mean([each.along_x[0] for each in judged]) > 0.05


def test_invented_spots_are_found():
    """Beside a few nuclei; in the midst of many they may be passed over."""
    sparse = simulator.simulate(n_images=20, n_nuclei=(2, 6), seed=5)
    found = [
        judge_residual(each.clean + noise(seed), spots(each.clean, 2 * SIGMA, seed), WHITE).invented
        for seed, each in enumerate(sparse)
    ]
    assert sum(each.any() for each in found) >= 16
    assert np.mean([each.mean() for each in found]) < 0.4


def test_structure_that_does_not_matter_is_passed_over(clean):
    truth = clean[0]
    faint = truth + noise(0)
    faint_spots = spots(truth, 0.02 * np.ptp(truth), 0)
    assert not judge_residual(faint, faint_spots, WHITE).invented.any()


def test_correlated_noise_may_be_removed_as_it_is(clean):
    rows = [ndimage.uniform_filter1d(noise(seed), 3, axis=1) * 3**0.5 for seed in range(20)]
    structure = noise_structure(rows)
    assert structure.kind == "x"
    judged = [
        judge_residual(truth + added, truth, structure)
        for truth, added in zip(clean, rows, strict=True)
    ]
    assert np.mean([each.smoothed.mean() for each in judged]) < 0.01
    accused = judge_residual(clean[0] + rows[0], clean[0], WHITE)
    assert accused.smoothed.all()


def test_windows_are_named_by_their_place():
    truth = np.zeros((2 * WINDOW, 3 * WINDOW))
    noisy = truth + noise(1, truth.shape)
    denoised = truth.copy()
    denoised[:WINDOW, 2 * WINDOW :] = 100 * np.sin(np.arange(WINDOW))
    judged = judge_residual(noisy, denoised, WHITE)
    expected = np.zeros((2, 3), bool)
    expected[0, 2] = True
    assert np.array_equal(judged.invented, expected)


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (33, 31)])
def test_small_and_constant_images(shape):
    judged = judge_residual(np.full(shape, 7.0), np.full(shape, 7.0), WHITE)
    assert not judged.smoothed.any() and not judged.invented.any()
    assert np.isnan(judged.removed) and judged.along_x.shape == (REACH,)
    noisy = noise(0, shape)
    assert not judge_residual(noisy, noisy, WHITE).smoothed.any()
