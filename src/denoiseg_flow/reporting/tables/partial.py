"""Comparison tables of the finished runs of an unfinished study."""

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
    """Write the tables of the finished runs, marked as partial; they replace earlier ones.

    Parameters
    ----------
    metrics
        The metrics files of the finished runs.
    n_runs
        Number of runs of the whole study.
    study, published, published_denoisers
        See :func:`~denoiseg_flow.reporting.tables.comparison.comparison_tables`.
    folder
        Output folder; it appears once all tables are written.

    Raises
    ------
    InputError
        If no run is finished, or a file is unreadable; earlier tables are removed in both cases.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if not metrics:
        raise InputError(
            f"no partial tables: none of the {n_runs:,} runs of this study is finished; run "
            "`snakemake --cores all` until the first runs are finished"
        )
    mark = partial(_marked, share=f"{len(metrics):,} of {n_runs:,} runs")
    with new_folder(folder) as unfinished:
        write_comparison(metrics, unfinished, study, published, published_denoisers, mark)


def _marked(table: Table, share: str) -> Table:
    """Return a table that states in every format which share of the runs it includes."""
    return replace(
        table,
        title=f"{table.title} (partial: {share})",
        caption=f"Partial: {share}. {table.caption}",
        data=table.data.assign(partial=share),
    )
