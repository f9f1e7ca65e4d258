"""Use a trained model on new images."""

from pathlib import Path

from denoiseg_flow.application import apply_model
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.data.stacks import Reading
from denoiseg_flow.devices import select_device
from denoiseg_flow.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        params = snakemake.params
        device = select_device(params.device, snakemake.threads, snakemake.resources)
        images = find_images([snakemake.input.images])
        finished = Path(snakemake.output.finished)
        asked = dict(params.reading)
        reading = Reading.of(asked | {"dimensions": 2 if asked["planes"] else None})
        apply_model(
            Path(snakemake.input.model),
            images,
            finished.parent,
            device,
            reading,
            params.format,
            params.tile,
        )
        finished.touch()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
