"""Simulate the images of a dataset."""

from pathlib import Path

from denoiseg_flow.data import checksums, simulator
from denoiseg_flow.data.datasets import simulator_options
from denoiseg_flow.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        raw = Path(snakemake.output.raw)
        simulator.write(raw, **simulator_options(snakemake.params.dataset))
        checksums.write(raw)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
