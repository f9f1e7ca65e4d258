"""Collect the contents of the report from the files of a study."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from denoiseg_flow import findings
from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.reporting.figures.examples import Example, rank_images, scores_of_images
from denoiseg_flow.reporting.image_scores import PICTURES, ImageScores
from denoiseg_flow.reporting.page import (
    ReportAdvice,
    ReportData,
    ReportFigure,
    ReportTable,
    ReportTrust,
    software_versions,
)
from denoiseg_flow.reporting.pictures import thumbnail_uri
from denoiseg_flow.reporting.tables.comparison import comparison_tables
from denoiseg_flow.reporting.tables.costs import benchmark_records, costs_table
from denoiseg_flow.reporting.tables.statistics import read_metrics_csv
from denoiseg_flow.reporting.tables.verdicts import (
    annotation_gains,
    best_methods,
    best_run,
    recommend,
)
from denoiseg_flow.study.contents import origin_of_labels, summary
from denoiseg_flow.study.grid import LABELS, PURPOSES, Grid, Run


@dataclass(frozen=True)
class SettingFiles:
    """The files of one dataset with one noise level.

    Attributes
    ----------
    prepared, noisy
        Folders of the dataset, and of its noisy images.
    predictions
        Folders of the runs that the report may show, see :meth:`Grid.examined`.
    checks, findings
        Findings in the data, and in the results (json).
    images
        Measures of each predicted image (csv).
    residuals, diagnostics
        Figures.
    """

    dataset: str
    noise: str
    prepared: Path
    noisy: Path
    predictions: Mapping[Run, Path]
    checks: Path
    findings: Path
    images: Path
    residuals: Path
    diagnostics: Path


@dataclass(frozen=True)
class SuggestionFiles:
    """The table (csv) and the figure of images to annotate next."""

    dataset: str
    noise: str
    images: Path
    figure: Path


def gather_report(
    grid: Grid,
    study: Mapping[str, Any],
    title: str,
    notes: list[str],
    metrics: Path,
    benchmarks: Path,
    published: tuple[Path | None, Path | None],
    figures: Sequence[Path],
    settings: Sequence[SettingFiles],
    suggestions: Sequence[SuggestionFiles],
) -> ReportData:
    """Read the contents of the report of a study.

    Parameters
    ----------
    study, published
        See :func:`~denoiseg_flow.reporting.tables.comparison.comparison_tables`.
    metrics
        The ``metrics.csv`` of the study.
    benchmarks
        The workflow's ``<benchmarks>``.
    figures
        Files of the figures that compare methods.

    Raises
    ------
    InputError
        If the metrics are damaged.
    """
    scores = read_metrics_csv(metrics)
    tables = comparison_tables(scores, study, *published)
    trust: list[ReportTrust] = []
    comparisons: list[Example] = []
    scored: list[tuple[SettingFiles, Run, pd.Series]] = []
    for files in settings:
        best = _best_runs(grid, scores, files)
        labels = best[LABELS]
        trust.append(_read_trust(files, best, origin_of_labels(grid, labels) if labels else ""))
        runs = list(dict.fromkeys(filter(None, best.values())))
        comparisons += examples_of_runs(scores, files, runs)
        for run in runs:
            of_images = _scores_or_confidences(scores, run, labels, trust[-1].images)
            if len(of_images):
                scored.append((files, run, of_images))
    return ReportData(
        title=title,
        study=summary(grid),
        config=dict(grid.config),
        verdicts=best_methods(scores, study["untrained"], study["grouped"]),
        gains=annotation_gains(scores),
        recommendations=recommend(scores, study["untrained"], study["grouped"]),
        trust=trust,
        advice=[_read_advice(files) for files in suggestions],
        tables=[ReportTable.of(table) for table in tables.values()],
        figures=[ReportFigure.of_file(path) for path in figures],
        scores=[_image_scores(*each, PICTURES // len(scored)) for each in scored],
        comparisons=comparisons,
        run_times=ReportTable.of(costs_table(benchmark_records(grid.runs, benchmarks))),
        software=software_versions(),
        notes=notes,
    )


def _best_runs(grid: Grid, scores: pd.DataFrame, files: SettingFiles) -> dict[str, Run | None]:
    """Return the best run for each purpose, which is the one that was examined."""
    return {
        purpose: best_run(scores, grid.candidates(files.dataset, files.noise, purpose), purpose)
        for purpose in PURPOSES
    }


def _read_trust(files: SettingFiles, best: Mapping[str, Run | None], origin: str) -> ReportTrust:
    found = findings.read(files.findings)
    images = pd.read_csv(files.images, dtype={"image": str, "objects": "Int64"})
    denoised = bool(images["smoothed"].notna().any())
    calibrated = any(each.topic == "calibration" for each in found)
    shown = {files.residuals: denoised, files.diagnostics: denoised or calibrated}
    return ReportTrust(
        dataset=files.dataset,
        noise=files.noise,
        **best,
        origin=origin,
        checks=findings.worst(findings.read(files.checks)),
        findings=found,
        images=images,
        figures=[ReportFigure.of_file(path) for path, wanted in shown.items() if wanted],
    )


def _read_advice(files: SuggestionFiles) -> ReportAdvice:
    images = pd.read_csv(files.images, dtype={"image": str})
    return ReportAdvice(files.dataset, files.noise, images, ReportFigure.of_file(files.figure))


def examples_of_runs(
    scores: pd.DataFrame, files: SettingFiles, runs: Iterable[Run]
) -> Iterator[Example]:
    """Yield the worst, the median and the best test image of each run.

    Without scores, these are three images, none of them called better than another.
    """
    prepared = PreparedData(files.prepared)
    for run in runs:
        predictions = Predictions(files.predictions[run])
        of_images = scores_of_images(scores, [run])
        ranked = rank_images(of_images, predictions)
        words = ["worst image", "median image", "best image"] if len(of_images) else ["image"] * 3
        for word, number in zip(words, (0, len(ranked) // 2, -1), strict=True):
            image = ranked[number]
            name = f"{run.dataset}, {run.noise}, {run.method}: {word} {image}"
            yield Example.load(name, image, prepared, files.noisy, predictions)


def _scores_or_confidences(
    metrics: pd.DataFrame, run: Run, labels: Run | None, images: pd.DataFrame
) -> pd.Series:
    """Return the finite scores of a run; without any, the confidence of its labels."""
    scores = scores_of_images(metrics, [run])
    scores = scores[np.isfinite(scores)]
    if scores.empty and run == labels:
        return images.set_index("image")["confidence"].dropna()
    return scores


def _image_scores(files: SettingFiles, run: Run, scores: pd.Series, n_pictures: int) -> ImageScores:
    prepared, predictions = PreparedData(files.prepared), Predictions(files.predictions[run])

    def picture(image: str) -> str:
        example = Example.load(image, image, prepared, files.noisy, predictions)
        if example.labels is not None:
            return thumbnail_uri(example.noisy, labels=example.labels)
        return thumbnail_uri(example.noisy, example.denoised)

    outlined = "labels" in predictions.kinds()
    shown = "the noisy image with outlines of the predicted objects" if outlined else "denoised"
    title = f"{scores.name} of every image: {run.dataset}, noise {run.noise}, {run.method}"
    return ImageScores.of(title, scores, shown, picture, n_pictures)
