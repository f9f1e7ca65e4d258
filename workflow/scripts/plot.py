"""Draw one figure of one dataset."""

from pathlib import Path

import pandas as pd

from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.methods.initial_model import read_description
from denoiseg_flow.reporting.figures import curves
from denoiseg_flow.reporting.figures.calibration import calibration_curves
from denoiseg_flow.reporting.figures.precision import precision_curves
from denoiseg_flow.reporting.tables.statistics import read_metrics_csv


def main(snakemake):
    with job_log(snakemake.log[0]):
        params = snakemake.params
        metrics = read_metrics_csv(snakemake.input.metrics)
        names = [snakemake.wildcards.dataset]
        if snakemake.wildcards.figure == "training_sizes":
            names = list(params.sizes)
        metrics = metrics[metrics["dataset"].isin(names)]
        match snakemake.wildcards.figure:
            case "label_curves":
                figure = curves.label_curves(metrics, params.methods, params.noises)
            case "denoising_levels":
                figure = curves.denoising_levels(metrics, params.methods, params.noises)
            case "training_curves":
                figure = curves.training_curves(read_histories(snakemake), params.methods)
            case "training_sizes":
                figure = curves.size_curves(metrics, params.sizes, params.methods, params.noises)
            case "calibration":
                figure = calibration_curves(
                    read_histories(snakemake), params.methods, params.noises, params.denoisers
                )
            case "precision":
                stored = (Path(path).read_bytes() for path in snakemake.input.models)
                figure = precision_curves(
                    map(read_description, stored), params.methods, params.noises
                )
        curves.save(figure, Path(snakemake.output[0]).with_suffix(""))


def read_histories(snakemake):
    """Return the histories of all runs of the dataset; runs without training have no rows."""
    for path in snakemake.input.histories:
        checksums.verify(path)
    histories = [pd.read_csv(path, sep="\t") for path in snakemake.input.histories]
    return pd.concat([history for history in histories if len(history)] or histories)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
