"""Write the report."""

from pathlib import Path

import pandas as pd

from denoiseg_flow import findings
from denoiseg_flow.figures.examples import Example, rank_images
from denoiseg_flow.grid import Grid, Run
from denoiseg_flow.logs import job_log
from denoiseg_flow.report import (
    ReportAdvice,
    ReportData,
    ReportFigure,
    ReportTable,
    ReportTrust,
    build_report,
    software_versions,
)
from denoiseg_flow.tables.comparison import comparison_tables
from denoiseg_flow.tables.costs import benchmark_records, costs_table
from denoiseg_flow.tables.statistics import read_metrics_csv
from denoiseg_flow.tables.verdicts import best_methods, label_gains, recommend


def main(snakemake):
    with job_log(snakemake.log[0]):
        inputs, params = snakemake.input, snakemake.params
        grid = Grid(snakemake.config)
        metrics = read_metrics_csv(inputs.metrics)
        published = inputs.get("published"), inputs.get("published_denoisers")
        tables = comparison_tables(metrics, params.study, *published)
        records = benchmark_records(grid.runs, Path(inputs.costs).parent)
        runs = [Run(**axes) for axes in params.runs]
        report = ReportData(
            title=params.title,
            study=grid.summary,
            config=snakemake.config,
            verdicts=best_methods(metrics, params.study["untrained"]),
            gains=label_gains(metrics),
            recommendations=recommend(metrics, params.study["untrained"]),
            trust=trust(inputs, runs),
            advice=advice(inputs, params.segmented),
            tables=[ReportTable.of(table) for table in tables.values()],
            figures=[ReportFigure.of_file(Path(path)) for path in inputs.figures],
            comparisons=[
                slider
                for run, *folders in zip(
                    runs, inputs.prepared, inputs.noisy, inputs.predictions, strict=True
                )
                for slider in sliders(metrics, run, *map(Path, folders))
            ],
            run_times=ReportTable.of(costs_table(records)),
            software=software_versions(),
            notes=params.notes,
        )
        Path(snakemake.output[0]).write_text(build_report(report), encoding="utf-8")


def trust(inputs, runs):
    """What was found out about the data and about the results of the runs that are shown."""
    files = (inputs.checks, inputs.trust, inputs.images, inputs.residuals, inputs.diagnostics)
    return [
        ReportTrust(
            run,
            checks=findings.worst(findings.read(Path(checks))),
            findings=findings.read(Path(found)),
            images=pd.read_csv(images, dtype={"image": str}),
            figures=[ReportFigure.of_file(Path(path)) for path in figures],
        )
        for run, checks, found, images, *figures in zip(runs, *files, strict=True)
    ]


def advice(inputs, settings):
    """Which images to annotate next."""
    return [
        ReportAdvice(
            **setting,
            images=pd.read_csv(path, dtype={"image": str}),
            figure=ReportFigure.of_file(Path(figure)),
        )
        for setting, path, figure in zip(
            settings, inputs.suggestions, inputs.thumbnails, strict=True
        )
    ]


def sliders(metrics, run, prepared, noisy, predictions):
    """The worst, the median and the best test image of a run."""
    ranked = rank_images(metrics, [run], predictions)
    for word, place in [("worst", 0), ("median", len(ranked) // 2), ("best", -1)]:
        image = ranked[place]
        name = f"{run.dataset}, {run.noise}, {run.method}: {word} image, {image}"
        yield Example.load(name, image, prepared, noisy, predictions)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
