"""A denoising table in the layout of a paper, with the numbers of that paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from denoiseg_flow.reporting.captions import TABLES
from denoiseg_flow.reporting.tables.layout import (
    Cell,
    Panel,
    Table,
    definitions,
    empty_table,
    error_bar,
    format_mean,
    format_number,
    noise_levels,
    order_rows,
    wide_panel,
)
from denoiseg_flow.reporting.tables.statistics import NOISY_INPUT, denoising_summary

_KINDS = {"ours": "ours", "verified": "published", "recalled": "recalled, unverified"}


@dataclass(frozen=True)
class Shape:
    """The layout of the denoising table of a paper."""

    title: str
    metrics: tuple[str, ...]
    rows: str
    column: str
    """Rows and columns: method, data (dataset and noise level), or noise."""
    by_dataset: bool
    """Whether each dataset has its own panel."""


PAPERS = {
    "noise2void": Shape("Noise2Void", ("PSNR", "PSNR_255"), "method", "data", False),
    "noise2self": Shape("Noise2Self", ("PSNR",), "data", "method", False),
    "autoencoder": Shape("Convolutional denoising autoencoder", ("SSIM",), "method", "noise", True),
}


def paper_table(
    metrics: pd.DataFrame,
    paper: str,
    published: pd.DataFrame,
    dataset_names: Mapping[str, str],
    method_names: Mapping[str, str],
    methods: list[str],
    noises: Mapping[str, str],
) -> Table:
    """Return denoising quality in the layout of a paper's table, with its published numbers.

    Only methods without annotated images and the noisy input are shown.

    Parameters
    ----------
    metrics, methods, noises
        As in :func:`~denoiseg_flow.reporting.tables.quality.segmentation_table`.
    paper
        One of :data:`PAPERS`.
    published
        The table ``config/published/denoisers.csv``. Its ``status`` is verified (the number was
        looked up in its source) or recalled (it was written down from memory).
    dataset_names, method_names
        Published names by our names.
    """
    shape = PAPERS[paper]
    title, caption = TABLES["paper"]
    title = title.format(paper=shape.title)
    ours = denoising_summary(metrics, shape.metrics)
    ours = ours[ours["n_annotated"] == 0]
    if ours.empty:
        reason = "no method without annotated images was scored on clean images"
        return empty_table(title, reason, ours)
    names = {**method_names, NOISY_INPUT: "raw"}
    ours = ours.assign(
        published_dataset=[dataset_names.get(name, "") for name in ours["dataset"]],
        published_method=[names.get(name, "") for name in ours["method"]],
    )
    theirs = published.rename(
        columns={
            "dataset": "published_dataset",
            "method": "published_method",
            "mean": "published_mean",
        }
    ).drop(columns=["n_annotated", "sem"])
    data = ours.merge(
        theirs, how="left", on=["published_dataset", "published_method", "noise", "metric"]
    )
    data = order_rows(data, [NOISY_INPUT, *methods], noises, "status")
    return Table(
        title,
        caption.format(
            metrics=definitions(_shown(data, shape)),
            noise_levels=noise_levels(noises),
            error_bar=error_bar(data),
            sources=_sources(data),
        ),
        data.drop(columns=["published_dataset", "published_method"]),
        tuple(
            _panel(heading, part, shape)
            for metric in _shown(data, shape)
            for heading, part in _parts(data[data["metric"] == metric], metric, shape)
        ),
    )


def _shown(data: pd.DataFrame, shape: Shape) -> list[str]:
    return [metric for metric in shape.metrics if (data["metric"] == metric).any()]


def _parts(data: pd.DataFrame, metric: str, shape: Shape) -> list[tuple[str, pd.DataFrame]]:
    if not shape.by_dataset:
        return [(metric, data)]
    return [(f"{metric}, {name}", part) for name, part in data.groupby("dataset", sort=True)]


def _panel(heading: str, part: pd.DataFrame, shape: Shape) -> Panel:
    """Return a panel with the rows ours, published and recalled, as far as there are numbers."""
    texts: dict[tuple[str, str, str], list[str]] = {}
    for row in part.itertuples():
        places = {"method": row.method, "noise": row.noise, "data": f"{row.dataset}, {row.noise}"}
        where = places[shape.rows], places[shape.column]
        texts[(*where, "ours")] = [format_mean(row.mean, row.sem, row.metric)]
        if isinstance(row.status, str):
            number = format_number(row.published_mean, row.metric)
            texts.setdefault((*where, row.status), []).append(number)
    frame = pd.DataFrame(list(texts), columns=[shape.rows, shape.column, "number"])
    frame["number"] = pd.Categorical(frame["number"].map(_KINDS), list(_KINDS.values()), True)
    for name in (shape.rows, shape.column):
        names = list(dict.fromkeys(frame[name]))
        frame[name] = pd.Categorical(frame[name], names, ordered=True)
    cells = [Cell("; ".join(numbers)) for numbers in texts.values()]
    return wide_panel(heading, frame, cells, [shape.rows, "number"], shape.column)


def _sources(data: pd.DataFrame) -> str:
    known = data.dropna(subset=["status"])
    if known.empty:
        return "There are no published numbers for these datasets, noise levels and methods."
    sources = {
        status: "; ".join(sorted(set(part["source"]))) for status, part in known.groupby("status")
    }
    texts = {
        "verified": "Sources of the published numbers: {}.",
        "recalled": "Recalled numbers were written down from memory and are unverified; do not "
        "quote them: {}.",
    }
    return " ".join(text.format(sources[key]) for key, text in texts.items() if key in sources)
