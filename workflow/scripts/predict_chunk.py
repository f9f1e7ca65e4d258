"""Predict one chunk of new images with a trained model."""

from pathlib import Path

from denoiseg_flow.data.files.regions import Reading
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.deployment.chunks import divide
from denoiseg_flow.deployment.predict_images import predict_images
from denoiseg_flow.deployment.scaling import Scaling
from denoiseg_flow.jobs.devices import select_device
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        params = snakemake.params
        finished = Path(snakemake.output.finished)
        device = select_device(params.device, snakemake.threads, snakemake.resources)
        chunks = divide(find_images([snakemake.input.images]), int(snakemake.wildcards.chunks))
        asked = dict(params.reading)
        reading = Reading.of(asked | {"dimensions": 2 if asked["planes"] else None})
        predict_images(
            Path(snakemake.input.model),
            chunks.get(int(snakemake.wildcards.chunk), {}),
            finished.parents[2],
            device,
            reading,
            Scaling.of(**params.scaling),
            params.format,
            params.tile,
            chunk=True,
        )
        finished.touch()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
