"""Figures about the reliability of predictions: residuals and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from denoiseg_flow.data.layout import Predictions, image_file
from denoiseg_flow.data.painting import displayed, intensity_window
from denoiseg_flow.data.store import open_picture
from denoiseg_flow.evaluation.noise_structure import NoiseStructure
from denoiseg_flow.evaluation.residuals import WINDOW, Residual, load_residual
from denoiseg_flow.evaluation.trust import Reliability, Trust
from denoiseg_flow.findings import count
from denoiseg_flow.reporting.figures.panels import FALSE, MISSED, show, titled_axes
from denoiseg_flow.reporting.figures.style import GREY, OKABE_ITO, STYLE, notice

_TITLES = ("noisy input", "denoised", "residual")
_X, _Y = OKABE_ITO[:2]
_N_SHOWN = 4  # images, at most


@dataclass(frozen=True)
class ResidualExample:
    """A noisy image, its denoised image, and the residual (of the first channel)."""

    name: str
    noisy: np.ndarray
    denoised: np.ndarray
    residual: Residual


def suspicious_examples(
    trust: Trust, noisy: Path, predictions: Predictions
) -> list[ResidualExample]:
    """Return the images with the most oversmoothed or hallucinated windows.

    Parameters
    ----------
    noisy
        Folder of the noisy images.
    predictions
        The predictions that were examined.
    """
    suspicious = trust.images["smoothed"] + trust.images["invented"]
    order = suspicious.dropna().sort_values(ascending=False, kind="stable").index
    names = trust.images.loc[order[:_N_SHOWN], "image"]
    files = [(image_file(noisy, name), predictions.file("denoised", name)) for name in names]
    return [
        ResidualExample(
            name,
            open_picture(before),
            open_picture(after),
            load_residual(before, after, trust.noise),
        )
        for name, (before, after) in zip(names, files, strict=True)
    ]


def residual_panel(rows: list[ResidualExample]) -> Figure:
    """Draw one row per image: noisy, denoised, and the residual with frames around bad windows.

    The residual is shown on the scale of the image; middle grey is 0. Images larger than 256
    pixels are cropped to their centre.
    """
    if not rows:
        return notice("This run has no denoised images.")
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = titled_axes([row.noisy for row in rows], _TITLES, margin=0.75)
        for row, line in zip(rows, axes, strict=True):
            line[0].set_ylabel(row.name, rotation=0, ha="right", va="center", labelpad=6)
            low, high = window = intensity_window(row.noisy)
            middle = (low + high) / 2 + row.residual.image
            for axis, picture in zip(line, (row.noisy, row.denoised, middle), strict=True):
                show(axis, displayed(picture, window), row.noisy.shape)
            _mark(line[2], row)
        figure.legend(
            handles=[
                Patch(facecolor="none", edgecolor=MISSED, linewidth=1.5, label="oversmoothed"),
                Patch(facecolor="none", edgecolor=FALSE, linewidth=1.5, label="hallucinated"),
            ],
            loc="outside lower right", ncols=2,
        )  # fmt: skip
    return figure


def _mark(axis: Axes, row: ResidualExample) -> None:
    """Draw frames around oversmoothed and hallucinated windows of the visible crop."""
    shown = axis.images[0].get_size()
    top, left = ((size - part) // 2 for size, part in zip(row.noisy.shape[:2], shown, strict=True))
    height, width = (min(WINDOW, size) for size in row.noisy.shape[:2])
    for windows, colour, inset in (
        (row.residual.smoothed, MISSED, 1),
        (row.residual.invented, FALSE, 3),
    ):
        for y, x in np.argwhere(windows) * (height, width) - (top, left):
            corner = (x + inset - 0.5, y + inset - 0.5)
            size = width - 2 * inset, height - 2 * inset
            axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=1.2))
    axis.set(xlim=(-0.5, shown[1] - 0.5), ylim=(shown[0] - 0.5, -0.5))


def diagnostics(trust: Trust) -> Figure:
    """Draw the autocorrelation of the residuals and the calibration of the probabilities."""
    along = None
    if trust.along_x is not None and trust.along_y is not None:
        along = trust.along_x, trust.along_y
    n_panels = (along is not None) + (trust.calibration is not None)
    if not n_panels:
        return notice("This run has no denoised images and no annotated test images.")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.7 * n_panels, 3.2), layout="constrained")
        axes = list(figure.subplots(1, n_panels, squeeze=False)[0])
        if along is not None:
            _draw_correlation(axes[0], along, trust.noise)
        if trust.calibration is not None:
            _draw_reliability(axes[-1], trust.calibration)
    return figure


def _draw_correlation(
    axis: Axes, along: tuple[np.ndarray, np.ndarray], noise: NoiseStructure
) -> None:
    """Draw the correlation of the residuals along x and y, and that of the noise (dashed)."""
    if np.isnan(along).all():
        axis.set_axis_off()
        axis.text(0.5, 0.5, "the residual is zero", ha="center", va="center", color="#555555")
        return
    distances = np.arange(1, len(along[0]) + 1)
    axis.axhline(0, color=GREY, linewidth=0.8)
    for values, expected, colour, marker in (
        (along[0], noise.along_x, _X, "o"),
        (along[1], noise.along_y, _Y, "s"),
    ):
        axis.plot(distances, expected, color=colour, linestyle=(0, (4, 2)), linewidth=1)
        axis.plot(distances, values, color=colour, marker=marker)
    low = min(-0.1, np.nanmin(along) - 0.05)
    axis.set(
        xlabel="distance (pixels)", ylabel="correlation", title="residual",
        ylim=(low, max(0.5, np.nanmax(along) + 0.05)),
    )  # fmt: skip
    axis.legend(handles=[
        Line2D([], [], color=_X, marker="o", label="along x"),
        Line2D([], [], color=_Y, marker="s", label="along y"),
        Line2D([], [], color=GREY, linestyle=(0, (4, 2)), linewidth=1, label="noise in flat parts"),
    ])  # fmt: skip


def _draw_reliability(axis: Axes, calibration: Reliability) -> None:
    known = calibration.n_pixels > 0
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 2)), linewidth=1)
    axis.plot(calibration.probability[known], calibration.frequency[known], color=_X, marker="o")
    axis.set(
        xlabel="predicted foreground probability", ylabel="fraction of foreground pixels",
        title=f"calibration, {count(calibration.n_images, 'image')}", xlim=(0, 1), ylim=(0, 1),
    )  # fmt: skip
