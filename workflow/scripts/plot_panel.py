"""Show the results of all methods on the test image that is predicted neither well nor badly."""

from pathlib import Path

from denoiseg_flow.figures import curves
from denoiseg_flow.figures.examples import Example, rank_images
from denoiseg_flow.figures.panels import PanelRow, qualitative_panel
from denoiseg_flow.grid import Run
from denoiseg_flow.logs import job_log
from denoiseg_flow.tables.statistics import read_metrics_csv


def main(snakemake):
    with job_log(snakemake.log[0]):
        runs = [Run(**axes) for axes in snakemake.params.runs]
        ranked = rank_images(
            read_metrics_csv(snakemake.input.metrics), runs, Path(snakemake.input.predictions[0])
        )
        image = ranked[len(ranked) // 2]
        rows = []
        for run, predictions in zip(runs, snakemake.input.predictions, strict=True):
            example = Example.load(
                image,
                Path(snakemake.input.prepared),
                Path(snakemake.input.noisy),
                Path(predictions),
            )
            rows.append(
                PanelRow(run.method, example.noisy, example.denoised, example.labels, example.truth)
            )
        curves.save(qualitative_panel(rows), Path(snakemake.output.svg).with_suffix(""))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
