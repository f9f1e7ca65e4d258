"""Figure of the precision of predicted objects by their confidence, a reliability diagram."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from denoiseg_flow.findings import count
from denoiseg_flow.models.precision_curve import FEW, PrecisionCurve
from denoiseg_flow.reporting.figures.style import (
    GREY,
    STYLE,
    MethodStyle,
    legend,
    method_styles,
    notice,
    panels,
)
from denoiseg_flow.study.grid import Run


def precision_curves(
    models: Iterable[Mapping[str, Any]], methods: Sequence[str], noises: Mapping[str, str]
) -> Figure:
    """Draw the share of correct objects by confidence, with 95% intervals.

    Rows are noise levels, columns numbers of annotated images.

    Parameters
    ----------
    models
        Descriptions of models that were trained on one dataset with one seed, see
        :func:`~denoiseg_flow.methods.initial_model.read_description`.
    methods
        All methods of the study, in order.
    noises
        Noise levels, in order, with their parameters in words.
    """
    curves = {
        Run(**each["identity"]): PrecisionCurve(**each["precision"])
        for each in models
        if each.get("precision")
    }
    if not curves:
        return notice("There were too few annotated objects to measure their precision.")
    counts = sorted({run.n_annotated for run in curves})
    rows = [noise for noise in noises if noise in {run.noise for run in curves}]
    drawn = [name for name in methods if name in {run.method for run in curves}]
    styles = method_styles(methods)
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(rows), len(counts), height=2.8)
        for line, noise in zip(axes, rows, strict=True):
            for axis, n_annotated in zip(line, counts, strict=True):
                here = {
                    name: curve
                    for name in drawn
                    for run, curve in curves.items()
                    if (run.method, run.noise, run.n_annotated) == (name, noise, n_annotated)
                }
                _draw(axis, here, styles)
                axis.set_title(f"{count(n_annotated, 'annotated image')}, noise: {noises[noise]}")
            line[0].set_ylabel("share of correct objects")
        for axis in axes[-1]:
            axis.set_xlabel("confidence")
        handles = [
            Line2D([], [], color=styles[name].colour, marker=styles[name].marker, label=name)
            for name in drawn
        ]
        rough = any(curve.n_objects < FEW for curve in curves.values())
        if rough:
            few = f"fewer than {FEW} objects"
            handles.append(Line2D([], [], color=GREY, linestyle=(0, (1, 1)), label=few))
        legend(figure, handles)
    return figure


def _draw(
    axis: Axes, curves: Mapping[str, PrecisionCurve], styles: Mapping[str, MethodStyle]
) -> None:
    told = []
    for name, curve in curves.items():
        share = np.array(curve.precision)
        # Rounding may move a share out of its interval.
        bars = np.maximum([share - curve.lower, np.array(curve.upper) - share], 0)
        axis.errorbar(
            curve.confidence, share, bars, color=styles[name].colour, marker=styles[name].marker,
            linestyle=(0, (1, 1)) if curve.n_objects < FEW else styles[name].dash,
            elinewidth=0.8, capsize=2,
        )  # fmt: skip
        told.append(f"{name}: {count(curve.n_objects, 'object')}, {count(curve.n_images, 'image')}")
    axis.text(
        0.98, 0.03, "\n".join(told), transform=axis.transAxes, ha="right", va="bottom",
        fontsize=7, color="#555555",
    )  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
