"""The parts of a table: tidy data for programs, wide panels for readers, number formats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from denoiseg_flow.evaluation.metrics import DEFINITIONS


@dataclass(frozen=True)
class Cell:
    """One cell of a panel: its text, and whether it is bold."""

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
    """A table with title: tidy ``data`` with full precision, and ``panels`` for readers."""

    title: str
    caption: str
    data: pd.DataFrame
    panels: tuple[Panel, ...]


def empty_table(title: str, reason: str, data: pd.DataFrame) -> Table:
    """Return a table whose caption says why it is empty, so that the other tables still appear."""
    return Table(title, f"No results: {reason}.", data, ())


def order_rows(
    frame: pd.DataFrame, methods: Iterable[str], noises: Mapping[str, str], *last: str
) -> pd.DataFrame:
    """Sort by dataset, noise level, method, n_annotated, metric and then ``last``.

    Methods and noise levels become categories in the given order, followed by all others. The
    values of ``noises`` become the column ``noise_parameters``.
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
    """Return a panel: ``cells`` (one per row of ``frame``) arranged by ``rows`` and ``column``."""
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
    """Return ``0.634 ± 0.021`` (two decimals for dB), without ± if there is no error bar."""
    if math.isnan(mean):
        return ""
    return format_number(mean, metric) + (
        "" if math.isnan(sem) else f" ± {format_number(sem, metric)}"
    )


def format_number(value: float, metric: str, sign: str = "") -> str:
    """Return ``value`` with the decimals of its metric; ``sign="+"`` adds a plus sign."""
    return f"{value:{sign}z.{decimals(metric)}f}".replace("-", "\N{MINUS SIGN}")


def decimals(metric: str) -> int:
    """Return the number of decimals of a metric: 2 for dB, 3 otherwise."""
    return 2 if metric.startswith("PSNR") else 3


def definitions(metrics: Iterable[str]) -> str:
    """Return the definitions of metrics as sentences."""
    return " ".join(f"{DEFINITIONS[metric]}." for metric in metrics)


def noise_levels(noises: Mapping[str, str]) -> str:
    """Return a sentence with the parameters of every noise level."""
    return f"Noise levels: {'; '.join(f'{name} is {text}' for name, text in noises.items())}."


def error_bar(data: pd.DataFrame) -> str:
    """Return the sentence that explains ±, from the numbers of seeds and files in ``data``."""
    alike = (data["n_images"] > data["n_sources"]).any()
    images = "the images of each file, then over the files" if alike else "the images"
    if data["n_seeds"].max() < 2:
        return f"Mean over {images} of a single seed, without error bar."
    return (
        f"Mean over {images}, then over seeds, ± standard error of the mean over seeds "
        f"({seed_range(data)}; no ± with a single seed)."
    )


def seed_range(data: pd.DataFrame) -> str:
    """Return ``n = 3 seeds`` or ``n = 1 to 3 seeds``."""
    low, high = int(data["n_seeds"].min()), int(data["n_seeds"].max())
    return f"n = {low} to {high} seeds" if low < high else f"n = {high} seed{'s' * (high > 1)}"
