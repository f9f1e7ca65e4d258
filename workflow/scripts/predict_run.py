"""Predict the images of a dataset with the model of one run."""

from pathlib import Path

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import Predictions
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.devices import select_device
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.models.predict_run import predict_folder, self_supervised_losses


def main(snakemake):
    with job_log(snakemake.log[0]):
        params = snakemake.params
        device = select_device(params.device, snakemake.threads, snakemake.resources)
        model = load_model(Path(snakemake.input.model), device)
        images, folder = Path(snakemake.input.images), Path(snakemake.output.predictions)
        split = manifest.read(Path(snakemake.input.split))

        def names(subsets):
            return split.loc[split["subset"].isin(subsets), "image"]

        predict_folder(
            model, images, names(params.subsets), folder, params.save_probabilities, params.tile
        )
        if params.judged:
            losses = self_supervised_losses(model, images, names(params.judged))
            manifest.write(losses, Predictions(folder).losses_file)
        checksums.write(folder)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
