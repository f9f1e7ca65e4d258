"""Write the report."""

from pathlib import Path

import pandas as pd

from denoiseg_flow import findings
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.reporting.figures.examples import Example, rank_images, scores_of_images
from denoiseg_flow.reporting.page import (
    ReportAdvice,
    ReportData,
    ReportFigure,
    ReportTable,
    ReportTrust,
    build_report,
    software_versions,
)
from denoiseg_flow.reporting.tables.comparison import comparison_tables
from denoiseg_flow.reporting.tables.costs import benchmark_records, costs_table
from denoiseg_flow.reporting.tables.statistics import read_metrics_csv
from denoiseg_flow.reporting.tables.verdicts import best_methods, best_run, label_gains, recommend
from denoiseg_flow.study.grid import PURPOSES, Grid


def main(snakemake):
    with job_log(snakemake.log[0]):
        inputs, params = snakemake.input, snakemake.params
        grid = Grid(snakemake.config)
        metrics = read_metrics_csv(inputs.metrics)
        published = inputs.get("published"), inputs.get("published_denoisers")
        tables = comparison_tables(metrics, params.study, *published)
        records = benchmark_records(grid.runs, Path(inputs.costs).parent)
        settings = examined(grid, metrics, params.settings, inputs.predictions)
        report = ReportData(
            title=params.title,
            study=grid.summary,
            config=snakemake.config,
            verdicts=best_methods(metrics, params.study["untrained"]),
            gains=label_gains(metrics),
            recommendations=recommend(metrics, params.study["untrained"]),
            trust=trust(inputs, settings),
            advice=advice(inputs, params.segmented),
            tables=[ReportTable.of(table) for table in tables.values()],
            figures=[ReportFigure.of_file(Path(path)) for path in inputs.figures],
            comparisons=[
                slider
                for setting, *folders in zip(settings, inputs.prepared, inputs.noisy, strict=True)
                for slider in sliders(metrics, setting, *map(Path, folders))
            ],
            run_times=ReportTable.of(costs_table(records)),
            software=software_versions(),
            notes=params.notes,
        )
        Path(snakemake.output[0]).write_text(build_report(report), encoding="utf-8")


def examined(grid, metrics, settings, predictions):
    """What was examined of each dataset and noise level: a run for each purpose, or none."""
    folders = iter(predictions)
    found = []
    for setting in settings:
        place = {run: next(folders) for run in grid.examined(**setting)}
        best = {
            purpose: best_run(metrics, grid.candidates(**setting, purpose=purpose), purpose)
            for purpose in PURPOSES
        }
        found.append((setting, best, place))
    return found


def trust(inputs, settings):
    """What was found out about the data and about the results that came out best."""
    files = (inputs.checks, inputs.trust, inputs.images, inputs.residuals, inputs.diagnostics)
    return [
        ReportTrust(
            **setting,
            **best,
            checks=findings.worst(findings.read(Path(checks))),
            findings=findings.read(Path(found)),
            images=pd.read_csv(images, dtype={"image": str}),
            figures=[ReportFigure.of_file(Path(path)) for path in figures],
        )
        for (setting, best, _), checks, found, images, *figures in zip(
            settings, *files, strict=True
        )
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


def sliders(metrics, examined, prepared, noisy):
    """The worst, the median and the best test image of each run that was examined.

    Where nothing can be scored, three of them, none of which is called better than another.
    """
    _, best, place = examined
    for run in dict.fromkeys(run for run in best.values() if run):
        predictions = Path(place[run])
        scores = scores_of_images(metrics, [run])
        ranked = rank_images(scores, predictions)
        words = ["worst image", "median image", "best image"] if len(scores) else ["image"] * 3
        for word, number in zip(words, (0, len(ranked) // 2, -1), strict=True):
            image = ranked[number]
            name = f"{run.dataset}, {run.noise}, {run.method}: {word} {image}"
            yield Example.load(name, image, prepared, noisy, predictions)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
