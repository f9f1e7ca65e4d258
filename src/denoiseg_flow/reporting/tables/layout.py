"""What a table is: tidy data for machines and wide panels for people, and how to arrange them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from denoiseg_flow.evaluation.metrics import DEFINITIONS


@dataclass(frozen=True)
class Cell:
    """One cell of a panel: its text and whether it is set in bold."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Panel:
    """One wide table: row headers (one or more per row), column headers and cells."""

    heading: str
    row_names: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Table:
    """A titled table: ``data`` is tidy, with full precision; ``panels`` are what people read."""

    title: str
    caption: str
    data: pd.DataFrame
    panels: tuple[Panel, ...]


def empty_table(title: str, reason: str, data: pd.DataFrame) -> Table:
    """Return a table that says why it has no rows, so that a finished study still gets the rest."""
    return Table(title, f"Nothing to show: {reason}.", data, ())


def order_rows(
    frame: pd.DataFrame, methods: Iterable[str], noises: Mapping[str, str], *last: str
) -> pd.DataFrame:
    """Sort by dataset, noise level, method, label count, metric and then ``last``.

    Methods and noise levels become ordered categories: in the given order, others after them.
    What ``noises`` says about a level becomes the column ``noise_parameters``.
    """
    frame = frame.assign(noise_parameters=frame["noise"].map(noises))
    for column, names in (("method", methods), ("noise", noises)):
        names = [*names, *sorted(set(frame[column]))]
        order = pd.CategoricalDtype(list(dict.fromkeys(names)), ordered=True)
        frame = frame.assign(**{column: frame[column].astype(order)})
    keys = ["dataset", "noise", "method", "n_annotated", "metric", *last]
    return frame.sort_values(keys, kind="stable", ignore_index=True)


def split_panels(
    data: pd.DataFrame, metrics: Iterable[str], by: list[str]
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield metric, heading and rows of each panel: one per metric and group of ``by``."""
    for metric in metrics:
        rows = data[data["metric"] == metric]
        for group, part in rows.groupby(by, observed=True, sort=True):
            yield metric, ", ".join([metric, *map(str, group)]), part


def wide_panel(
    heading: str, frame: pd.DataFrame, cells: Sequence[Cell], rows: list[str], column: str
) -> Panel:
    """Arrange one cell per row of ``frame`` by the columns ``rows`` (down) and ``column``."""
    keys = list(frame[rows].itertuples(index=False, name=None))
    placed = dict(zip(zip(keys, frame[column], strict=True), cells, strict=True))
    order = list(frame.sort_values(rows, kind="stable")[rows].itertuples(index=False, name=None))
    columns = list(dict.fromkeys(frame.sort_values(column, kind="stable")[column]))
    return Panel(
        heading,
        tuple("annotated" if name == "n_annotated" else name for name in rows),
        tuple(f"{c} annotated" if column == "n_annotated" else str(c) for c in columns),
        tuple(
            (tuple(map(str, row)), tuple(placed.get((row, c), Cell("")) for c in columns))
            for row in dict.fromkeys(order)
        ),
    )


def format_mean(mean: float, sem: float, metric: str) -> str:
    """Return ``0.634 ± 0.021`` (two decimals for dB); without ± where there is no error bar."""
    if math.isnan(mean):
        return ""
    return format_number(mean, metric) + (
        "" if math.isnan(sem) else f" ± {format_number(sem, metric)}"
    )


def format_number(value: float, metric: str, sign: str = "") -> str:
    """Return ``value`` with the decimals of its metric; ``sign="+"`` shows the plus of gains."""
    return f"{value:{sign}z.{decimals(metric)}f}".replace("-", "\N{MINUS SIGN}")


def decimals(metric: str) -> int:
    """Return how many decimals a metric is shown with: 2 for dB, 3 for the rest."""
    return 2 if metric.startswith("PSNR") else 3


def definitions(metrics: Iterable[str]) -> str:
    """Return the definitions of the metrics as sentences."""
    return " ".join(f"{DEFINITIONS[metric]}." for metric in metrics)


def noise_levels(noises: Mapping[str, str]) -> str:
    """Return the sentence that tells the parameters of every noise level."""
    return f"Noise: {'; '.join(f'{name} is {text}' for name, text in noises.items())}."


def error_bar(data: pd.DataFrame) -> str:
    """Return the sentence that says what ± is, from the numbers of seeds and files in ``data``."""
    alike = (data["n_images"] > data["n_sources"]).any()
    images = "the images of each file, then over the files" if alike else "the images"
    if data["n_seeds"].max() < 2:
        return f"Mean over {images} of one run: a single seed, so no error bar."
    return (
        f"Mean over {images} of a run, then over seeds, ± standard error of the mean over seeds "
        f"({seed_range(data)}; no ± where there is one seed)."
    )


def seed_range(data: pd.DataFrame) -> str:
    """Return ``n = 3 seeds`` or ``n = 1 to 3 seeds``."""
    low, high = int(data["n_seeds"].min()), int(data["n_seeds"].max())
    return f"n = {low} to {high} seeds" if low < high else f"n = {high} seed{'s' * (high > 1)}"
