"""Simulate the images of a dataset."""

from pathlib import Path

from denoiseg_flow.datasets import simulate
from denoiseg_flow.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        simulate(snakemake.params.dataset, Path(snakemake.output.raw))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
