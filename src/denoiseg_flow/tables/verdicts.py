"""What the numbers say, in sentences that claim no more than the paired intervals allow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from denoiseg_flow.tables.layout import format_mean
from denoiseg_flow.tables.statistics import paired_differences, summarise


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
    metric: str = "AP"

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
        text = f"{given}{self.method} has the highest mean {self.metric}, {self.value} ({seeds})"
        if self.above:
            text += f"; it is better than {_listed(self.above)}"
        if self.tied:
            text += f"; it cannot be told apart from {_listed(self.tied)}"
        if self.untested:
            text += f"; whether it differs from {_listed(self.untested)} could not be tested"
        if not (self.above or self.tied or self.untested):
            text += "; no other method was measured here"
        return text + "."


def ranking_metric(metrics: pd.DataFrame) -> str:
    """Return what the methods of a study are ranked by: AP, or PSNR if nothing was segmented."""
    return "AP" if (metrics["metric"] == "AP").any() else "PSNR"


def best_methods(metrics: pd.DataFrame, seed: int) -> list[Verdict]:
    """Find the best method for every data set, noise level and label count.

    The best one has the highest mean of :func:`ranking_metric`.

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
    metric = ranking_metric(metrics)
    scores = metrics[metrics["metric"] == metric]
    summary = summarise(scores)
    verdicts = []
    for (dataset, noise, n_labelled), group in summary.groupby(["dataset", "noise", "n_labelled"]):
        ranked = group.sort_values("mean", ascending=False, kind="stable")
        best = ranked.iloc[0]
        verdict = Verdict(
            str(dataset), str(noise), int(n_labelled), str(best["method"]),
            float(best["mean"]), float(best["sem"]), int(best["n_seeds"]), metric=metric,
        )  # fmt: skip
        here = scores[
            (scores["dataset"] == dataset) & (scores["noise"] == noise)
            & (scores["n_labelled"] == n_labelled)
        ]  # fmt: skip
        # Other minus best, so an interval that lies wholly below 0 speaks for the best.
        pairs = paired_differences(here, verdict.method, seed, (metric,)).set_index("method")
        for other in ranked["method"].iloc[1:]:
            high = float(pairs["high"].get(other, np.nan))
            if np.isnan(high):
                verdict.untested.append(str(other))
            else:
                (verdict.above if high < 0 else verdict.tied).append(str(other))
        verdicts.append(verdict)
    return verdicts


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
