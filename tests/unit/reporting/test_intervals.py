"""Intervals of means over trainings and images: against closed forms, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from denoiseg_flow.reporting.tables.intervals import estimate_mean, holm, selection_bias


def draw(random, n_seeds, n_sources, seeds, sources, rest=1.0):
    """A table of mean 0 with effects of these standard deviations."""
    return (
        random.normal(0, seeds, (n_seeds, 1))
        + random.normal(0, sources, n_sources)
        + random.normal(0, rest, (n_seeds, n_sources))
    )


def t_test(values):
    """Mean, interval and p-value of independent values."""
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return values.mean(), low, high, stats.ttest_1samp(values, 0).pvalue


def test_where_only_images_differ_it_is_a_t_test_of_the_images():
    values = np.random.default_rng(0).normal(0.5, 1, 10)
    assert estimate_mean(np.tile(values, (4, 1)))[:4] == pytest.approx(t_test(values), rel=1e-3)
    assert estimate_mean(values[None], trained=False)[:4] == pytest.approx(t_test(values), rel=1e-3)
    assert estimate_mean(np.tile(values, (4, 1))).from_seeds == 0


@pytest.mark.parametrize("n_seeds", [2, 3, 6, 7, 10])
@pytest.mark.parametrize("n_sources", [3, 12, 50, 115, 200])
def test_where_only_trainings_differ_it_is_a_t_test_of_the_trainings(n_seeds, n_sources):
    values = np.random.default_rng(0).normal(0.5, 1, n_seeds)
    found = estimate_mean(np.tile(values[:, None], (1, n_sources)))
    assert found[:4] == pytest.approx(t_test(values), rel=1e-3)
    assert found.from_seeds == pytest.approx(1)


def test_seeds_and_images_take_part():
    """The same table, turned, is the same to the interval; a new training is not a new image."""
    table = draw(np.random.default_rng(3), 5, 5, 1, 0.1)
    assert estimate_mean(table)[:4] == pytest.approx(estimate_mean(table.T)[:4], rel=0.02)
    assert estimate_mean(table).from_seeds > 0.7 > 0.4 > estimate_mean(table.T).from_seeds


def test_a_constant_difference_is_certain():
    found = estimate_mean(np.full((3, 7), 0.1))
    assert found[:4] == pytest.approx((0.1, 0.1, 0.1, 0))
    nothing = estimate_mean(np.zeros((3, 7)))
    assert nothing[:4] == (0, 0, 0, 1)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_units_do_not_matter(scale):
    table = draw(np.random.default_rng(0), 3, 8, 1, 1) + 0.3
    here, there = estimate_mean(table), estimate_mean(scale * table)
    assert there[:3] == pytest.approx(scale * np.array(here[:3]), rel=1e-6)
    assert there[3:] == pytest.approx(here[3:])


@pytest.mark.parametrize("shape", [(1, 20), (3, 2), (1, 1), (0, 5)])
def test_too_few_have_no_interval(shape):
    found = estimate_mean(np.ones(shape))
    assert np.isnan([found.low, found.high, found.p]).all()


def test_seeds_with_different_images():
    """The mean is that over the images of each seed, then over seeds."""
    table = draw(np.random.default_rng(0), 4, 9, 0.5, 0.5)
    gaps = table.copy()
    gaps[0, :2] = gaps[2, 4:7] = np.nan
    found, full = estimate_mean(gaps), estimate_mean(table)
    assert found.mean == pytest.approx(np.mean([np.nanmean(row) for row in gaps]))
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(full.high - full.low, rel=0.4)
    disjoint = np.full((2, 8), np.nan)
    disjoint[0, :4], disjoint[1, 4:] = table[0, :4], table[1, 4:8]
    assert np.isnan(estimate_mean(disjoint).p)  # a lucky training, or easy images?


def coverage(n_seeds, n_sources, seeds, sources, missing=0.0, repeats=150):
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(repeats):
        table = draw(random, n_seeds, n_sources, seeds, sources)
        table[random.random(table.shape) < missing] = np.nan
        found = estimate_mean(table)
        inside += found.low <= 0 <= found.high
    return inside / repeats


@pytest.mark.parametrize("seeds, sources", [(0.9, 0.3), (0.3, 0.5)])
@pytest.mark.parametrize("n_seeds, n_sources", [(2, 12), (3, 40)])
def test_coverage(n_seeds, n_sources, seeds, sources):
    """Three standard errors of 150 draws below 95%; benchmarks/coverage.py makes many more."""
    assert coverage(n_seeds, n_sources, seeds, sources) > 0.896


def test_coverage_where_values_are_missing():
    assert coverage(4, 12, 0.5, 0.5, missing=0.2) > 0.896


def test_holm():
    nan = float("nan")
    adjusted = holm([0.04, nan, 0.01, 0.02, 0.9])
    assert adjusted == pytest.approx([0.08, nan, 0.04, 0.06, 0.9], nan_ok=True)
    assert holm([]).size == 0 and holm([0.7, 0.8]).max() <= 1


def test_the_best_of_equal_methods_was_lucky():
    """The best of k equal means of standard error s is too good by s times a known factor."""
    random = np.random.default_rng(0)
    factor = {2: 0.5642, 5: 1.1630}
    for n_methods, expected in factor.items():
        tables = random.normal(0, 1, (200, n_methods, 4, 25))
        true = [each.mean(axis=(1, 2)).max() for each in tables]
        assert np.mean(true) == pytest.approx(expected / 10, rel=0.2)
        found = np.mean([selection_bias(each) for each in tables])
        assert 0.6 * expected / 10 < found < 1.2 * expected / 10
        low = np.mean([selection_bias(-each, low_is_good=True) for each in tables])
        assert low == pytest.approx(found, rel=0.05)


def test_a_clear_winner_was_not():
    tables = np.random.default_rng(0).normal(0, 1, (3, 4, 25)) + np.array([0, 0, 50])[:, None, None]
    assert selection_bias(tables) == pytest.approx(0, abs=0.01)
    assert np.isnan(selection_bias(tables[:1]))
    assert np.isnan(selection_bias(tables[:, :1]))
