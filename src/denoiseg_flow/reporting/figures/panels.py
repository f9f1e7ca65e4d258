"""Qualitative panels: the predictions of each method for one test image, and their errors.

Errors are distinguishable without colour vision: true positives have a thin outline, false
negatives and false positives a filled interior.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import skimage as ski
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from denoiseg_flow.data.painting import displayed, instance_colours, intensity_window, over
from denoiseg_flow.data.store import centre_crop
from denoiseg_flow.evaluation.overlap import Matching
from denoiseg_flow.reporting.figures.examples import Example
from denoiseg_flow.reporting.figures.style import FULL_WIDTH, STYLE

FOUND, MISSED, FALSE = "#009E73", "#D55E00", "#F0E442"  # Okabe-Ito green, vermilion, yellow
MAX_SIDE = 256  # pixels per side: in a larger crop, single objects would be too small
_TITLES = ("noisy input", "denoised", "predicted instances", "annotated instances", "errors")
_DENOISED_TITLES = ("noisy input", "denoised", "clean", "denoised - clean")


def qualitative_panel(rows: list[Example]) -> Figure:
    """Draw one row per method: noisy, denoised, predicted, annotated, and the errors.

    All images share the intensity window of the first noisy input. Images larger than 256
    pixels are cropped to their centre; the AP (IoU > 0.5) beside a row is that of the whole image.
    Matching predicted and annotated objects have the same colour.

    If no method segments, the clean image, if it is known, and the difference from it replace the
    instances: middle grey is no difference, black and white are a quarter of the intensity window.
    """
    if all(row.labels is None for row in rows):
        return _denoising_panel(rows)
    window = intensity_window(rows[0].noisy)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = titled_axes([row.noisy for row in rows], _TITLES, margin=0.75)
        for row, line in zip(rows, axes, strict=True):
            _draw_row(row, line, window)
        figure.legend(
            handles=[
                Patch(facecolor="none", edgecolor=FOUND, linewidth=1.5, label="true positive"),
                Patch(facecolor=MISSED, edgecolor=MISSED, alpha=0.7, label="false negative"),
                Patch(facecolor=FALSE, edgecolor="#8A8000", label="false positive"),
            ],
            loc="outside lower right", ncols=3,
        )  # fmt: skip
    return figure


def titled_axes(
    images: list[np.ndarray], titles: tuple[str, ...], margin: float
) -> tuple[Figure, np.ndarray]:
    """Make a row of axes per image (y, x), or (y, x, 3) in colour, all of one shape.

    ``margin`` is in inches of height.
    """
    height, width = centre_crop(images[0], MAX_SIDE, axes=(0, 1)).shape[:2]
    cell = (FULL_WIDTH - 1.1) / len(_TITLES)
    figure = Figure(
        figsize=(1.1 + cell * len(titles), len(images) * cell * height / width + margin),
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01),
    )
    axes = figure.subplots(len(images), len(titles), squeeze=False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    return figure, axes


def _denoising_panel(rows: list[Example]) -> Figure:
    low, high = window = intensity_window(rows[0].noisy)
    titles = _DENOISED_TITLES if rows[0].clean is not None else _DENOISED_TITLES[:2]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = titled_axes([row.noisy for row in rows], titles, margin=0.4)
        for row, line in zip(rows, axes, strict=True):
            line[0].set_ylabel(row.name, rotation=0, ha="right", va="center", labelpad=6)
            error = None
            if row.clean is not None and row.denoised is not None:
                error = (low + high) / 2 + 2 * (row.denoised - row.clean)
            pictures = [row.noisy, row.denoised, row.clean, error][: len(titles)]
            for axis, picture in zip(line, pictures, strict=True):
                show(axis, None if picture is None else displayed(picture, window), row.noisy.shape)
    return figure


def _draw_row(row: Example, axes: list[Axes], window: tuple[float, float]) -> None:
    matching = row.matching
    score = "" if matching is None else f"\nAP {matching.average_precision:.2f}"
    axes[0].set_ylabel(row.name + score, rotation=0, ha="right", va="center", labelpad=6)
    background = displayed(row.noisy, window)
    pictures = [
        background,
        None if row.denoised is None else displayed(row.denoised, window),
        None,
        None if row.truth is None else over(background, instance_colours(row.truth)),
        None,
    ]
    if row.labels is not None:
        shown = row.labels
        if matching is not None and row.truth is not None:
            shown = _recolour(row.labels, row.truth, matching)
            pictures[4] = _errors(background, row.truth, row.labels, matching)
        pictures[2] = over(background, instance_colours(shown))
    for axis, picture in zip(axes, pictures, strict=True):
        show(axis, picture, row.noisy.shape)


def show(axis: Axes, picture: np.ndarray | None, shape: tuple[int, ...]) -> None:
    """Draw the centre of a picture, or "none" without a picture."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    if picture is None:
        axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", va="center",
                  color="#777777", style="italic")  # fmt: skip
        axis.set_aspect(shape[0] / shape[1])
    else:
        axis.imshow(centre_crop(picture, MAX_SIDE, axes=(0, 1)), interpolation="nearest")


def _recolour(prediction: np.ndarray, truth: np.ndarray, matching: Matching) -> np.ndarray:
    """Give matched objects the label of their annotated object, and others an unused label."""
    values, index = np.unique(prediction, return_inverse=True)
    offset = max([int(truth.max()), *matching.pairs.values()]) + 1
    new = [0 if value == 0 else matching.pairs.get(int(value), offset + int(value))
           for value in values]  # fmt: skip
    return np.array(new)[index.reshape(prediction.shape)]


def _errors(
    background: np.ndarray, truth: np.ndarray, prediction: np.ndarray, matching: Matching
) -> np.ndarray:
    """Paint true positives as outlines, then false negatives and positives, on a dimmed image."""
    picture = 0.6 * background
    found = np.where(np.isin(truth, list(matching.pairs.values())), truth, 0)
    layers = [
        (found, FOUND, 0.0),
        (np.where(np.isin(truth, matching.missed), truth, 0), MISSED, 0.45),
        (np.where(np.isin(prediction, matching.false), prediction, 0), FALSE, 0.35),
    ]
    for labels, colour, fill in layers:
        rgb = np.array(to_rgb(colour))
        inside = labels > 0
        picture[inside] = picture[inside] * (1 - fill) + rgb * fill
        picture[ski.segmentation.find_boundaries(labels, mode="thick")] = rgb
    return picture
