"""Run time and memory by rule and method, from Snakemake's benchmark files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from denoiseg_flow.reporting.captions import TABLES
from denoiseg_flow.reporting.tables.layout import Cell, Panel, Table, empty_table
from denoiseg_flow.study.benchmarks import read_benchmark
from denoiseg_flow.study.grid import Run

logger = logging.getLogger(__name__)


def benchmark_records(runs: Iterable[Run], folder: Path) -> list[dict[str, str | Path]]:
    """Return one record per job of the runs, the input of :func:`costs_table`.

    Parameters
    ----------
    folder
        The workflow's ``<benchmarks>``.
    """
    return [
        {
            "rule": rule,
            "method": run.method,
            "path": folder / rule / f"{run.folder}.tsv",
        }
        for rule in ("train", "predict_run")
        for run in runs
    ]


def costs_table(records: Iterable[Mapping[str, str | Path]]) -> Table:
    """Summarise run time and peak memory by rule and method.

    Parameters
    ----------
    records
        One mapping per job with ``rule``, ``path`` (its benchmark file) and, if the rule has one,
        ``method``. Rules and methods are shown in the order of first appearance. A file with
        repeats counts as one job with their mean.

    Returns
    -------
    Table
        Columns rule, method, n_jobs, total_hours, median_seconds, max_memory_mib (peak resident
        memory of the process tree; NaN if the jobs were too short for Snakemake to measure it).
        Jobs with a missing or damaged file are left out, and the caption gives their number: a
        training is not worth repeating for its benchmark.
    """
    rows, lost = [], []
    for record in records:
        if measured := read_benchmark(record["path"]):
            rows.append((record["rule"], record.get("method") or "", *measured))
        else:
            lost.append(record["path"])
    note = ""
    if lost:
        note = (
            f" {len(lost)} of {len(lost) + len(rows)} jobs are not included: their benchmark files "
            "are missing or damaged."
        )
        logger.warning("%d benchmark files are missing or damaged, such as %s", len(lost), lost[0])
    jobs = pd.DataFrame(rows, columns=["rule", "method", "seconds", "memory"])
    for column in ("rule", "method"):
        jobs[column] = pd.Categorical(jobs[column], list(dict.fromkeys(jobs[column])), ordered=True)
    data = (
        jobs.groupby(["rule", "method"], observed=True, sort=True)
        .agg(
            n_jobs=("seconds", "size"),
            total_hours=("seconds", lambda seconds: seconds.sum() / 3600),
            median_seconds=("seconds", "median"),
            max_memory_mib=("memory", "max"),
        )
        .reset_index()
    )
    title, caption = TABLES["costs"]
    if not rows:
        return empty_table(title, "all benchmark files are missing or damaged", data)
    panel = Panel(
        "Costs per rule and method",
        ("rule", "method"),
        ("jobs", "total (h)", "median (s)", "peak memory (MiB)"),
        tuple(
            (
                (row.rule, row.method or "\N{EN DASH}"),
                (
                    Cell(str(row.n_jobs)),
                    Cell(f"{row.total_hours:.2f}"),
                    Cell(f"{row.median_seconds:.1f}"),
                    Cell("" if pd.isna(row.max_memory_mib) else f"{row.max_memory_mib:.0f}"),
                ),
            )
            for row in data.itertuples()
        ),
    )
    return Table(
        title,
        caption.format(lost=note),
        data,
        (panel,),
    )
