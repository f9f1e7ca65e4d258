"""Rankings and recommendations, in sentences that are backed by paired tests.

All pairs of methods in a setting are compared. A method is called significantly better than another
if the p-value of their difference, adjusted for the number of pairs, is below 0.05: in a setting
of equally good methods, the probability of any such claim is at most 5%. Two methods are called
equivalent if the confidence interval of their difference lies within a margin. In all other cases
the sentences say that the methods are not significantly different.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import combinations

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
    selection_bias,
)
from denoiseg_flow.reporting.tables.layout import format_mean, format_number
from denoiseg_flow.reporting.tables.statistics import (
    most_annotated,
    paired_differences,
    summarise,
)
from denoiseg_flow.study.grid import DENOISED, LABELS, PURPOSES, Run

_PURPOSES = {LABELS: "Labels", DENOISED: "Denoised images"}

#: Differences that do not matter in practice: two trainings of one method differ by as much.
MARGINS = {"AP": 0.02, "PSNR": 0.2, "PSNR_mean_of_repeats": 0.2}

# Metrics whose low values are good.
_LOW_IS_GOOD = {"loss_self_supervised"}
_NAMES = {
    "loss_self_supervised": "self-supervised loss",
    "PSNR_mean_of_repeats": "PSNR against the mean of other acquisitions",
}

_ADVISED_SEEDS = "[1, 2, 3]"


@dataclass(frozen=True)
class Comparison:
    """The difference between the best method of a setting and another method."""

    method: str
    """The other method."""
    metric: str
    difference: float
    """By how much the best method is better; positive even if low values of the metric are good."""
    low: float = float("nan")
    """Bounds of the 95% confidence interval of the difference; NaN without an interval."""
    high: float = float("nan")
    p: float = float("nan")
    """Two-sided p-value, adjusted for the number of pairs of methods in the setting (Holm)."""
    from_seeds: float = float("nan")
    """See :class:`~denoiseg_flow.reporting.tables.intervals.Estimate`."""

    @property
    def outcome(self) -> str:
        """``"better"``, ``"equal"`` (equivalent), ``"open"`` (neither) or ``"untested"``."""
        if np.isnan(self.p):
            return "untested"
        margin = MARGINS.get(self.metric, 0)
        if -margin < self.low and self.high < margin:
            return "equal"
        return "better" if self.p <= 1 - LEVEL and self.difference > 0 else "open"

    @property
    def text(self) -> str:
        """The difference and its confidence interval."""
        text = format_number(self.difference, self.metric)
        if np.isnan(self.low):
            return text
        low, high = (format_number(value, self.metric) for value in (self.low, self.high))
        return f"{text} (95% CI {low} to {high})"


@dataclass(frozen=True)
class Verdict:
    """The method with the best mean of a metric in one setting, compared with all others."""

    dataset: str
    noise: str
    n_annotated: int
    method: str
    mean: float
    sem: float
    """Standard error of the mean over seeds; NaN for a single seed."""
    n_seeds: int
    n_sources: int
    """Number of files, or groups, that the test images come from."""
    n_images: int
    comparisons: list[Comparison] = field(default_factory=list)
    """Comparisons with all other methods, the second best first."""
    selection_bias: float = float("nan")
    """By how much the mean overestimates the method, because it is the best of several."""
    metric: str = "AP"
    grouped: bool = False
    """Whether the images belong to groups; if not, those of a file belong together."""

    @property
    def name(self) -> str:
        """Name of the metric in sentences."""
        return _NAMES.get(self.metric, self.metric)

    @property
    def value(self) -> str:
        """Mean ± SEM, or the mean alone for a single seed."""
        return format_mean(self.mean, self.sem, self.metric)

    @property
    def extent(self) -> str:
        """Numbers of seeds and test images."""
        return f"{count(self.n_seeds, 'seed')}, {self._images}"

    def among(self, outcome: str) -> list[Comparison]:
        """Return the comparisons with the given outcome."""
        return [each for each in self.comparisons if each.outcome == outcome]

    def names(self, outcome: str) -> list[str]:
        """Return the other methods in the comparisons with the given outcome."""
        return [each.method for each in self.among(outcome)]

    @property
    def sentence(self) -> str:
        """One sentence on the ranking in this setting."""
        given = f"With {count(self.n_annotated, 'annotated image')}, " if self.n_annotated else ""
        best = "lowest" if self.metric in _LOW_IS_GOOD else "highest"
        text = f"{given}{self.method} has the {best} mean {self.name}, {self.value} ({self.extent})"
        if better := self.names("better"):
            text += f"; significantly better than {_listed(better)}"
        if equal := self.names("equal"):
            text += f"; equivalent to {_listed(equal)} ({self._within})"
        if undecided := self.names("open"):
            text += f"; not significantly different from {_listed(undecided)}"
        if untested := self.names("untested"):
            text += f"; not tested against {_listed(untested)} (too few seeds or test images)"
        if not self.comparisons:
            text += "; no other method was scored here"
        return text + "."

    @property
    def recommendation(self) -> str:
        """Which method to use, with numbers, or what is needed for a recommendation."""
        named = f"{self.name} {self.value}"
        if not self.comparisons:
            return f"Only {self.method} was scored: {named}."
        if untested := self.among("untested"):
            return (
                f"No recommendation: {self.missing}. {self.method} ranks first with {named}, "
                f"{_over(untested)}."
            )
        undecided, equal = self.among("open"), self.among("equal")
        if undecided:
            return (
                f"No method is significantly better than all others. {self.method} ranks first "
                f"with {named}, {_over([*undecided, *equal])}{self._also_better}. "
                f"{_advice(undecided, self.grouped)}"
            )
        if equal:
            both = [self.method, *self.names("equal")]
            return (
                f"{_listed(both)} are equivalent ({self._within}): {self.method} has {named}, "
                f"{_over(equal)}{self._also_better}. Use whichever you prefer.{self._caveat}"
            )
        second = self.comparisons[0]
        return (
            f"Use {self.method}: {named}, significantly better than {second.method}, the second "
            f"best, by {second.text}.{self._caveat}"
        )

    @property
    def missing(self) -> str:
        """Why methods could not be compared, and the fix."""
        reasons = []
        if self.n_seeds < MIN_SEEDS:
            reasons.append(
                "each method was trained with a single seed, so the variation between trainings is "
                f"unknown (set grid.seeds to {_ADVISED_SEEDS})"
            )
        if self.n_sources < MIN_SOURCES:
            verb = "is" if self.n_images == 1 else "are"
            alone = self.n_sources == self.n_images and not self.grouped
            needed = "" if alone else "images from "
            what = "test images" if alone else f"{self._unit}s"
            reasons.append(
                f"there {verb} only {self._images} (annotate {needed}at least {MIN_SOURCES} {what})"
            )
        return ", and ".join(reasons) or "the methods share too few seeds and test images"

    @property
    def _images(self) -> str:
        images = count(self.n_images, "test image")
        if self.n_sources == self.n_images and not self.grouped:
            return images
        return f"{images} from {count(self.n_sources, self._unit)}"

    @property
    def _unit(self) -> str:
        return "group" if self.grouped else "file"

    @property
    def _within(self) -> str:
        margin = format_number(MARGINS[self.metric], self.metric)
        return f"within {margin}{' dB' if self.metric.startswith('PSNR') else ''}"

    @property
    def _also_better(self) -> str:
        better = self.names("better")
        return f"; it is significantly better than {_listed(better)}" if better else ""

    @property
    def _caveat(self) -> str:
        """A warning of selection bias, if it is visible in the digits shown."""
        bias = self.selection_bias
        shown = format_number(bias, self.metric) if bias > 0 else ""
        if not shown.strip("0."):
            return ""
        return (
            f" Expect it to be about {shown} worse on new images, because it was selected and "
            "scored on the same images."
        )


@dataclass(frozen=True)
class Recommendation:
    """The method to use for a purpose on a dataset and noise level."""

    dataset: str
    noise: str
    purpose: str
    """One of :data:`~denoiseg_flow.study.grid.PURPOSES`."""
    method: str
    """The method that ranks first."""
    sentence: str

    @property
    def title(self) -> str:
        """The purpose in words."""
        return _PURPOSES[self.purpose]


def recommend(
    metrics: pd.DataFrame, untrained: Collection[str] = (), grouped: Collection[str] = ()
) -> list[Recommendation]:
    """Recommend a method for labels and one for denoised images, per dataset and noise level.

    Methods that learn from annotated images are compared at the largest number of them. Denoised
    images are compared by PSNR or, without clean images, against other acquisitions or by the
    self-supervised loss.

    Parameters
    ----------
    metrics, untrained, grouped
        As for :func:`best_methods`.
    """
    found = []
    for (dataset, noise), here in metrics.groupby(["dataset", "noise"], observed=True):
        for purpose in PURPOSES:
            scores = _scores(here, purpose)
            if scores.empty:
                continue
            (verdict,) = best_methods(scores, untrained, grouped)
            found.append(
                Recommendation(
                    str(dataset), str(noise), purpose, verdict.method, verdict.recommendation
                )
            )
    return found


def best_method(metrics: pd.DataFrame, purpose: str) -> str | None:
    """Return the method that ranks first for a purpose, on one dataset and noise level.

    It is the first method in the sentences of :func:`recommend`; None if nothing was scored.
    """
    scores = _scores(metrics, purpose)
    if scores.empty:
        return None
    return str(_ranked(summarise(scores))["method"].iloc[0])


def best_run(metrics: pd.DataFrame, runs: Sequence[Run], purpose: str) -> Run | None:
    """Return the run of the method that ranks first for a purpose.

    Parameters
    ----------
    metrics
        Tidy metrics of the whole study.
    runs
        One run per method, on one dataset and noise level, see :meth:`grid.Grid.candidates`. If
        none was scored, the first run is returned; None if there are no runs.
    """
    if not runs:
        return None
    here = metrics["dataset"].eq(runs[0].dataset) & metrics["noise"].eq(runs[0].noise)
    mine = {run.method: run for run in runs}
    best = best_method(metrics[here & metrics["method"].isin(list(mine))], purpose)
    return mine[best] if best else runs[0]


def _scores(metrics: pd.DataFrame, purpose: str) -> pd.DataFrame:
    """Return the scores that decide for a purpose, at the largest number of annotated images.

    Methods that use none are judged by their only scores, at 0.
    """
    if purpose == DENOISED:
        metrics = metrics[metrics["metric"] != "AP"]
        metric = ranking_metric(metrics)
    else:
        metric = "AP"
    scores = metrics[metrics["metric"] == metric].dropna(subset=["value"])
    most = scores["n_annotated"].max()
    own = most_annotated(scores, ["method"])
    deciding = (scores["n_annotated"] == own) & own.isin([0, most])
    return scores[deciding].assign(n_annotated=most)


def ranking_metric(metrics: pd.DataFrame) -> str:
    """Return the metric to rank by: the first measured of AP, PSNR (against clean images, then
    against other acquisitions) and self-supervised loss.
    """
    measured = set(metrics["metric"])
    return next((name for name in MARGINS if name in measured), "loss_self_supervised")


def best_methods(
    metrics: pd.DataFrame, untrained: Collection[str] = (), grouped: Collection[str] = ()
) -> list[Verdict]:
    """Find the best method for every dataset, noise level and number of annotated images.

    It is the method with the best mean of :func:`ranking_metric`.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`statistics.read_metrics` returns them.
    untrained
        Methods with the same result for every seed.
    grouped
        Datasets whose images belong to groups.

    Returns
    -------
    list of Verdict
        Sorted by dataset, noise level and number of annotated images; empty if nothing was scored.
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
                selection_bias(setting.by_source(setting.values), metric in _LOW_IS_GOOD), metric,
                dataset in grouped,
            )
        )  # fmt: skip
    return verdicts


def _ranked(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the means of one setting and metric, the best first."""
    low_is_good = summary["metric"].iloc[0] in _LOW_IS_GOOD
    return summary.sort_values("mean", ascending=low_is_good, kind="stable")


@dataclass(frozen=True)
class _Setting:
    """The scores of all methods of one setting as an array."""

    methods: list[str]
    values: NDArray[np.float64]
    """Shape (method, seed, image); NaN if there is no score."""
    sources: NDArray[np.float64]
    """Shape (image, source): 1 if the image comes from that source."""

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
        """Return means over the images of each source: (..., image) to (..., source)."""
        known = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            return (np.where(known, values, 0.0) @ self.sources) / (known @ self.sources)

    def difference(self, one: str, other: str, trained: bool) -> Estimate:
        """Return the mean difference of two methods and its confidence interval."""
        first, second = (self.values[self.methods.index(name)] for name in (one, other))
        with np.errstate(invalid="ignore"):
            return estimate_mean(self.by_source(first - second), trained)


def _comparisons(
    setting: _Setting, ranked: list[str], metric: str, untrained: Collection[str]
) -> list[Comparison]:
    """Compare the first method, which is the best, with each of the others."""
    pairs = [
        setting.difference(one, other, not {one, other} <= set(untrained))
        for one, other in combinations(ranked, 2)
    ]
    adjusted = holm([pair.p for pair in pairs])
    found = []
    # The pairs of the first method come first.
    for method, pair, p in zip(ranked[1:], pairs, adjusted, strict=False):
        margin = pair.mean, pair.low, pair.high
        if metric in _LOW_IS_GOOD:
            margin = -pair.mean, -pair.high, -pair.low
        found.append(Comparison(method, metric, *margin, float(p), pair.from_seeds))
    return found


@dataclass(frozen=True)
class AnnotationGain:
    """Gain of the best method of a setting from the last increase of annotated images."""

    dataset: str
    noise: str
    method: str
    fewer: int
    more: int
    difference: float
    """Mean AP with more minus mean AP with fewer annotated images, paired by seed and image."""
    low: float
    high: float
    """95% confidence interval of the difference; NaN without an interval."""
    p: float
    """Two-sided p-value, adjusted for the number of methods that the best was selected from."""

    @property
    def sentence(self) -> str:
        """One sentence on whether more annotated images would help."""
        change = (
            f"From {self.fewer} to {self.more} annotated images, AP of {self.method} changed by"
        )
        text = f"{change} {format_number(self.difference, 'AP', '+')}"
        if np.isnan(self.p):
            return (
                f"{text}; there are too few seeds or test images to test whether this is "
                "significant."
            )
        low, high = (format_number(value, "AP", "+") for value in (self.low, self.high))
        text += f" (95% CI {low} to {high})"
        if self.p > 1 - LEVEL:
            return f"{text}: not significant, so it is unclear whether more of them would help."
        if self.difference > 0:
            return f"{text}: even more annotated images are likely to help."
        return f"{text}: the added images significantly reduced AP; check their masks."


def annotation_gains(metrics: pd.DataFrame) -> list[AnnotationGain]:
    """Compare the two largest numbers of annotated images, for the best method of each setting.

    It is the method with the highest mean AP at the largest number. The smaller number is 0 if the
    method was also scored without annotated images, as pretrained networks are.

    Parameters
    ----------
    metrics
        As for :func:`best_methods`.

    Returns
    -------
    list of AnnotationGain
        Sorted by dataset and noise level; empty if there is only one number.
    """
    scores = metrics[metrics["metric"] == "AP"]
    scores = scores[most_annotated(scores, ["dataset", "noise", "method"]) > 0]
    gains = []
    for (dataset, noise), here in scores.groupby(["dataset", "noise"], observed=True):
        best = best_method(here[here["n_annotated"] == here["n_annotated"].max()], LABELS)
        counts = sorted(here.loc[here["method"] == best, "n_annotated"].unique())
        if len(counts) < 2:
            continue
        *_, fewer, more = counts
        # To reuse the pairing of methods, the numbers take the place of methods, and the methods
        # that of noise levels.
        ends = here[here["n_annotated"].isin([fewer, more])]
        turned = ends.assign(
            noise=ends["method"].astype(str), method=ends["n_annotated"].astype(str), n_annotated=1
        )
        found = paired_differences(turned, str(fewer), ("AP",))
        found["p_adjusted"] = holm(found["p"].to_numpy(float))
        for row in found[found["noise"] == best].itertuples():
            gains.append(
                AnnotationGain(
                    str(dataset), str(noise), str(best), int(fewer), int(more),
                    row.difference, row.low, row.high, row.p_adjusted,
                )
            )  # fmt: skip
    return gains


def _over(comparisons: list[Comparison]) -> str:
    level = ", ".join(each.method for each in comparisons if each.difference == 0)
    ahead = ", ".join(f"{each.method} by {each.text}" for each in comparisons if each.difference)
    parts = [f"level with {level}"] * bool(level) + [f"ahead of {ahead}"] * bool(ahead)
    return " and ".join(parts)


def _advice(undecided: list[Comparison], grouped: bool) -> str:
    """What would make the confidence intervals narrower."""
    share = np.mean([each.from_seeds for each in undecided])
    if share > 0.6:
        return "Most of the uncertainty is due to the seeds: add seeds to grid.seeds."
    images, of_groups = ("groups", " of other groups") if grouped else ("images", "")
    if share < 0.4:
        return (
            f"Most of the uncertainty is due to the test {images}: annotate more test images"
            f"{of_groups}."
        )
    return (
        f"More seeds (grid.seeds) or more annotated test images{of_groups} would reduce the "
        "uncertainty."
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
