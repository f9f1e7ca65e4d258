"""All comparison tables of a study."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from denoiseg_flow.reporting.tables.files import write_table
from denoiseg_flow.reporting.tables.layout import Table
from denoiseg_flow.reporting.tables.papers import paper_table
from denoiseg_flow.reporting.tables.published import published_table
from denoiseg_flow.reporting.tables.quality import (
    denoising_table,
    paired_table,
    segmentation_table,
    self_supervision_table,
)
from denoiseg_flow.reporting.tables.statistics import read_metrics, write_metrics_csv


def comparison_tables(
    metrics: pd.DataFrame,
    study: Mapping[str, Any],
    published: Path | None = None,
    published_denoisers: Path | None = None,
) -> dict[str, Table]:
    """Return the tables that a study asks for, by name.

    Parameters
    ----------
    metrics
        Tidy metrics of all runs.
    study
        See :attr:`denoiseg_flow.study.grid.Grid.comparison`.
    published, published_denoisers
        The csv files with published numbers, if the study compares with them: of the DenoiSeg
        paper, and of the papers on denoising.
    """
    order = {"methods": study["methods"], "noises": study["noises"]}
    names = study["published_datasets"], study["published_methods"]
    make = {
        "segmentation": lambda: segmentation_table(metrics, **order),
        "denoising": lambda: denoising_table(metrics, study["noise_sigmas"], **order),
        "self_supervision": lambda: self_supervision_table(metrics, **order),
        "paired": lambda: paired_table(metrics, study["reference"], study["untrained"], **order),
        "paper": lambda: paper_table(
            metrics, study["paper"], pd.read_csv(published_denoisers), *names, **order
        ),
        "published": lambda: published_table(metrics, pd.read_csv(published), *names, **order),
    }
    tables = {name: make[name]() for name in study["tables"]}
    return {name: _naming_groups(table, study["grouped"]) for name, table in tables.items()}


def _naming_groups(table: Table, grouped: Sequence[str]) -> Table:
    """Return a table that says of which datasets the values are over groups."""
    shown = [name for name in grouped if name in set(table.data.get("dataset", ()))]
    if not shown:
        return table
    note = (
        f"In {', '.join(shown)}, groups of images take the place of files: means and intervals are "
        "over groups."
    )
    return replace(table, caption=f"{table.caption} {note}")


def write_comparison(
    metrics: Iterable[Path],
    folder: Path,
    study: Mapping[str, Any],
    published: Path | None = None,
    published_denoisers: Path | None = None,
    mark: Callable[[Table], Table] = lambda table: table,
) -> None:
    """Write ``metrics.csv``, the scores of all runs, and all comparison tables into a folder.

    Parameters
    ----------
    metrics
        The ``metrics.tsv`` of each run.
    folder
        An existing folder; files with the same names are replaced.
    study, published, published_denoisers
        See :func:`comparison_tables`.
    mark
        Function that changes each table before it is written.

    Raises
    ------
    InputError
        As :func:`read_metrics`.
    """
    frame = read_metrics(metrics)
    write_metrics_csv(frame, folder / "metrics.csv")
    tables = comparison_tables(frame, study, published, published_denoisers)
    for name, table in tables.items():
        write_table(mark(table), folder / name)
