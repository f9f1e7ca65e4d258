"""Confidence intervals of means over trainings and images.

The differences of two methods form a table, seed by source: the file, or the group of files, that
images are of. Both are draws: another seed would have trained other networks, another study would
have looked at other images. So the values are

    mean + effect of the seed + effect of the source + rest,

independent normal draws of mean zero (a two-way crossed random-effects model). How large the
effects are is not known, and with two or three seeds hardly told by the data. Intervals that take
the estimates for the truth are too narrow then (a t interval with the degrees of freedom of
Satterthwaite covers 87 % instead of 95 % with two seeds). Here it is counted in: the three mean
squares are, in truth, scaled draws of chi-squared, and so is what they may stand for. This is the
generalized confidence interval (Weerahandi, Journal of the American Statistical Association 88,
1993; for mixed models Hannig, Statistica Sinica 19, 2009). Its simulated coverage is in
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

#: With fewer there is no interval: the spread of trainings, or of images, cannot be told.
MIN_SEEDS, MIN_SOURCES = 2, 3

#: Of an interval, and of everything that is said to be shown.
LEVEL = 0.95

_DRAWS, _LATTICE = 8192, (1, 5063, 3393)
_LUCK_DRAWS = 10_000


class Estimate(NamedTuple):
    """A mean, and how sure it is."""

    mean: float
    low: float
    """Bounds of the 95 % interval; NaN where there is none."""
    high: float
    p: float
    """Two-sided p-value of the hypothesis that the mean is 0; NaN where there is no interval."""
    from_seeds: float = float("nan")
    """Of the two effects, the share of the seeds: more of them narrow the interval, if it is large,
    and more sources, if it is small."""


def estimate_mean(table: NDArray[np.float64], trained: bool = True) -> Estimate:
    """Return the mean of a table, over sources and then over seeds, with its interval.

    Parameters
    ----------
    table
        Of shape (seed, source); NaN where a seed has no value for a source.
    trained
        Whether another seed would give other values. Otherwise one seed is enough.

    Returns
    -------
    Estimate
        Without interval if there are fewer than :data:`MIN_SEEDS` seeds or :data:`MIN_SOURCES`
        sources, or the seeds have too few sources in common to tell both effects apart.
    """
    known = np.isfinite(table)
    table, known = (each[known.any(axis=1)][:, known.any(axis=0)] for each in (table, known))
    if not table.size:
        return Estimate(*[float("nan")] * 4)
    mean = float(np.nanmean(table, axis=1).mean())
    n_seeds, n_sources = table.shape
    nothing = Estimate(mean, *[float("nan")] * 3)
    if n_sources < MIN_SOURCES or (trained and n_seeds < MIN_SEEDS):
        return nothing
    if n_seeds < MIN_SEEDS:  # what another seed would give
        table, known = np.repeat(table, MIN_SEEDS, axis=0), np.repeat(known, MIN_SEEDS, axis=0)
    parts = _parts(table - mean, known)
    if parts is None:
        return nothing
    freedom, squares, weights = parts
    # Mean squares that would explain these sums of squares, and the variances of the mean that
    # follow. Those of the effects hold the rest as well: at least, there is the rest alone.
    seeds, sources, rest = squares[:, None] / _chi_squared(freedom)
    variances = weights[0] * (seeds - rest) + weights[1] * (sources - rest) + weights[2] * rest
    deviations = np.sqrt(np.maximum(variances, weights[2] * rest))
    p = _two_sided(abs(mean), deviations)
    share = _share_of_seeds(weights, squares / freedom)
    return Estimate(mean, *_interval(mean, deviations), p, share)


def _parts(
    deviations: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[tuple[int, int, int], NDArray[np.float64], NDArray[np.float64]] | None:
    """Analyse the variance of a table of which values may be missing.

    Returns
    -------
    tuple
        For seeds (adjusted for sources), sources (adjusted for seeds) and the rest: degrees of
        freedom, sums of squares, and what the mean squares, those of the effects less that of the
        rest, weigh in the variance of the mean. None if seeds and sources cannot be told apart.
        (Henderson's third method.)
    """
    n, per_seed, per_source = known.sum(), known.sum(axis=1), known.sum(axis=0)
    values, n_seeds = np.where(known, deviations, 0.0), len(per_seed)
    seen = known.astype(float)
    within_sources = np.where(known, values - values.sum(axis=0) / per_source, 0.0)
    within_seeds = np.where(known, values - (values.sum(axis=1) / per_seed)[:, None], 0.0)
    # Indicators of the seeds, of which the means over each source are taken out, times each other.
    gram = np.diag(per_seed.astype(float)) - (seen / per_source) @ seen.T
    # Its rank is one less than there are seeds: what is left of zero is rounding.
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
    # What the effects weigh in the mean over sources, then over seeds.
    share = known / (n_seeds * per_seed[:, None])
    weights = np.array([
        df_seeds / (n - len(per_source)) / n_seeds,
        df_sources / (n - n_seeds) * (share.sum(axis=0) ** 2).sum(),
        (share**2).sum(),
    ])  # fmt: skip
    return (df_seeds, df_sources, df_rest), np.array([of_seeds, of_sources, rest]), weights


@lru_cache(maxsize=256)
def _chi_squared(freedom: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return draws (component, draw) of chi-squared, spread evenly, so that no seed decides."""
    # A lattice: along every axis, each of the equal parts holds one point.
    places = np.arange(_DRAWS) * np.array(_LATTICE)[:, None] % _DRAWS
    points = (places + 0.5) / _DRAWS
    return 2 * gammaincinv(np.array(freedom)[:, None] / 2, points)


def _two_sided(distance: float, deviations: NDArray[np.float64]) -> float:
    """Return the probability of being farther away than ``distance``, over the deviations."""
    if distance == 0:
        return 1.0
    with np.errstate(divide="ignore"):
        return float(2 * ndtr(-distance / deviations).mean())


def _interval(mean: float, deviations: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bounds beyond which a share of ``1 - LEVEL`` lies."""
    half = float(np.median(deviations))
    if half <= 1e-14 * abs(mean):  # the same everywhere, but for rounding
        return mean, mean
    while _two_sided(half, deviations) < 1 - LEVEL:
        half /= 2
    # The share falls ever more slowly, so that steps of Newton never lead too far.
    while True:
        excess = _two_sided(half, deviations) - (1 - LEVEL)
        slope = (np.exp(-((half / deviations) ** 2) / 2) / deviations).mean() * np.sqrt(2 / np.pi)
        half += excess / slope
        if excess < 1e-9:
            return mean - float(half), mean + float(half)


def _share_of_seeds(weights: NDArray[np.float64], means: NDArray[np.float64]) -> float:
    """Return how much of what the effects add to the rest is of the seeds."""
    seeds, sources = np.maximum(weights[:2] * (means[:2] - means[2]), 0.0)
    return float(seeds / (seeds + sources)) if seeds + sources > 0 else 0.5


def luck_of_the_best(tables: NDArray[np.float64], low_is_good: bool = False) -> float:
    """Return by how much the best of several means is expected to be too good.

    The one that came out best is more likely than others to have had luck, so that its mean is too
    good on average. This is estimated with draws of the means around those that were found, moved
    together by what luck alone would have driven them apart.

    Parameters
    ----------
    tables
        Of shape (method, seed, source); NaN where there is no value. Sources that lack one are
        left out.
    low_is_good
        Whether the best mean is the lowest.

    Returns
    -------
    float
        0 or more; NaN with one method, or too few seeds or sources.
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
    # Covariances of the means: those of seeds, of sources, and of the rest, which both hold.
    covariance = seeds @ seeds.T / (n_seeds - 1) / n_seeds
    covariance += sources @ sources.T / (n_sources - 1) / n_sources
    freedom = (n_seeds - 1) * (n_sources - 1)
    covariance -= rest @ rest.T / freedom / (n_seeds * n_sources)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    # The means that were found differ more than the true ones, by the variance of the luck.
    by_luck = (np.trace(covariance) - covariance.mean() * n_methods) / (n_methods - 1)
    found = means.var(ddof=1)
    share = max(1 - by_luck / found, 0.0) if found > 0 else 0.0
    luck = generator(0, "luck").standard_normal((_LUCK_DRAWS, n_methods)) @ root.T
    drawn = means.mean() + share * (means - means.mean()) + luck
    best = drawn.argmin(axis=1) if low_is_good else drawn.argmax(axis=1)
    gained = luck[np.arange(_LUCK_DRAWS), best].mean()
    return max(float(-gained if low_is_good else gained), 0.0)


def holm(p: Sequence[float]) -> NDArray[np.float64]:
    """Return p-values that are adjusted for their number; NaN is no test and stays NaN.

    All that are below 0.05 then are false with a probability of 5 % at most, whatever they have
    to do with each other (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    values = np.asarray(p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1.0)
    return adjusted
