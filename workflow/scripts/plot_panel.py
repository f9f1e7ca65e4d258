"""Draw the predictions of all methods for the test image with the median score."""

from pathlib import Path

from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.reporting.figures import curves
from denoiseg_flow.reporting.figures.examples import Example, rank_images, scores_of_images
from denoiseg_flow.reporting.figures.panels import qualitative_panel
from denoiseg_flow.reporting.tables.statistics import read_metrics_csv
from denoiseg_flow.study.grid import Run


def main(snakemake):
    with job_log(snakemake.log[0]):
        runs = [Run(**axes) for axes in snakemake.params.runs]
        predictions = [Predictions(Path(folder)) for folder in snakemake.input.predictions]
        metrics = read_metrics_csv(snakemake.input.metrics)
        ranked = rank_images(scores_of_images(metrics, runs), predictions[0])
        image = ranked[len(ranked) // 2]
        prepared = PreparedData(Path(snakemake.input.prepared))
        noisy = Path(snakemake.input.noisy)
        rows = [
            Example.load(run.method, image, prepared, noisy, predicted)
            for run, predicted in zip(runs, predictions, strict=True)
        ]
        curves.save(qualitative_panel(rows), Path(snakemake.output[0]).with_suffix(""))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
