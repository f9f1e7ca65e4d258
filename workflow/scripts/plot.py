"""Draw one figure of one dataset."""

from pathlib import Path

import pandas as pd

from denoiseg_flow.figures import curves
from denoiseg_flow.logs import job_log
from denoiseg_flow.tables.statistics import read_metrics_csv


def main(snakemake):
    with job_log(snakemake.log[0]):
        params = snakemake.params
        metrics = read_metrics_csv(snakemake.input.metrics)
        metrics = metrics[metrics["dataset"] == snakemake.wildcards.dataset]
        match snakemake.wildcards.figure:
            case "label_curves":
                figure = curves.label_curves(metrics, params.methods, params.noises)
            case "denoising_levels":
                figure = curves.denoising_levels(metrics, params.methods, params.noises)
            case "training_curves":
                histories = (pd.read_csv(path, sep="\t") for path in snakemake.input.histories)
                figure = curves.training_curves(pd.concat(histories), params.methods)
        curves.save(figure, Path(snakemake.output.svg).with_suffix(""))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
