"""Download and unpack the archive of a dataset."""

from pathlib import Path

from denoiseg_flow.data.download import download, unpack
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        archive = Path(snakemake.output.archive)
        stored = snakemake.input.get("stored")
        download(snakemake.params.url, archive, snakemake.params.sha256, stored)
        unpack(archive, Path(snakemake.output.raw))
        checksums.write(snakemake.output.raw)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
