"""The comparison tables of a study of which only some runs are finished."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from denoiseg_flow.errors import InputError
from denoiseg_flow.tables.comparison import comparison_tables
from denoiseg_flow.tables.files import write_table
from denoiseg_flow.tables.layout import Table
from denoiseg_flow.tables.statistics import read_metrics, write_metrics_csv


def write_partial_tables(
    metrics: Sequence[Path],
    n_runs: int,
    study: Mapping[str, Any],
    folder: Path,
    published: Path | None = None,
    published_denoisers: Path | None = None,
) -> None:
    """Write the tables of the finished runs, each marked as partial, in place of earlier ones.

    Parameters
    ----------
    metrics
        Files of the finished runs.
    n_runs
        Of the whole study.
    study, published, published_denoisers
        See :func:`comparison_tables`.
    folder
        To write; replaced if it exists, and only once all tables are made.

    Raises
    ------
    InputError
        If no run is finished, or a file cannot be read; tables of an earlier time are removed.
    """
    unfinished = folder.with_name(f".{folder.name}.partial")
    for old in (folder, unfinished):
        shutil.rmtree(old, ignore_errors=True)
    if not metrics:
        raise InputError(
            f"none of the {n_runs:,} runs of this study is finished, so that there is nothing to "
            "tabulate: run `snakemake --cores all` for a while first"
        )
    try:
        unfinished.mkdir(parents=True)
        frame = read_metrics(metrics)
        write_metrics_csv(frame, unfinished / "metrics.csv")
        tables = comparison_tables(frame, study, published, published_denoisers)
        for name, table in tables.items():
            write_table(_marked(table, f"{len(metrics):,} of {n_runs:,} runs"), unfinished / name)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _marked(table: Table, share: str) -> Table:
    """Return a table that says in every format which share of the runs it is made of."""
    return replace(
        table,
        title=f"{table.title} (partial: {share})",
        caption=f"Partial: {share}. {table.caption}",
        data=table.data.assign(partial=share),
    )
