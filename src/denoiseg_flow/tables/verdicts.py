"""What the numbers say, in sentences that claim no more than the paired intervals allow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from denoiseg_flow.tables.layout import format_mean, format_number
from denoiseg_flow.tables.statistics import paired_differences, summarise

# Metrics of which a low value is good.
_LOW_IS_GOOD = {"loss_self_supervised"}
_NAMES = {"loss_self_supervised": "self-supervised loss"}


@dataclass(frozen=True)
class Verdict:
    """The method with the highest mean AP (or PSNR) in one setting, and how sure that is."""

    dataset: str
    noise: str
    n_labelled: int
    method: str
    mean: float
    sem: float
    """NaN for a single seed."""
    n_seeds: int
    above: list[str] = field(default_factory=list)
    """Methods whose paired difference from the best one has an interval above 0."""
    tied: list[str] = field(default_factory=list)
    """Methods that cannot be told apart: the interval of the paired difference includes 0."""
    untested: list[str] = field(default_factory=list)
    """Methods without a paired interval, for example because they share one image only."""
    margins: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """By how much the best method is better than each that could be compared, and the 95 %
    interval of that; above 0 where it is better, also where a low value of the metric is good."""
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
    def sentence(self) -> str:
        """One sentence about this setting."""
        images = "image" if self.n_labelled == 1 else "images"
        given = f"With {self.n_labelled} annotated {images}, " if self.n_labelled else ""
        seeds = "1 seed" if self.n_seeds == 1 else f"{self.n_seeds} seeds"
        best = "lowest" if self.metric in _LOW_IS_GOOD else "highest"
        text = f"{given}{self.method} has the {best} mean {self.name}, {self.value} ({seeds})"
        if self.above:
            text += f"; it is better than {_listed(self.above)}"
        if self.tied:
            text += f"; it cannot be told apart from {_listed(self.tied)}"
        if self.untested:
            text += f"; whether it differs from {_listed(self.untested)} could not be tested"
        if not (self.above or self.tied or self.untested):
            text += "; no other method was measured here"
        return text + "."

    @property
    def recommendation(self) -> str:
        """One sentence that says which method to use, and the numbers and interval behind it."""
        named = f"{self.name} {self.value}"
        if self.tied:
            margins = "; ".join(
                f"over {name} by {_interval(self.margins[name], self.metric)}" for name in self.tied
            )
            return (
                f"{_listed([self.method, *self.tied])} cannot be told apart: {self.method} is "
                f"ahead with {named}, {margins}. Take the one that suits you."
            )
        if self.untested:
            return (
                f"{self.method} has the best {named}, but the images are too few to tell whether "
                f"it is better than {_listed(self.untested)}."
            )
        if not self.above:
            return f"Only {self.method} was measured: {named}."
        second = self.above[0]
        return (
            f"Use {self.method}: {named}, better than {second}, the next best, by "
            f"{_interval(self.margins[second], self.metric)}."
        )


def _interval(margin: tuple[float, float, float], metric: str) -> str:
    difference, low, high = (format_number(value, metric) for value in margin)
    return f"{difference} (95 % interval {low} to {high})"


@dataclass(frozen=True)
class Recommendation:
    """Which method to use for a purpose on a data set with its noise."""

    dataset: str
    noise: str
    purpose: str
    """What the method is for: ``"Labels"`` or ``"Denoised images"``."""
    sentence: str


def recommend(metrics: pd.DataFrame, seed: int) -> list[Recommendation]:
    """Recommend a method for labels, and one for denoised images, of every data set and noise.

    Methods that learn from annotated images are judged with the most of them. Denoised images are
    judged by PSNR or, without clean images, by the self-supervised loss.

    Parameters
    ----------
    metrics, seed
        As for :func:`best_methods`.
    """
    found = []
    for (dataset, noise), here in metrics.groupby(["dataset", "noise"]):
        denoising = ranking_metric(here[here["metric"] != "AP"])
        for purpose, metric in (("Labels", "AP"), ("Denoised images", denoising)):
            scores = here[here["metric"] == metric].dropna(subset="value")
            if scores.empty:
                continue
            most = scores["n_labelled"].max()
            scores = scores[scores["n_labelled"].isin([0, most])].assign(n_labelled=most)
            (verdict,) = best_methods(scores, seed, metric)
            found.append(Recommendation(str(dataset), str(noise), purpose, verdict.recommendation))
    return found


def ranking_metric(metrics: pd.DataFrame) -> str:
    """Return what the methods of a study are ranked by: AP, PSNR, or the self-supervised loss.

    The first that was measured.
    """
    measured = set(metrics["metric"])
    return next((name for name in ("AP", "PSNR") if name in measured), "loss_self_supervised")


def best_methods(metrics: pd.DataFrame, seed: int, metric: str | None = None) -> list[Verdict]:
    """Find the best method for every data set, noise level and label count.

    The best one has the best mean of the metric, by default :func:`ranking_metric`.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`denoiseg_flow.tables.statistics.read_metrics` returns them.
    seed
        Seed of the bootstrap of :func:`denoiseg_flow.tables.statistics.paired_differences`, which
        compares the best method with each of the others.

    Returns
    -------
    list of Verdict
        Sorted by data set, noise level and label count; empty where nothing was scored.
    """
    metric = metric or ranking_metric(metrics)
    low_is_good = metric in _LOW_IS_GOOD
    scores = metrics[metrics["metric"] == metric]
    summary = summarise(scores)
    verdicts = []
    for (dataset, noise, n_labelled), group in summary.groupby(["dataset", "noise", "n_labelled"]):
        ranked = group.sort_values("mean", ascending=low_is_good, kind="stable")
        best = ranked.iloc[0]
        verdict = Verdict(
            str(dataset), str(noise), int(n_labelled), str(best["method"]),
            float(best["mean"]), float(best["sem"]), int(best["n_seeds"]), metric=metric,
        )  # fmt: skip
        here = scores[
            (scores["dataset"] == dataset) & (scores["noise"] == noise)
            & (scores["n_labelled"] == n_labelled)
        ]  # fmt: skip
        pairs = paired_differences(here, verdict.method, seed, (metric,)).set_index("method")
        for other in map(str, ranked["method"].iloc[1:]):
            # Other minus best; the margin is the other way round, unless low values are good.
            margin = pairs.loc[other, ["difference", "low", "high"]] if other in pairs.index else []
            if not len(margin) or np.isnan(margin["high"]):
                verdict.untested.append(other)
                continue
            difference, low, high = map(float, margin)
            margin = (difference, low, high) if low_is_good else (-difference, -high, -low)
            verdict.margins[other] = margin
            (verdict.above if margin[1] > 0 else verdict.tied).append(other)
        verdicts.append(verdict)
    return verdicts


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
    """95 % bootstrap interval of the difference; NaN if there is only one pair."""

    @property
    def sentence(self) -> str:
        """One sentence on whether more annotation would help."""
        change = (
            f"From {self.fewer} to {self.more} annotated images, AP of {self.method} changed by"
        )
        text = f"{change} {self.difference:+.3f}"
        if np.isnan(self.low):
            return f"{text}; whether that is more than chance could not be tested."
        text += f" (95 % interval {self.low:+.3f} to {self.high:+.3f})"
        if self.low > 0:
            return f"{text}: still more annotated images are likely to help."
        if self.high < 0:
            return f"{text}: these added images did harm; check their masks."
        return f"{text}: this study does not show that more of them would help."


def label_gains(metrics: pd.DataFrame, seed: int) -> list[LabelGain]:
    """Compare the two highest numbers of annotated images of the best method in each setting.

    The best one has the highest mean AP with the highest number.

    Parameters
    ----------
    metrics, seed
        As for :func:`best_methods`.

    Returns
    -------
    list of LabelGain
        Sorted by data set and noise level; none where there is but one number.
    """
    scores = metrics[(metrics["metric"] == "AP") & (metrics["n_labelled"] > 0)]
    gains = []
    for (dataset, noise), here in scores.groupby(["dataset", "noise"]):
        counts = sorted(here["n_labelled"].unique())
        if len(counts) < 2:
            continue
        fewer, more = counts[-2:]
        means = summarise(here[here["n_labelled"] == more]).set_index("method")["mean"]
        method = str(means.idxmax())
        own = here[(here["method"] == method) & here["n_labelled"].isin([fewer, more])]
        # Numbers take the place of methods, so that the same pairing and bootstrap serve.
        pair = own.assign(method=own["n_labelled"].astype(str), n_labelled=int(more))
        for row in paired_differences(pair, str(fewer), seed, ("AP",)).itertuples():
            gains.append(
                LabelGain(
                    str(dataset), str(noise), method, int(fewer), int(more),
                    row.difference, row.low, row.high,
                )
            )  # fmt: skip
    return gains


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
