"""Figure of the calibration of classical denoisers: self-supervised loss and true error.

This is a figure of Noise2Self (Batson & Royer 2019). For a J-invariant denoiser, such as a median
over a disk without its centre, the same parameter minimises the self-supervised loss and the true
error; for the ordinary median, which reads the pixel that it predicts, it does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from denoiseg_flow.methods.classical import DENOISERS
from denoiseg_flow.reporting.figures.style import (
    STYLE,
    MethodStyle,
    legend,
    method_styles,
    notice,
    panels,
    title_columns,
)

_SOLID: LineStyleType = "-"
_DASHED: LineStyleType = (0, (4, 2))
_DOTTED: LineStyleType = (0, (1, 1.5))


def calibration_curves(
    histories: pd.DataFrame,
    methods: list[str],
    noises: Mapping[str, str],
    denoisers: Mapping[str, str],
) -> Figure:
    """Draw self-supervised loss and true error against the parameter, with dots at the minima.

    Rows are parameters (a radius, a strength), columns noise levels. Values are means over seeds.

    Parameters
    ----------
    histories
        Rows of ``history.tsv`` of all runs of one dataset; rows of networks are skipped.
    methods
        All methods of the study, in order.
    noises
        Noise levels, in order, one column each, with their parameters in words.
    denoisers
        The denoiser of each calibrated classical method.
    """
    drawn = [name for name in methods if name in denoisers and name in set(histories["method"])]
    if not drawn:
        return notice("No classical denoiser was calibrated.")
    losses = ["loss_self_supervised", "loss_plain", "mse"]
    table = histories[histories["method"].isin(drawn)]
    table = table.groupby(["method", "noise", "value"], as_index=False)[losses].mean()
    # Denoisers share a row if their parameters have the same meaning.
    meanings = {name: _meaning(denoisers[name]) for name in drawn}
    rows = list(dict.fromkeys(meanings.values()))
    styles = method_styles(methods)
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(rows), len(noises), height=2.6, sharex="row")
        for row, meaning in enumerate(rows):
            for axis, noise in zip(axes[row], noises, strict=True):
                for method in (name for name in drawn if meanings[name] == meaning):
                    curve = table[(table["method"] == method) & (table["noise"] == noise)]
                    _draw(axis, curve, styles[method], DENOISERS[denoisers[method]].j_invariant)
                axis.set_xlabel(meaning)
                axis.set_ylim(bottom=0)
            axes[row, 0].set_ylabel("mean squared error")
        title_columns(axes, noises)
        handles = [
            Line2D([], [], color=styles[name].colour, marker="o", linestyle="", label=name)
            for name in drawn
        ] + [
            Line2D([], [], color="#333333", linestyle=dash, label=label)
            for label, dash in [
                ("against the noisy image", _SOLID),
                ("against masked pixels of the noisy image", _DOTTED),
                ("against the clean image", _DASHED),
            ]
        ]
        legend(figure, handles)
    return figure


def _meaning(denoiser: str) -> str:
    """Return name and unit of the parameter of a denoiser."""
    chosen = DENOISERS[denoiser]
    return f"{chosen.parameter} [{'noise sigma' if chosen.needs_noise else 'pixels'}]"


def _draw(axis: Axes, curve: pd.DataFrame, style: MethodStyle, j_invariant: bool) -> None:
    """Draw the curves of one denoiser; a J-invariant denoiser needs no masked pixels."""
    values = curve["value"].to_numpy()
    lines = [("loss_plain", _SOLID), ("mse", _DASHED)]
    if not j_invariant:
        lines.append(("loss_self_supervised", _DOTTED))
    for loss, dash in lines:
        errors = curve[loss].to_numpy()
        if np.isnan(errors).all():
            continue
        best = int(np.nanargmin(errors))
        axis.plot(values, errors, color=style.colour, linestyle=dash, linewidth=1.2)
        axis.plot(values[best], errors[best], color=style.colour, marker="o", markersize=5)
    error = curve["mse"].to_numpy()
    if j_invariant and not np.isnan(error).all():
        # The noise is unpredictable: the loss exceeds the true error by the variance of the noise.
        best = int(np.argmin(curve["loss_plain"].to_numpy()))
        seen = curve["loss_plain"].to_numpy()[best]
        axis.annotate(
            "", (values[best], seen), (values[best], error[best]),
            arrowprops={"arrowstyle": "<->", "color": style.colour, "linewidth": 0.8},
        )  # fmt: skip
        axis.annotate(
            f"{seen - error[best]:.3g}", (values[best], (seen + error[best]) / 2), (4, 0),
            textcoords="offset points", va="center", fontsize=8, color=style.colour,
        )  # fmt: skip
