"""Figure of the images to annotate next."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from denoiseg_flow.data.painting import displayed, intensity_window, over
from denoiseg_flow.reporting.figures.panels import show
from denoiseg_flow.reporting.figures.style import FULL_WIDTH, OKABE_ITO, STYLE, notice

COLUMNS = 4
_UNSURE = OKABE_ITO[4]  # orange


def thumbnails(images: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Draw images in order, in orange where the model is uncertain.

    Parameters
    ----------
    images
        Name, image (y, x), or (y, x, 3) in colour, and uncertainty (y, x) in bits, at most log2(3)
        for three classes. Images larger than 256 pixels are cropped to their centre.
    """
    if not images:
        return notice("All images are annotated.")
    rows = -(-len(images) // COLUMNS)
    cell = FULL_WIDTH / COLUMNS
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(FULL_WIDTH, rows * (cell + 0.25)), layout="constrained")
        axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for place, axis in enumerate(axes):
            axis.set_axis_off()
            if place < len(images):
                name, image, uncertainty = images[place]
                paint = np.empty((*uncertainty.shape, 4))
                paint[..., :3] = to_rgb(_UNSURE)
                paint[..., 3] = 0.8 * np.clip(uncertainty, 0, 1)
                show(axis, over(displayed(image, intensity_window(image)), paint), image.shape)
                axis.set_title(f"{place + 1}. {name}", fontsize=9)
    return figure
