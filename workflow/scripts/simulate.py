"""Simulate the images of a dataset."""

from pathlib import Path

from denoiseg_flow.data.simulated import simulator
from denoiseg_flow.data.sources import simulator_options
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        raw = Path(snakemake.output.raw)
        simulator.write(raw, **simulator_options(snakemake.params.dataset))
        checksums.write(raw)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
