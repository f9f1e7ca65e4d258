"""Figures of the report: segmentation and denoising quality, training curves.

Every function draws one dataset and returns a :class:`matplotlib.figure.Figure`; write it with
:func:`save`.

Error bars and bands have the same meaning everywhere: the metric is averaged over the images of a
run; they show mean and standard error of the mean (SEM) over the seeds. A single seed has no SEM
and no error bar.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from denoiseg_flow.reporting.figures.style import (
    GREY,
    STYLE,
    MethodStyle,
    legend,
    method_styles,
    notice,
    panels,
    save,
    title_columns,
)
from denoiseg_flow.reporting.tables.statistics import summarise

__all__ = ["denoising_levels", "label_curves", "save", "size_curves", "training_curves"]

_CURVE_POINTS = 120  # per run and loss: keeps the SVG of a long training small


def label_curves(metrics: pd.DataFrame, methods: list[str], noises: Iterable[str]) -> Figure:
    """Draw quality against the number of annotated images.

    Rows are AP (IoU > 0.5) and SEG, columns noise levels. Methods that use no annotated images are
    horizontal lines. If some of the methods also denoise, and were trained with several numbers of
    annotated images, their PSNR is a further row.

    Parameters
    ----------
    metrics
        Tidy metrics of one dataset.
    methods
        All methods of the study, in order; methods without AP or SEG are not drawn.
    noises
        Noise levels, in order, one column each.
    """
    summary = _summary(metrics, ["AP", "SEG", "PSNR"]).assign(
        count=lambda table: table["n_annotated"]
    )
    titles = {"AP": "AP (IoU > 0.5)", "SEG": "SEG", "PSNR": "PSNR [dB]"}
    of_psnr = summary["metric"] == "PSNR"
    n_counts = summary[of_psnr].groupby("method")["count"].nunique()
    varying = set(n_counts.index[n_counts > 1]) & set(summary.loc[~of_psnr, "method"])
    summary = summary[~of_psnr | summary["method"].isin(varying)]
    if not varying:
        del titles["PSNR"]
    text = "No method of this dataset predicts instances."
    return _count_curves(summary, titles, "annotated training images", methods, noises, text)


def size_curves(
    metrics: pd.DataFrame, sizes: Mapping[str, int], methods: list[str], noises: Iterable[str]
) -> Figure:
    """Draw denoising quality against the number of training images.

    Rows are SSIM and PSNR, columns noise levels.

    Parameters
    ----------
    metrics
        Tidy metrics of datasets that differ only in the number of training images.
    sizes
        The number of training images of each dataset.
    methods, noises
        As in :func:`label_curves`; methods with annotated images are not drawn.
    """
    shown = metrics["metric"].isin(["SSIM", "PSNR"]) & np.isfinite(metrics["value"])
    summary = summarise(metrics[shown & (metrics["n_annotated"] == 0)])
    summary = summary.assign(count=summary["dataset"].map(sizes))
    titles = {"SSIM": "SSIM", "PSNR": "PSNR [dB]"}
    text = "No SSIM or PSNR: these datasets have no denoised or no clean test images."
    return _count_curves(summary, titles, "training images", methods, noises, text)


def _count_curves(
    summary: pd.DataFrame,
    titles: Mapping[str, str],
    label: str,
    methods: list[str],
    noises: Iterable[str],
    text: str,
) -> Figure:
    """Draw metrics (rows) of methods against ``count``; without any, show the notice ``text``."""
    drawn = [name for name in methods if name in set(summary["method"])]
    if not drawn:
        return notice(text)
    noises = list(noises)
    styles = method_styles(methods)
    most = summary.groupby("method")["count"].max()
    level = set(most.index[most == 0]) if most.max() > 0 else set()
    varying = summary.loc[~summary["method"].isin(level), "count"]
    counts = sorted(int(count) for count in varying.unique())
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(titles), len(noises), height=2.35)
        for row, (metric, title) in enumerate(titles.items()):
            for column, noise in enumerate(noises):
                axis = axes[row, column]
                here = summary[(summary["metric"] == metric) & (summary["noise"] == noise)]
                for place, method in enumerate(drawn):
                    curve = here[here["method"] == method].sort_values("count")
                    if method in level:
                        _draw_level(axis, curve, styles[method])
                        continue
                    shift = (place - (len(drawn) - 1) / 2) if len(counts) == 1 else 0.0
                    _draw_curve(axis, curve, styles[method], shift / max(len(drawn), 1))
                _label_axis(axis, counts)
            axes[row, 0].set_ylabel(title)
        title_columns(axes, noises)
        figure.supxlabel(label, fontsize=9)
        legend(figure, [_handle(name, styles[name], name not in level) for name in drawn])
    return figure


def denoising_levels(metrics: pd.DataFrame, methods: list[str], noises: Iterable[str]) -> Figure:
    """Draw PSNR of every denoising method, one panel per noise level.

    If a method uses annotated images, each number of them has its own marker in the method's row:
    the more images, the darker. The dashed line is the noisy input.
    """
    noises = list(noises)
    summary = _summary(metrics, ["PSNR", "PSNR_noisy"])
    results = summary[summary["metric"] == "PSNR"]
    drawn = [name for name in methods if name in set(results["method"])]
    if not drawn:
        return notice("No PSNR: this dataset has no denoised or no clean test images.")
    styles = method_styles(methods)
    counts = sorted(int(count) for count in results["n_annotated"].unique() if count > 0)
    rows = results.groupby(["noise", "method"]).size().groupby("method").max()[drawn].to_numpy()
    heights = 0.18 + 0.15 * rows  # inches
    places = np.cumsum(heights) - heights / 2
    with mpl.rc_context(STYLE):
        figure, axes = panels(1, len(noises), height=0.6 + heights.sum())
        for axis, noise in zip(axes[0], noises, strict=True):
            here = summary[summary["noise"] == noise]
            noisy = here.loc[here["metric"] == "PSNR_noisy", "mean"]
            if len(noisy):
                axis.axvline(noisy.mean(), color=GREY, linestyle=(0, (4, 2)), linewidth=1.2)
            here = here[here["metric"] == "PSNR"]
            for place, method in zip(places, drawn, strict=True):
                points = here[here["method"] == method].sort_values("n_annotated")
                _draw_row(axis, points, place, styles[method], counts)
            axis.grid(axis="x")
            axis.margins(x=0.12)
            axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes[0, 0].set_yticks(places, drawn)
        axes[0, 0].set_ylim(heights.sum(), 0)
        title_columns(axes, noises)
        figure.supxlabel("PSNR [dB], higher is better", fontsize=9)
        handles = [Line2D([], [], color=GREY, linestyle=(0, (4, 2)), label="noisy input")]
        if rows.max() > 1:
            handles += [
                Line2D([], [], color="#333333", marker="o", linestyle="",
                       label=f"{count} annotated", markerfacecolor=_shade("#333333", count, counts))
                for count in counts
            ]  # fmt: skip
        legend(figure, handles)
    return figure


def training_curves(histories: pd.DataFrame, methods: list[str]) -> Figure:
    """Draw losses against the training step: a thin line per run, a column per noise level.

    Parameters
    ----------
    histories
        Rows of ``history.tsv`` of all runs of one dataset, with the additional columns dataset,
        noise, method, n_annotated and seed. Long runs are averaged into at most 120 bins of
        steps. A loss without positive values gets no row.
    methods
        All methods of the study, in order.
    """
    _one_dataset(histories)
    titles = {"loss_denoise": "denoising loss", "loss_segment": "segmentation loss",
              "val_loss": "validation loss"}  # fmt: skip
    if "step" not in histories:
        return notice("No network was trained on this dataset.")
    histories = histories.dropna(subset=["step"])  # classical denoisers have no training steps
    losses = [name for name in titles if (histories[name] > 0).any()]
    drawn = [name for name in methods if name in set(histories["method"])]
    if not losses or not drawn:
        return notice("No network was trained on this dataset.")
    styles = method_styles(methods)
    noises = list(dict.fromkeys(histories["noise"]))
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(losses), len(noises), height=1.9)
        for method in drawn:
            style = styles[method]
            own = histories[histories["method"] == method]
            for (noise, *_), run in own.groupby(["noise", "n_annotated", "seed"], sort=True):
                for row, loss in enumerate(losses):
                    steps, values = _thin(run["step"], run[loss])
                    axes[row, noises.index(noise)].plot(
                        steps, values, color=style.colour, linestyle=style.dash, linewidth=0.9,
                        alpha=0.65, marker=style.marker if len(steps) == 1 else "",
                    )  # fmt: skip
        for row, loss in enumerate(losses):
            axes[row, 0].set_ylabel(titles[loss])
            for axis in axes[row]:
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter(NullFormatter())
                axis.xaxis.set_major_locator(MaxNLocator(4))
        title_columns(axes, noises)
        figure.supxlabel("training step", fontsize=9)
        handles = [Line2D([], [], color=styles[name].colour, linestyle=styles[name].dash,
                          label=name) for name in drawn]  # fmt: skip
        legend(figure, handles)
    return figure


def _one_dataset(frame: pd.DataFrame) -> None:
    names = sorted(frame["dataset"].unique())
    if len(names) > 1:
        raise ValueError(f"a figure shows one dataset, not several: {', '.join(names)}")


def _summary(metrics: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return mean and SEM of some metrics, without the infinite PSNR of images without noise."""
    _one_dataset(metrics)
    return summarise(metrics[metrics["metric"].isin(names) & np.isfinite(metrics["value"])])


def _draw_curve(axis: Axes, curve: pd.DataFrame, style: MethodStyle, shift: float) -> None:
    """Draw mean and SEM of one method; ``shift`` (in octaves) separates single points."""
    if curve.empty:
        return
    x = curve["count"].to_numpy(float) * 2.0**shift
    mean, sem = curve["mean"].to_numpy(), curve["sem"].to_numpy()
    zorder = 2 if style.colour == GREY else 3
    if len(curve) > 1:
        axis.plot(x, mean, color=style.colour, marker=style.marker, linestyle=style.dash,
                  markeredgecolor="white", markeredgewidth=0.5, zorder=zorder)  # fmt: skip
        axis.fill_between(x, mean - sem, mean + sem, color=style.colour, alpha=0.18, linewidth=0)
    else:
        axis.errorbar(x, mean, yerr=None if np.isnan(sem).all() else sem, color=style.colour,
                      marker=style.marker, markersize=6.5, capsize=3, zorder=zorder)  # fmt: skip


def _draw_level(axis: Axes, curve: pd.DataFrame, style: MethodStyle) -> None:
    """Draw mean and SEM of a method that does not depend on the x axis."""
    for point in curve.itertuples():
        axis.axhline(point.mean, color=style.colour, linestyle=style.dash, zorder=2)
        if not np.isnan(point.sem):
            low, high = point.mean - point.sem, point.mean + point.sem
            axis.axhspan(low, high, color=style.colour, alpha=0.18, linewidth=0)


def _label_axis(axis: Axes, counts: Sequence[int]) -> None:
    """Make a logarithmic x axis with the numbers of images as ticks."""
    # symlog keeps a count of 0 on the axis; above 1, it is the plain logarithm.
    axis.set_xscale("symlog", base=2, linthresh=1)
    axis.xaxis.set_major_locator(FixedLocator(counts))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axis.set_xlim(min(counts) / 2**0.7 if min(counts) else -0.4, max(*counts, 1) * 2**0.7)
    if len(counts) > 7:
        axis.tick_params(axis="x", rotation=45)


def _draw_row(
    axis: Axes, points: pd.DataFrame, place: float, style: MethodStyle, counts: Sequence[int]
) -> None:
    """Draw one method of a dot plot, with one point per number of annotated images in its row."""
    offsets = 0.13 * (np.arange(len(points)) - (len(points) - 1) / 2)  # inches
    for offset, point in zip(offsets, points.itertuples(), strict=True):
        axis.errorbar(point.mean, place + offset,
                      xerr=None if np.isnan(point.sem) else point.sem, color=style.colour,
                      marker=style.marker, capsize=2, elinewidth=1.2,
                      markerfacecolor=_shade(style.colour, point.n_annotated, counts))  # fmt: skip


def _shade(colour: str, count: int, counts: Sequence[int]) -> tuple[float, float, float]:
    """Mix ``colour`` with white: nearly white for the smallest count, full for the largest."""
    full = mpl.colors.to_rgb(colour)
    if count not in counts or len(counts) < 2:
        return full
    strength = 0.1 + 0.9 * counts.index(count) / (len(counts) - 1)
    red, green, blue = (1 - strength * (1 - part) for part in full)
    return red, green, blue


def _thin(steps: pd.Series, values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return means of finite values in at most ``_CURVE_POINTS`` bins of equally many steps."""
    keep = np.isfinite(values.to_numpy(float))
    steps, values = steps.to_numpy(float)[keep], values.to_numpy(float)[keep]
    size = max(1, math.ceil(len(steps) / _CURVE_POINTS))
    starts = np.arange(0, len(steps), size)
    lengths = np.diff(starts, append=len(steps))
    if not len(starts):
        return steps, values
    return np.add.reduceat(steps, starts) / lengths, np.add.reduceat(values, starts) / lengths


def _handle(method: str, style: MethodStyle, marked: bool = True) -> Line2D:
    marker = style.marker if marked else ""
    return Line2D([], [], color=style.colour, marker=marker, linestyle=style.dash, label=method)
