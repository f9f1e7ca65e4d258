"""Write the report."""

from pathlib import Path

from denoiseg_flow.figures.examples import Example, rank_images
from denoiseg_flow.grid import Grid, Run
from denoiseg_flow.logs import job_log
from denoiseg_flow.report import (
    ReportData,
    ReportFigure,
    ReportTable,
    build_report,
    software_versions,
)
from denoiseg_flow.tables.comparison import BOOTSTRAP_SEED, comparison_tables
from denoiseg_flow.tables.costs import benchmark_records, costs_table
from denoiseg_flow.tables.statistics import read_metrics_csv
from denoiseg_flow.tables.verdicts import best_methods, label_gains


def main(snakemake):
    with job_log(snakemake.log[0]):
        inputs, params = snakemake.input, snakemake.params
        grid = Grid(snakemake.config)
        metrics = read_metrics_csv(inputs.metrics)
        published = inputs.get("published"), inputs.get("published_denoisers")
        tables = comparison_tables(metrics, params.study, *published)
        records = benchmark_records(grid.runs, Path(inputs.costs).parent)
        report = ReportData(
            title=params.title,
            study=grid.summary,
            config=snakemake.config,
            verdicts=best_methods(metrics, BOOTSTRAP_SEED),
            gains=label_gains(metrics, BOOTSTRAP_SEED),
            tables=[ReportTable.of(table) for table in tables.values()],
            figures=[ReportFigure.of_file(Path(path)) for path in inputs.figures],
            comparisons=[
                slider
                for axes, *folders in zip(
                    params.runs, inputs.prepared, inputs.noisy, inputs.predictions, strict=True
                )
                for slider in sliders(metrics, Run(**axes), *map(Path, folders))
            ],
            run_times=ReportTable.of(costs_table(records)),
            software=software_versions(),
            notes=params.notes,
        )
        Path(snakemake.output[0]).write_text(build_report(report), encoding="utf-8")


def sliders(metrics, run, prepared, noisy, predictions):
    """The best, the median and the worst test image of a run."""
    ranked = rank_images(metrics, [run], predictions)
    for word, place in [("best", -1), ("median", len(ranked) // 2), ("worst", 0)]:
        image = ranked[place]
        name = f"{run.dataset}, {run.noise}, {run.method}: {word} image, {image}"
        yield Example.load(name, image, prepared, noisy, predictions)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
