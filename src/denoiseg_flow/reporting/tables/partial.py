"""The comparison tables of a study of which only some runs are finished."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.atomic import new_folder
from denoiseg_flow.reporting.tables.comparison import write_comparison
from denoiseg_flow.reporting.tables.layout import Table


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
        See :func:`~denoiseg_flow.reporting.tables.comparison.comparison_tables`.
    folder
        To write; replaced if it exists, and only once all tables are made.

    Raises
    ------
    InputError
        If no run is finished, or a file cannot be read; tables of an earlier time are removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if not metrics:
        raise InputError(
            f"none of the {n_runs:,} runs of this study is finished, so that there is nothing to "
            "tabulate: run `snakemake --cores all` for a while first"
        )
    mark = partial(_marked, share=f"{len(metrics):,} of {n_runs:,} runs")
    with new_folder(folder) as unfinished:
        write_comparison(metrics, unfinished, study, published, published_denoisers, mark)


def _marked(table: Table, share: str) -> Table:
    """Return a table that says in every format which share of the runs it is made of."""
    return replace(
        table,
        title=f"{table.title} (partial: {share})",
        caption=f"Partial: {share}. {table.caption}",
        data=table.data.assign(partial=share),
    )
