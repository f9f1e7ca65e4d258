"""Combine the metrics of all runs into the comparison tables."""

from pathlib import Path

from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.reporting.tables.comparison import write_comparison


def main(snakemake):
    with job_log(snakemake.log[0]):
        folder = Path(snakemake.output.metrics).parent
        write_comparison(
            snakemake.input.metrics,
            folder,
            snakemake.params.study,
            snakemake.input.get("published"),
            snakemake.input.get("published_denoisers"),
        )
        checksums.write(folder)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
