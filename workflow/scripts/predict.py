"""Join the tables of all new images, and report the images that failed."""

from pathlib import Path

from denoiseg_flow import findings
from denoiseg_flow.data.folders import about_files, find_images
from denoiseg_flow.deployment.chunks import divide
from denoiseg_flow.deployment.object_tables import join_results, refuse_failures
from denoiseg_flow.deployment.output_folder import at_work
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        finished = Path(snakemake.output.finished)
        images = find_images([snakemake.input.images])
        findings.log(about_files([snakemake.input.images]), "predict")
        with at_work(finished.parent):
            failed = join_results(images, finished.parent)
        # Snakemake considers a chunk finished as long as its file exists. Remove the files of
        # chunks with failed images: the next run tries them again.
        chunks = [Path(chunk) for chunk in snakemake.input.chunks]
        to_repeat = divide(failed, int(chunks[0].parent.name))
        for chunk in chunks:
            if int(chunk.stem) in to_repeat:
                chunk.unlink()
        refuse_failures(failed, len(images), finished.parent)
        finished.touch()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
