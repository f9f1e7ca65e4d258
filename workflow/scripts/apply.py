"""Join the tables of all new images, and say which could not be predicted."""

from pathlib import Path

from denoiseg_flow.applied_tables import join_results
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        finished = Path(snakemake.output.finished)
        # Snakemake takes a chunk for done as long as this file is there: the next run is to try
        # again where an image failed.
        for chunk in map(Path, snakemake.input.chunks):
            if chunk.stat().st_size:
                chunk.unlink()
        join_results(find_images([snakemake.input.images]), finished.parent)
        finished.touch()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
