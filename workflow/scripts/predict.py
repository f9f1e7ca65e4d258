"""Predict the images of one run."""

from pathlib import Path

from denoiseg_flow.data import manifest
from denoiseg_flow.devices import select_device
from denoiseg_flow.logs import job_log
from denoiseg_flow.models import load_model
from denoiseg_flow.prediction import predict_folder


def main(snakemake):
    with job_log(snakemake.log[0]):
        device = select_device(snakemake.params.device, snakemake.threads)
        split = manifest.read(Path(snakemake.input.split))
        predict_folder(
            model=load_model(Path(snakemake.input.model), device),
            images=Path(snakemake.input.images),
            names=split.loc[split["subset"].isin(snakemake.params.subsets), "image"],
            folder=Path(snakemake.output.predictions),
            save_probabilities=snakemake.params.save_probabilities,
        )


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
