"""Add the noise of one level to all images of a dataset."""

from pathlib import Path

from denoiseg_flow.data import manifest
from denoiseg_flow.data.noise import add_noise_to_folder
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        prepared = Path(snakemake.input.prepared)
        add_noise_to_folder(
            prepared=prepared,
            manifest=manifest.read(prepared / "manifest.tsv"),
            level=snakemake.params.level,
            name=snakemake.wildcards.noise,
            out=Path(snakemake.output.noisy),
        )


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
