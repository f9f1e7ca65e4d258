"""The report: one self-contained HTML page about a study, without external resources.

Jinja escapes all text from configs and file names; the only trusted HTML is that of
:class:`ReportTable`, which :mod:`denoiseg_flow.reporting.tables` makes. The page contains no date:
the same results give the same bytes.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup

from denoiseg_flow.data.painting import instance_colours, intensity_window
from denoiseg_flow.data.store import centre_crop
from denoiseg_flow.findings import Finding, count, worst
from denoiseg_flow.methods.references import CITATIONS
from denoiseg_flow.reporting.captions import FIGURES
from denoiseg_flow.reporting.figures.examples import Example
from denoiseg_flow.reporting.html import render
from denoiseg_flow.reporting.image_scores import ImageScores
from denoiseg_flow.reporting.pictures import CROPPED, figure_uri, image_uri
from denoiseg_flow.reporting.tables.files import to_html_fragment
from denoiseg_flow.reporting.tables.layout import Table
from denoiseg_flow.reporting.tables.verdicts import AnnotationGain, Recommendation, Verdict
from denoiseg_flow.study.grid import Run

_WORST = 10  # images in the table of the worst predictions
#: What columns of the table of images mean.
_LEGEND = {
    ("confidence",): (
        "Confidence: how well the objects of an image and of its mirror image agree, times their "
        "foreground probability; 0 without any object."
    ),
    ("smoothed", "invented", "removed"): (
        "Smoothed and invented: share of windows of 32x32 pixels that are oversmoothed or "
        "hallucinated. Removed: standard deviation of the residual divided by that of the noise."
    ),
}
#: Bytes of a report: with many noise levels or large images, pictures are made smaller.
LIMIT = 5_000_000
#: Side of the images of sliders in pixels, and scale of figures, see :func:`figure_uri`.
_DETAILS = ((CROPPED, 1), (384, 1), (256, 0.7), (192, 0.5), (128, 0.5), (96, 0.35))


@dataclass(frozen=True)
class ReportTable:
    """A table; ``html`` is a trusted ``<table>`` fragment with escaped cells."""

    title: str
    caption: str
    html: str

    @classmethod
    def of(cls, table: Table) -> ReportTable:
        """Return a comparison table as the report shows it."""
        return cls(table.title, table.caption, to_html_fragment(table))


@dataclass(frozen=True)
class ReportFigure:
    """A figure; ``image`` is the text of an SVG or the path of an .svg or .png file."""

    title: str
    caption: str
    image: str | Path

    @classmethod
    def of_file(cls, path: Path) -> ReportFigure:
        """Return a figure of the workflow; its title names the kind of figure and the dataset."""
        kind = next(name for name in FIGURES if path.stem.startswith(name))
        noise = path.stem.removeprefix(kind).removeprefix("_")
        title, caption = FIGURES[kind]
        where = ", ".join(name for name in (path.parent.name, noise) if name)
        return cls(f"{title}: {where}", caption, path)


@dataclass(frozen=True)
class ReportTrust:
    """Findings about the best results of a dataset and noise level, and about the data."""

    dataset: str
    noise: str
    labels: Run | None
    """The run with the examined labels."""
    denoised: Run | None
    """The run with the examined denoised images."""
    checks: list[Finding]
    """Findings about the data, before training."""
    findings: list[Finding]
    """Findings about the results; like ``images``, from :func:`trust.examine_results`."""
    images: pd.DataFrame
    origin: str = ""
    """From :func:`~denoiseg_flow.study.contents.origin_of_labels`."""
    figures: list[ReportFigure] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Dataset and noise level."""
        return f"{self.dataset}, noise {self.noise}"

    @property
    def about(self) -> str:
        """Which labels and denoised images were examined."""
        if self.labels == self.denoised and self.labels:
            return f"labels and denoised images of {_called(self.labels)}"
        kinds = {"labels": self.labels, "denoised images": self.denoised}
        return "; ".join(f"{kind} of {_called(run)}" for kind, run in kinds.items() if run)

    @property
    def n_warnings(self) -> int:
        """Number of problems and warnings."""
        return len(self.checks) + len(worst(self.findings))

    @property
    def columns(self) -> list[str]:
        """The columns of ``images`` that are not empty."""
        return [name for name in self.images if self.images[name].notna().any()]

    @property
    def by_confidence(self) -> bool:
        """Whether the images are sorted by confidence, because there is no AP."""
        return "AP" not in self.columns and "confidence" in self.columns

    @property
    def legend(self) -> str:
        """Explanation of these columns."""
        return " ".join(text for names, text in _LEGEND.items() if set(names) & set(self.columns))

    @property
    def rows(self) -> list[list[str]]:
        """The rows of the worst images, as text."""
        shown = self.images[self.columns].head(_WORST)
        cells = shown.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
        return cells.where(shown.notna(), "").to_numpy().tolist()


def _called(run: Run) -> str:
    """Method, annotated images and seed of a run."""
    given = f" with {count(run.n_annotated, 'annotated image')}" if run.n_annotated else ""
    return f"{run.method}{given}, seed {run.seed}"


@dataclass(frozen=True)
class ReportAdvice:
    """Which images of a dataset to annotate next, from :func:`annotate_next.suggest`."""

    dataset: str
    noise: str
    images: pd.DataFrame
    figure: ReportFigure

    @property
    def confidences(self) -> list[tuple[str, str]]:
        """Name and confidence of each image, in this order."""
        pairs = zip(self.images["image"], self.images["confidence"], strict=True)
        return [(name, f"{value:.2f}") for name, value in pairs]


@dataclass(frozen=True)
class ReportData:
    """The content of the report; an empty part is replaced by a sentence."""

    title: str
    study: dict[str, list[str]]
    """What was run, e.g. ``{"datasets": ["dsb2018"], "noise levels": ["n10", "n20"]}``."""
    config: dict[str, Any]
    verdicts: list[Verdict] = field(default_factory=list)
    """From :func:`~denoiseg_flow.reporting.tables.verdicts.best_methods`."""
    gains: list[AnnotationGain] = field(default_factory=list)
    """From :func:`~denoiseg_flow.reporting.tables.verdicts.annotation_gains`."""
    recommendations: list[Recommendation] = field(default_factory=list)
    """From :func:`~denoiseg_flow.reporting.tables.verdicts.recommend`."""
    trust: list[ReportTrust] = field(default_factory=list)
    advice: list[ReportAdvice] = field(default_factory=list)
    tables: list[ReportTable] = field(default_factory=list)
    figures: list[ReportFigure] = field(default_factory=list)
    scores: list[ImageScores] = field(default_factory=list)
    comparisons: list[Example] = field(default_factory=list)
    run_times: ReportTable | None = None
    software: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Sentences at the top of the page, e.g. that the data are simulated."""


@dataclass(frozen=True)
class _Layer:
    """What the slider reveals: an image or, with ``overlay``, transparent instance colours."""

    name: str
    alt: str
    uri: str
    overlay: bool


@dataclass(frozen=True)
class _Comparison:
    title: str
    noisy: str
    width: int
    height: int
    layers: list[_Layer]


def software_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the numbers."""
    packages = ["denoiseg-flow", "torch", "numpy", "scipy", "scikit-image", "pandas", "snakemake"]
    return {"Python": platform.python_version()} | {name: version(name) for name in packages}


def build_report(data: ReportData) -> str:
    """Render the page.

    Returns
    -------
    str
        A complete HTML document that contains style, script and all images; write it as UTF-8.

    Raises
    ------
    ValueError
        If a figure is neither SVG text nor an .svg or .png file.
    """

    def render_with(side: int, scale: float) -> str:
        return render(
            "report.html.j2",
            data=data,
            settings=_by_setting(data.verdicts),
            metric=data.verdicts[0].name if data.verdicts else "",
            tables=[(table, Markup(table.html)) for table in data.tables],
            run_times=Markup(data.run_times.html) if data.run_times else None,
            uri=partial(uri, scale=scale),
            comparisons=[_comparison(example, side) for example in data.comparisons],
            config_yaml=yaml.safe_dump(data.config, sort_keys=False, allow_unicode=True),
            citations=CITATIONS,
        )

    uri = cache(figure_uri)
    for side, scale in _DETAILS:
        page = render_with(side, scale)
        if len(page.encode()) <= LIMIT:
            break
    return page


def _by_setting(verdicts: list[Verdict]) -> list[tuple[str, str, list[Verdict]]]:
    """Return dataset, noise level, and the verdicts for the fewest and most annotated images."""
    settings = []
    for key, members in groupby(verdicts, key=lambda verdict: (verdict.dataset, verdict.noise)):
        group = list(members)
        settings.append((*key, group if len(group) < 3 else [group[0], group[-1]]))
    return settings


def _comparison(example: Example, side: int) -> _Comparison:
    """Return the centre of an example, of at most ``side`` x ``side`` pixels."""

    def crop(picture: np.ndarray) -> np.ndarray:
        return centre_crop(picture, side, axes=(0, 1))

    noisy = crop(example.noisy)
    window = intensity_window(noisy)
    layers = []
    if example.denoised is not None:
        uri = _scaled_uri(crop(example.denoised), window)
        layers.append(_Layer("denoised", f"{example.name}, denoised", uri, overlay=False))
    if example.clean is not None and example.denoised is not None:
        uri = _scaled_uri(crop(example.clean), window)
        layers.append(_Layer("clean", f"{example.name}, clean", uri, overlay=False))
    for name, labels in (
        ("predicted instances", example.labels),
        ("annotated instances", example.truth),
    ):
        if labels is not None:
            paint = instance_colours(crop(labels))
            uri = image_uri(np.round(paint * 255).astype(np.uint8))
            layers.append(_Layer(name, f"{example.name}, {name} in colour", uri, overlay=True))
    height, width = noisy.shape[:2]
    return _Comparison(example.name, _scaled_uri(noisy, window), width, height, layers)


def _scaled_uri(image: np.ndarray, window: tuple[float, float]) -> str:
    low, high = window
    scaled = np.clip((np.nan_to_num(image, nan=low) - low) / (high - low), 0, 1)
    return image_uri(np.round(scaled * 255).astype(np.uint8))
