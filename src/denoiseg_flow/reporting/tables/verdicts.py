"""What the numbers say, in sentences that claim no more than the paired intervals allow.

All pairs of methods of a setting are compared. That one is better than another is said where the
p-value of their difference, adjusted for the number of pairs, is below 0.05: in a setting whose
methods are all alike, any such sentence is made with a probability of 5 % at most. That two are
equal is said where the interval lies within a margin. All else is not known, and said to be so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from denoiseg_flow.findings import count
from denoiseg_flow.reporting.tables.intervals import (
    LEVEL,
    MIN_SEEDS,
    MIN_SOURCES,
    Estimate,
    estimate_mean,
    holm,
    luck_of_the_best,
)
from denoiseg_flow.reporting.tables.layout import format_mean, format_number
from denoiseg_flow.reporting.tables.statistics import paired_differences, summarise
from denoiseg_flow.study.grid import DENOISED, LABELS, PURPOSES, Run

_PURPOSES = {LABELS: "Labels", DENOISED: "Denoised images"}

#: Differences that do not matter in practice: two trainings of a kind differ by as much.
MARGINS = {"AP": 0.02, "PSNR": 0.2}

# Metrics of which a low value is good.
_LOW_IS_GOOD = {"loss_self_supervised"}
_NAMES = {"loss_self_supervised": "self-supervised loss"}

_ADVISED_SEEDS = "[1, 2, 3]"


@dataclass(frozen=True)
class Comparison:
    """The best method of a setting beside another one."""

    method: str
    """The other one."""
    metric: str
    difference: float
    """By how much the best one is better; above 0 also where a low value of the metric is good."""
    low: float = float("nan")
    """Bounds of the 95 % interval of the difference; NaN where there is none."""
    high: float = float("nan")
    p: float = float("nan")
    """Two-sided p-value, adjusted for the number of pairs of methods in the setting."""
    from_seeds: float = float("nan")
    """See :class:`~denoiseg_flow.reporting.tables.intervals.Estimate`."""

    @property
    def outcome(self) -> str:
        """``"equal"`` within the margin, ``"better"``, ``"open"`` or ``"untested"``."""
        if np.isnan(self.p):
            return "untested"
        margin = MARGINS.get(self.metric, 0)
        if -margin < self.low and self.high < margin:
            return "equal"
        return "better" if self.p <= 1 - LEVEL and self.difference > 0 else "open"

    @property
    def text(self) -> str:
        """The difference and its interval."""
        text = format_number(self.difference, self.metric)
        if np.isnan(self.low):
            return text
        low, high = (format_number(value, self.metric) for value in (self.low, self.high))
        return f"{text} (95 % interval {low} to {high})"


@dataclass(frozen=True)
class Verdict:
    """The method with the best mean of a metric in one setting, and how sure that is."""

    dataset: str
    noise: str
    n_annotated: int
    method: str
    mean: float
    sem: float
    """NaN for a single seed."""
    n_seeds: int
    n_sources: int
    """Of the test images: the files that they are from."""
    n_images: int
    comparisons: list[Comparison] = field(default_factory=list)
    """With all other methods, the next best first."""
    luck: float = float("nan")
    """By how much the mean is too good on average, because it is the best of several."""
    metric: str = "AP"

    @property
    def name(self) -> str:
        """The metric in words."""
        return _NAMES.get(self.metric, self.metric)

    @property
    def value(self) -> str:
        """Mean ± SEM, or the mean alone."""
        return format_mean(self.mean, self.sem, self.metric)

    @property
    def extent(self) -> str:
        """Numbers of trainings and of what they were scored on."""
        return f"{count(self.n_seeds, 'seed')}, {self._images}"

    def among(self, outcome: str) -> list[Comparison]:
        """The comparisons with that outcome."""
        return [each for each in self.comparisons if each.outcome == outcome]

    def names(self, outcome: str) -> list[str]:
        """The methods that they are with."""
        return [each.method for each in self.among(outcome)]

    @property
    def sentence(self) -> str:
        """One sentence about this setting."""
        given = f"With {count(self.n_annotated, 'annotated image')}, " if self.n_annotated else ""
        best = "lowest" if self.metric in _LOW_IS_GOOD else "highest"
        text = f"{given}{self.method} has the {best} mean {self.name}, {self.value} ({self.extent})"
        if better := self.names("better"):
            text += f"; it is better than {_listed(better)}"
        if equal := self.names("equal"):
            text += f"; it is equal to {_listed(equal)} {self._within}"
        if undecided := self.names("open"):
            text += f"; no difference is shown from {_listed(undecided)}"
        if untested := self.names("untested"):
            text += f"; it could not be tested against {_listed(untested)}"
        if not self.comparisons:
            text += "; no other method was measured here"
        return text + "."

    @property
    def recommendation(self) -> str:
        """Which method to use, if that is known, with numbers and interval, or what it takes."""
        named = f"{self.name} {self.value}"
        if not self.comparisons:
            return f"Only {self.method} was measured: {named}."
        if untested := self.among("untested"):
            return (
                f"No recommendation: {self.missing}. {self.method} came out ahead with {named}, "
                f"{_over(untested)}."
            )
        undecided, equal = self.among("open"), self.among("equal")
        if undecided:
            return (
                f"No method is shown to be the best. {self.method} came out ahead with {named}, "
                f"{_over([*undecided, *equal])}{self._also_better}. {_advice(undecided)}"
            )
        if equal:
            both = [self.method, *self.names("equal")]
            return (
                f"{_listed(both)} are equal {self._within}: {self.method} has {named}, "
                f"{_over(equal)}{self._also_better}. Take the one that suits you.{self._caveat}"
            )
        second = self.comparisons[0]
        return (
            f"Use {self.method}: {named}, better than {second.method}, the next best, by "
            f"{second.text}.{self._caveat}"
        )

    @property
    def missing(self) -> str:
        """Why methods could not be compared, and what it would take."""
        reasons = []
        if self.n_seeds < MIN_SEEDS:
            reasons.append(
                "each method was trained once, so that a better method cannot be told from a lucky "
                f"training (set grid.seeds to {_ADVISED_SEEDS})"
            )
        if self.n_sources < MIN_SOURCES:
            verb = "is" if self.n_images == 1 else "are"
            what = "more" if self.n_sources == self.n_images else "images of more files"
            reasons.append(
                f"there {verb} only {self._images} (annotate {what}: at least {MIN_SOURCES})"
            )
        return ", and ".join(reasons) or "the methods have too few seeds and test images in common"

    @property
    def _images(self) -> str:
        images = count(self.n_images, "test image")
        files = f" of {count(self.n_sources, 'file')}" if self.n_sources < self.n_images else ""
        return images + files

    @property
    def _within(self) -> str:
        margin = format_number(MARGINS[self.metric], self.metric)
        return f"within {margin}{' dB' if self.metric == 'PSNR' else ''}"

    @property
    def _also_better(self) -> str:
        better = self.names("better")
        return f"; it is better than {_listed(better)}" if better else ""

    @property
    def _caveat(self) -> str:
        """What choosing the best is worth, where that can be seen in the digits shown."""
        shown = format_number(self.luck, self.metric) if self.luck > 0 else ""
        if not shown.strip("0."):
            return ""
        return (
            f" Chosen and scored on the same images, it should be about {shown} worse on new ones."
        )


@dataclass(frozen=True)
class Recommendation:
    """Which method to use for a purpose on a dataset with its noise."""

    dataset: str
    noise: str
    purpose: str
    """One of :data:`~denoiseg_flow.study.grid.PURPOSES`."""
    method: str
    """The one that came out best."""
    sentence: str

    @property
    def title(self) -> str:
        """The purpose in words."""
        return _PURPOSES[self.purpose]


def recommend(metrics: pd.DataFrame, untrained: Collection[str] = ()) -> list[Recommendation]:
    """Recommend a method for labels, and one for denoised images, of every dataset and noise.

    Methods that learn from annotated images are judged with the most of them. Denoised images are
    judged by PSNR or, without clean images, by the self-supervised loss.

    Parameters
    ----------
    metrics, untrained
        As for :func:`best_methods`.
    """
    found = []
    for (dataset, noise), here in metrics.groupby(["dataset", "noise"], observed=True):
        for purpose in PURPOSES:
            scores = _scores(here, purpose)
            if scores.empty:
                continue
            (verdict,) = best_methods(scores, untrained)
            found.append(
                Recommendation(
                    str(dataset), str(noise), purpose, verdict.method, verdict.recommendation
                )
            )
    return found


def best_method(metrics: pd.DataFrame, purpose: str) -> str | None:
    """Return the method that came out best for a purpose, on one dataset with its noise.

    None where nothing was scored. It is the one that :func:`recommend` speaks of.
    """
    scores = _scores(metrics, purpose)
    if scores.empty:
        return None
    return str(_ranked(summarise(scores))["method"].iloc[0])


def best_run(metrics: pd.DataFrame, runs: Sequence[Run], purpose: str) -> Run | None:
    """Return the run of the method that came out best for a purpose.

    Parameters
    ----------
    metrics
        Tidy metrics of the whole study.
    runs
        See :meth:`grid.Grid.candidates`: one for each method, of one dataset with
        its noise. The first one is taken where none of them was scored, and None if there is none.
    """
    if not runs:
        return None
    here = metrics["dataset"].eq(runs[0].dataset) & metrics["noise"].eq(runs[0].noise)
    mine = {run.method: run for run in runs}
    best = best_method(metrics[here & metrics["method"].isin(list(mine))], purpose)
    return mine[best] if best else runs[0]


def _scores(metrics: pd.DataFrame, purpose: str) -> pd.DataFrame:
    """Return what methods are judged by, with the most annotated images."""
    if purpose == DENOISED:
        metrics = metrics[metrics["metric"] != "AP"]
        metric = ranking_metric(metrics)
    else:
        metric = "AP"
    scores = metrics[metrics["metric"] == metric].dropna(subset=["value"])
    most = scores["n_annotated"].max()
    return scores[scores["n_annotated"].isin([0, most])].assign(n_annotated=most)


def ranking_metric(metrics: pd.DataFrame) -> str:
    """Return what the methods of a study are ranked by: AP, PSNR, or the self-supervised loss.

    The first that was measured.
    """
    measured = set(metrics["metric"])
    return next((name for name in ("AP", "PSNR") if name in measured), "loss_self_supervised")


def best_methods(metrics: pd.DataFrame, untrained: Collection[str] = ()) -> list[Verdict]:
    """Find the best method for every dataset, noise level and label count.

    The best one has the best mean of :func:`ranking_metric`.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`statistics.read_metrics` returns them.
    untrained
        Methods that give the same with every seed.

    Returns
    -------
    list of Verdict
        Sorted by dataset, noise level and label count; empty where nothing was scored.
    """
    metric = ranking_metric(metrics)
    scores = metrics[metrics["metric"] == metric]
    cells = ["dataset", "noise", "n_annotated"]
    parts = {cell: part for cell, part in scores.groupby(cells, observed=True)}
    verdicts = []
    for cell, group in summarise(scores).groupby(cells, observed=True):
        ranked, setting = _ranked(group), _Setting.of(parts[cell])
        best = ranked.iloc[0]
        dataset, noise, n_annotated = cell
        verdicts.append(
            Verdict(
                str(dataset), str(noise), int(n_annotated), str(best["method"]),
                float(best["mean"]), float(best["sem"]), int(best["n_seeds"]),
                int(best["n_sources"]), int(best["n_images"]),
                _comparisons(setting, ranked["method"].astype(str).tolist(), metric, untrained),
                luck_of_the_best(setting.by_source(setting.values), metric in _LOW_IS_GOOD), metric,
            )
        )  # fmt: skip
    return verdicts


def _ranked(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the means of one setting and metric, the best first."""
    low_is_good = summary["metric"].iloc[0] in _LOW_IS_GOOD
    return summary.sort_values("mean", ascending=low_is_good, kind="stable")


@dataclass(frozen=True)
class _Setting:
    """The scores of the methods of one setting, side by side."""

    methods: list[str]
    values: NDArray[np.float64]
    """Of shape (method, seed, image); NaN where there is none."""
    sources: NDArray[np.float64]
    """Of shape (image, source): 1 where an image is of that source."""

    @classmethod
    def of(cls, scores: pd.DataFrame) -> _Setting:
        """Arrange the rows of one setting and metric."""
        wide = scores.pivot(index=["method", "seed"], columns=["source", "image"], values="value")
        methods, seeds = (wide.index.unique(level) for level in ("method", "seed"))
        full = wide.reindex(pd.MultiIndex.from_product([methods, seeds]))
        codes, _ = pd.factorize(wide.columns.get_level_values("source"))
        values = full.to_numpy(float).reshape(len(methods), len(seeds), -1)
        return cls(list(map(str, methods)), values, np.eye(codes.max() + 1)[codes])

    def by_source(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return means over the images of each source: of (..., image), (..., source)."""
        known = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            return (np.where(known, values, 0.0) @ self.sources) / (known @ self.sources)

    def difference(self, one: str, other: str, trained: bool) -> Estimate:
        """Return the mean of one method minus another."""
        first, second = (self.values[self.methods.index(name)] for name in (one, other))
        with np.errstate(invalid="ignore"):
            return estimate_mean(self.by_source(first - second), trained)


def _comparisons(
    setting: _Setting, ranked: list[str], metric: str, untrained: Collection[str]
) -> list[Comparison]:
    """Compare the first of the methods, the best, with each of the others."""
    pairs = [
        setting.difference(one, other, not {one, other} <= set(untrained))
        for one, other in combinations(ranked, 2)
    ]
    adjusted = holm([pair.p for pair in pairs])
    found = []
    # The pairs of the first one come first.
    for method, pair, p in zip(ranked[1:], pairs, adjusted, strict=False):
        margin = pair.mean, pair.low, pair.high
        if metric in _LOW_IS_GOOD:
            margin = -pair.mean, -pair.high, -pair.low
        found.append(Comparison(method, metric, *margin, float(p), pair.from_seeds))
    return found


@dataclass(frozen=True)
class LabelGain:
    """What the last increase of annotated images brought the best method of a setting."""

    dataset: str
    noise: str
    method: str
    fewer: int
    more: int
    difference: float
    """Mean AP with more annotated images minus that with fewer, paired by seed and image."""
    low: float
    high: float
    """95 % interval of the difference; NaN where there is none."""
    p: float
    """Two-sided p-value, adjusted for the number of methods, of which the best was chosen."""

    @property
    def sentence(self) -> str:
        """One sentence on whether more annotation would help."""
        change = (
            f"From {self.fewer} to {self.more} annotated images, AP of {self.method} changed by"
        )
        text = f"{change} {format_number(self.difference, 'AP', '+')}"
        if np.isnan(self.p):
            return (
                f"{text}; whether that is more than chance could not be tested, with so few seeds "
                "or test images."
            )
        low, high = (format_number(value, "AP", "+") for value in (self.low, self.high))
        text += f" (95 % interval {low} to {high})"
        if self.p > 1 - LEVEL:
            return f"{text}: this study does not show whether more of them would help."
        if self.difference > 0:
            return f"{text}: still more annotated images are likely to help."
        return f"{text}: these added images did harm; check their masks."


def label_gains(metrics: pd.DataFrame) -> list[LabelGain]:
    """Compare the two highest numbers of annotated images of the best method in each setting.

    The best one has the highest mean AP with the highest number.

    Parameters
    ----------
    metrics
        As for :func:`best_methods`.

    Returns
    -------
    list of LabelGain
        Sorted by dataset and noise level; none where there is but one number.
    """
    scores = metrics[(metrics["metric"] == "AP") & (metrics["n_annotated"] > 0)]
    gains = []
    for (dataset, noise), here in scores.groupby(["dataset", "noise"], observed=True):
        counts = sorted(here["n_annotated"].unique())
        if len(counts) < 2:
            continue
        *_, (fewer, more) = pairwise(counts)
        best = best_method(here[here["n_annotated"] == more], LABELS)
        # Numbers take the place of methods, and methods of noise levels, so that the same pairing
        # serves.
        ends = here[here["n_annotated"].isin([fewer, more])]
        turned = ends.assign(
            noise=ends["method"].astype(str), method=ends["n_annotated"].astype(str), n_annotated=1
        )
        found = paired_differences(turned, str(fewer), ("AP",))
        found["p_adjusted"] = holm(found["p"].to_numpy(float))
        for row in found[found["noise"] == best].itertuples():
            gains.append(
                LabelGain(
                    str(dataset), str(noise), str(best), int(fewer), int(more),
                    row.difference, row.low, row.high, row.p_adjusted,
                )
            )  # fmt: skip
    return gains


def _over(comparisons: list[Comparison]) -> str:
    return "; ".join(f"over {each.method} by {each.text}" for each in comparisons)


def _advice(undecided: list[Comparison]) -> str:
    """What would make the intervals narrower."""
    share = np.mean([each.from_seeds for each in undecided])
    if share > 0.6:
        return "Most of what is uncertain is between trainings: add seeds to grid.seeds."
    if share < 0.4:
        return "Most of what is uncertain is between images: annotate more of them to test on."
    return "More seeds (grid.seeds) or more annotated images to test on would tell more."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
