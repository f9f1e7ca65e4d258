"""Confidence intervals of means over trainings and images.

The differences between two methods form a table of seeds and sources; a source is the file, or
group of files, that images come from. Both are random samples: another seed would train other
networks, another study would use other images. The values are modelled as

    mean + effect of the seed + effect of the source + residual,

where effects and residual are independent and normal with mean zero (a two-way crossed
random-effects model). The variances of the effects are unknown, and two or three seeds say little
about them. Intervals that treat the estimated variances as exact are then too narrow: a t interval
with Satterthwaite's degrees of freedom covers 87% instead of 95% with two seeds. The generalized
confidence interval takes this uncertainty into account, because the three mean squares are scaled
chi-squared variables (Weerahandi, Journal of the American Statistical Association 88, 1993; for
mixed models Hannig, Statistica Sinica 19, 2009). Its simulated coverage is in
docs/explanation/statistics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr

from denoiseg_flow.jobs.seeds import generator

#: With fewer, the variance between trainings or images is unknown, and there is no interval.
MIN_SEEDS, MIN_SOURCES = 2, 3

#: Confidence level of all intervals and tests.
LEVEL = 0.95

_DRAWS, _LATTICE = 8192, (1, 5063, 3393)
_BIAS_DRAWS = 10_000


class Estimate(NamedTuple):
    """A mean with its confidence interval and p-value."""

    mean: float
    low: float
    """Bounds of the 95% confidence interval; NaN without an interval."""
    high: float
    p: float
    """Two-sided p-value of the hypothesis that the mean is 0; NaN without an interval."""
    from_seeds: float = float("nan")
    """Share of the seeds in the variance of the two effects. If it is large, more seeds narrow the
    interval; if it is small, more sources do."""


def estimate_mean(table: NDArray[np.float64], trained: bool = True) -> Estimate:
    """Return the mean of a table, over sources and then over seeds, with a confidence interval.

    Parameters
    ----------
    table
        Shape (seed, source); NaN for missing values.
    trained
        Whether the values depend on the seed. If not, one seed is enough.

    Returns
    -------
    Estimate
        Without interval if there are fewer than :data:`MIN_SEEDS` seeds or :data:`MIN_SOURCES`
        sources, or if the seeds share too few sources to separate the two effects.
    """
    known = np.isfinite(table)
    rows, columns = known.any(axis=1), known.any(axis=0)
    table, known = table[rows][:, columns], known[rows][:, columns]
    if not table.size:
        return Estimate(*[float("nan")] * 4)
    mean = float(np.nanmean(table, axis=1).mean())
    n_seeds, n_sources = table.shape
    nothing = Estimate(mean, *[float("nan")] * 3)
    if n_sources < MIN_SOURCES or (trained and n_seeds < MIN_SEEDS):
        return nothing
    if n_seeds < MIN_SEEDS:  # another seed would give the same values
        table, known = np.repeat(table, MIN_SEEDS, axis=0), np.repeat(known, MIN_SEEDS, axis=0)
    parts = _parts(table - mean, known)
    if parts is None:
        return nothing
    freedom, squares, weights = parts
    # Draws of the mean squares given the sums of squares, and the resulting variances of the mean.
    # The mean squares of the effects include the residual variance, which is the lower bound.
    seeds, sources, rest = squares[:, None] / _chi_squared(freedom)
    variances = weights[0] * (seeds - rest) + weights[1] * (sources - rest) + weights[2] * rest
    deviations = np.sqrt(np.maximum(variances, weights[2] * rest))
    p = _two_sided(abs(mean), deviations)
    share = _share_of_seeds(weights, squares / freedom)
    return Estimate(mean, *_interval(mean, deviations), p, share)


def _parts(
    deviations: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[tuple[int, int, int], NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the analysis of variance of a table with missing values (Henderson's third method).

    Returns
    -------
    tuple
        For seeds (adjusted for sources), sources (adjusted for seeds) and the residual: degrees of
        freedom, sums of squares, and the weights in the variance of the mean (of the mean squares
        of the effects minus that of the residual, and of the residual). None if seeds and sources
        cannot be separated.
    """
    n, per_seed, per_source = known.sum(), known.sum(axis=1), known.sum(axis=0)
    values, n_seeds = np.where(known, deviations, 0.0), len(per_seed)
    seen = known.astype(float)
    within_sources = np.where(known, values - values.sum(axis=0) / per_source, 0.0)
    within_seeds = np.where(known, values - (values.sum(axis=1) / per_seed)[:, None], 0.0)
    # Gram matrix of the indicators of the seeds, centred within each source.
    gram = np.diag(per_seed.astype(float)) - (seen / per_source) @ seen.T
    # Its rank is at most the number of seeds minus one: tiny eigenvalues are rounding errors.
    strengths, vectors = np.linalg.eigh(gram)
    real = strengths > 1e-9 * n
    loading = within_sources.sum(axis=1) @ vectors[:, real]
    of_seeds = float((loading**2 / strengths[real]).sum())
    rest = max(float((within_sources**2).sum()) - of_seeds, 0.0)
    of_sources = max(float((within_seeds**2).sum()) - rest, 0.0)
    df_seeds = int(real.sum())
    df_rest = int(n - len(per_source) - df_seeds)
    df_sources = int(n - n_seeds - df_rest)
    if df_seeds < n_seeds - 1 or min(df_rest, df_sources) < 1:
        return None
    # Weights of the effects in the mean over sources, then over seeds.
    share = known / (n_seeds * per_seed[:, None])
    weights = np.array([
        df_seeds / (n - len(per_source)) / n_seeds,
        df_sources / (n - n_seeds) * (share.sum(axis=0) ** 2).sum(),
        (share**2).sum(),
    ])  # fmt: skip
    return (df_seeds, df_sources, df_rest), np.array([of_seeds, of_sources, rest]), weights


@lru_cache(maxsize=256)
def _chi_squared(freedom: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return quasi-random chi-squared draws of shape (component, draw), independent of any seed."""
    # A lattice: along every axis, each of the equal parts contains one point.
    places = np.arange(_DRAWS) * np.array(_LATTICE)[:, None] % _DRAWS
    points = (places + 0.5) / _DRAWS
    return 2 * gammaincinv(np.array(freedom)[:, None] / 2, points)


def _two_sided(distance: float, deviations: NDArray[np.float64]) -> float:
    """Return the mean probability of a normal deviate beyond ``distance``, over the deviations."""
    if distance == 0:
        return 1.0
    with np.errstate(divide="ignore"):
        return float(2 * ndtr(-distance / deviations).mean())


def _interval(mean: float, deviations: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bounds that contain a probability of ``LEVEL``."""
    half = float(np.median(deviations))
    if half <= 1e-14 * abs(mean):  # all values are the same, up to rounding
        return mean, mean
    while _two_sided(half, deviations) < 1 - LEVEL:
        half /= 2
    # The probability is convex in the distance: Newton's steps never overshoot.
    while True:
        excess = _two_sided(half, deviations) - (1 - LEVEL)
        slope = (np.exp(-((half / deviations) ** 2) / 2) / deviations).mean() * np.sqrt(2 / np.pi)
        half += excess / slope
        if excess < 1e-9:
            return mean - float(half), mean + float(half)


def _share_of_seeds(weights: NDArray[np.float64], means: NDArray[np.float64]) -> float:
    """Return the share of the seeds in the variance of the two effects."""
    seeds, sources = np.maximum(weights[:2] * (means[:2] - means[2]), 0.0)
    return float(seeds / (seeds + sources)) if seeds + sources > 0 else 0.5


def selection_bias(tables: NDArray[np.float64], low_is_good: bool = False) -> float:
    """Return the expected selection bias of the best of several means.

    The method with the best mean is likely to have been lucky, so its mean is too good on average.
    The bias is estimated from random draws around the observed means, shrunk towards each other
    because random errors alone drive them apart.

    Parameters
    ----------
    tables
        Shape (method, seed, source); NaN for missing values. Incomplete sources are left out.
    low_is_good
        Whether the best mean is the lowest.

    Returns
    -------
    float
        0 or more; NaN with a single method, or too few seeds or sources.
    """
    tables = tables[:, :, np.isfinite(tables).all(axis=(0, 1))]
    n_methods, n_seeds, n_sources = tables.shape
    if n_methods < 2 or n_seeds < MIN_SEEDS or n_sources < MIN_SOURCES:
        return float("nan")
    means = tables.mean(axis=(1, 2))
    centred = tables - means[:, None, None]
    seeds, sources = centred.mean(axis=2), centred.mean(axis=1)
    rest = centred - seeds[:, :, None] - sources[:, None, :]
    rest = rest.reshape(n_methods, -1)
    # Covariance of the means: of seeds plus sources, minus the residual that both include.
    covariance = seeds @ seeds.T / (n_seeds - 1) / n_seeds
    covariance += sources @ sources.T / (n_sources - 1) / n_sources
    freedom = (n_seeds - 1) * (n_sources - 1)
    covariance -= rest @ rest.T / freedom / (n_seeds * n_sources)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    # The variance of the observed means is that of the true means plus that of their errors.
    by_error = (np.trace(covariance) - covariance.mean() * n_methods) / (n_methods - 1)
    found = means.var(ddof=1)
    share = max(1 - by_error / found, 0.0) if found > 0 else 0.0
    errors = generator(0, "luck").standard_normal((_BIAS_DRAWS, n_methods)) @ root.T
    drawn = means.mean() + share * (means - means.mean()) + errors
    best = drawn.argmin(axis=1) if low_is_good else drawn.argmax(axis=1)
    gained = errors[np.arange(_BIAS_DRAWS), best].mean()
    return max(float(-gained if low_is_good else gained), 0.0)


def holm(p: Sequence[float]) -> NDArray[np.float64]:
    """Return p-values adjusted for multiple tests; NaN stays NaN and does not count as a test.

    If adjusted values below 0.05 count as significant, the probability of any false positive is at
    most 5%, also for dependent tests (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    values = np.asarray(p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1.0)
    return adjusted
