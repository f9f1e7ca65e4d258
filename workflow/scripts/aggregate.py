"""Gather the metrics of all runs into the comparison tables."""

from pathlib import Path

from denoiseg_flow.data import checksums
from denoiseg_flow.logs import job_log
from denoiseg_flow.tables.comparison import comparison_tables
from denoiseg_flow.tables.files import write_table
from denoiseg_flow.tables.statistics import read_metrics, write_metrics_csv


def main(snakemake):
    with job_log(snakemake.log[0]):
        metrics = read_metrics(snakemake.input.metrics)
        write_metrics_csv(metrics, Path(snakemake.output.metrics))
        tables = comparison_tables(
            metrics,
            snakemake.params.study,
            snakemake.input.get("published"),
            snakemake.input.get("published_denoisers"),
        )
        for name, table in tables.items():
            write_table(table, Path(snakemake.output.metrics).with_name(name))
        checksums.write(Path(snakemake.output.metrics).parent)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
