"""Add noise of one level to all images of a dataset."""

from pathlib import Path

from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.noise import add_noise_to_folder
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        add_noise_to_folder(
            prepared=PreparedData(Path(snakemake.input.prepared)),
            level=snakemake.params.level,
            name=snakemake.wildcards.noise,
            folder=Path(snakemake.output.noisy),
        )


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
