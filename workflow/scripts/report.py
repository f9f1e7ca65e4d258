"""Write the report."""

from pathlib import Path

from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.reporting.page import build_report
from denoiseg_flow.reporting.study_report import SettingFiles, SuggestionFiles, gather_report
from denoiseg_flow.study.grid import Grid


def main(snakemake):
    with job_log(snakemake.log[0]):
        inputs, params = snakemake.input, snakemake.params
        grid = Grid(snakemake.config)
        report = gather_report(
            grid,
            params.study,
            params.title,
            params.notes,
            metrics=Path(inputs.metrics),
            benchmarks=Path(inputs.costs).parent,
            published=(inputs.get("published"), inputs.get("published_denoisers")),
            figures=[Path(path) for path in inputs.figures],
            settings=settings(grid, inputs),
            suggestions=suggestions(grid, inputs),
        )
        Path(snakemake.output[0]).write_text(build_report(report), encoding="utf-8")


def settings(grid, inputs):
    """Return the files of every combination of dataset and noise level."""
    names = ("prepared", "noisy", "checks", "findings", "images", "residuals", "diagnostics")
    predictions = map(Path, inputs.predictions)
    return [
        SettingFiles(
            **setting,
            **dict(zip(names, map(Path, paths), strict=True)),
            predictions={run: next(predictions) for run in grid.examined(**setting)},
        )
        for setting, *paths in zip(grid.settings, *map(inputs.get, names), strict=True)
    ]


def suggestions(grid, inputs):
    """Return the files of suggestions, for datasets with class probabilities."""
    settings = (setting for setting in grid.settings if grid.predicts_probabilities(**setting))
    return [
        SuggestionFiles(**setting, images=Path(table), figure=Path(figure))
        for setting, table, figure in zip(
            settings, inputs.suggestions, inputs.thumbnails, strict=True
        )
    ]


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
