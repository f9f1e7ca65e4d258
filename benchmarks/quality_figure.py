"""Draw the figure of `quality.py`: metrics over minutes, a column per number of annotations.

What needs no training is a dashed line.
"""

from pathlib import Path

import matplotlib as mpl
import pandas as pd

from denoiseg_flow.reporting.figures.style import STYLE, legend, method_styles, panels, save

LABELS = {"ap": "AP (IoU > 0.5)", "seg": "SEG", "psnr": "PSNR (dB)"}


def curves(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return mean minutes, mean and standard error (0 for a single draw) by system and budget."""
    groups = table.groupby(["system", "budget"])
    means = groups.agg(minutes=("minutes", "mean"), mean=(metric, "mean"), error=(metric, "sem"))
    return means.fillna({"error": 0.0}).reset_index()


def draw(table: pd.DataFrame, stem: Path) -> None:
    """Write ``<stem>.svg`` and ``<stem>.png``; bands are one standard error over draws."""
    counts = sorted(table["n_annotated"].unique())
    styles = method_styles(sorted(table["system"].unique()))
    labels = {metric: label for metric, label in LABELS.items() if table[metric].notna().any()}
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(labels), len(counts), 2.0)
        for column, n_annotated in enumerate(counts):
            part = table[table["n_annotated"] == n_annotated]
            axes[0, column].set_title(f"{n_annotated} annotated images")
            axes[-1, column].set_xlabel("training time (minutes)")
            for row, (metric, label) in enumerate(labels.items()):
                axis = axes[row, column]
                axis.set_xscale("log")
                budgets = sorted(budget for budget in part["budget"].unique() if budget)
                axis.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
                axis.minorticks_off()
                axes[row, 0].set_ylabel(label)
                for system, curve in curves(part, metric).dropna().groupby("system"):
                    style = styles[system]
                    for untrained in curve.loc[curve["budget"] == 0, "mean"]:
                        axis.axhline(untrained, color=style.colour, linestyle="--")
                    curve = curve[curve["budget"] > 0]
                    axis.plot(
                        curve["minutes"],
                        curve["mean"],
                        color=style.colour,
                        marker=style.marker,
                        label=system,
                    )
                    low, high = curve["mean"] - curve["error"], curve["mean"] + curve["error"]
                    axis.fill_between(
                        curve["minutes"], low, high, color=style.colour, alpha=0.2, linewidth=0
                    )
        legend(figure, axes[0, 0].get_legend_handles_labels()[0])
        save(figure, stem)
