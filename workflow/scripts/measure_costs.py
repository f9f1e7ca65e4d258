"""Summarise the benchmark files of all runs."""

from pathlib import Path

from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.reporting.tables.costs import benchmark_records, costs_table
from denoiseg_flow.reporting.tables.files import write_table
from denoiseg_flow.study.grid import Grid


def main(snakemake):
    with job_log(snakemake.log[0]):
        # The benchmark files of the runs are in the folder of the table.
        folder = Path(snakemake.output[0]).parent
        records = benchmark_records(Grid(snakemake.config).runs, folder)
        write_table(costs_table(records), folder / "costs")


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
