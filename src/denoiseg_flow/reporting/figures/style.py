"""The common style of all figures: fonts, colours of methods, grids of axes, legends, files.

Figures are made without pyplot, so they need no display and can be drawn in parallel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

# Okabe & Ito (2008), "Color universal design": darkest hues first, without yellow, which is too
# faint for lines on white.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#7F7F7F"
BASELINE = "baseline"
_MARKERS = "oD^vPX<>ph"
_DASHES: tuple[LineStyleType, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))

STYLE: dict[Any, object] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: same text on every machine
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "svg.hashsalt": "denoiseg-flow",
    "text.parse_math": False,  # a "$" in a method's name is a dollar sign
}
FULL_WIDTH = 9.0  # inches; 864 CSS pixels


class MethodStyle(NamedTuple):
    """The style of a method in all figures."""

    colour: str
    marker: str
    dash: LineStyleType


def method_styles(methods: Sequence[str]) -> dict[str, MethodStyle]:
    """Return colour, marker and dash of each method, by its place in ``methods``.

    With the same list, a method has the same style in all figures. The method ``baseline`` is
    grey.
    """
    styles = {BASELINE: MethodStyle(GREY, "s", "-")}
    for index, method in enumerate(name for name in methods if name != BASELINE):
        cycle, place = divmod(index, len(OKABE_ITO))
        styles[method] = MethodStyle(
            OKABE_ITO[place], _MARKERS[index % len(_MARKERS)], _DASHES[cycle % len(_DASHES)]
        )
    return {method: styles[method] for method in methods}


def panels(
    rows: int, columns: int, height: float, sharex: Literal["row", "col"] = "col"
) -> tuple[Figure, np.ndarray]:
    """Make a grid of axes: rows share y, columns (or rows) share x; inches of height per row."""
    width = FULL_WIDTH if columns > 2 else (5.4 if columns == 1 else 7.4)
    figure = Figure(figsize=(width, height * rows + 0.7), layout="constrained")
    return figure, figure.subplots(rows, columns, sharex=sharex, sharey="row", squeeze=False)


def title_columns(axes: np.ndarray, noises: Iterable[str]) -> None:
    """Write the noise level above every column."""
    for axis, noise in zip(axes[0], noises, strict=True):
        axis.set_title(f"noise: {noise}")


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Add one legend above all axes, with as few full rows as the width of the figure allows."""
    entry = 0.75 + 0.075 * max(len(str(handle.get_label())) for handle in handles)  # inches
    fitting = max(1, int(figure.get_figwidth() / entry))
    rows = math.ceil(len(handles) / fitting)
    columns = math.ceil(len(handles) / rows)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def notice(text: str) -> Figure:
    """Make a figure with a text that says why there is nothing to draw."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.8))
        figure.text(0.5, 0.5, text, ha="center", va="center", color="#555555")
    return figure


def save(figure: Figure, stem: str | Path) -> tuple[Path, Path]:
    """Write ``<stem>.svg`` and ``<stem>.png``; the same figure gives the same bytes.

    Returns the two paths. The folder must exist.
    """
    # with_name, not with_suffix: a stem such as "n0.5" must keep the part after its dot.
    stem = Path(stem)
    svg, png = (stem.with_name(stem.name + ending) for ending in (".svg", ".png"))
    with mpl.rc_context(STYLE):
        figure.savefig(svg, dpi=150, metadata={"Date": None})
        figure.savefig(png, dpi=150, metadata={"Software": None})
    return svg, png
