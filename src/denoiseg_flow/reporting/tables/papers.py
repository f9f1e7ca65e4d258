"""One table of denoised images in the shape of a paper's, with the paper's numbers in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

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
    """How a paper lays out its table of denoised images."""

    title: str
    metrics: tuple[str, ...]
    rows: str
    column: str
    """Names of columns of the data: method, data (dataset and noise level), or noise."""
    by_dataset: bool
    """Whether each dataset has a panel of its own."""


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
    """Denoising quality in the shape of a paper's table, published numbers beside ours.

    Only methods that need no annotation are shown, and the noisy input.

    Parameters
    ----------
    metrics, methods, noises
        As in :func:`~denoiseg_flow.reporting.tables.quality.segmentation_table`.
    paper
        One of :data:`PAPERS`.
    published
        As ``config/published/denoisers.csv``, where ``status`` tells numbers whose source was
        looked up (verified) from those that were written down from memory (recalled).
    dataset_names, method_names
        Our name: published name.
    """
    shape = PAPERS[paper]
    title = f"In the shape of the {shape.title} paper"
    ours = denoising_summary(metrics, shape.metrics)
    ours = ours[ours["n_annotated"] == 0]
    if ours.empty:
        return empty_table(title, "no method without annotation was scored on clean images", ours)
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
        "Denoising quality of methods without annotation, and of the noisy input, which depends on "
        f"no seed. {definitions(_shown(data, shape))} "
        f"{noise_levels(noises)} {error_bar(data)} {_sources(data)}",
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
    """Return the rows ours, published and recalled, the latter where there are such numbers."""
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
        return "No published number has these datasets, noise levels and methods."
    sources = {
        status: "; ".join(sorted(set(part["source"]))) for status, part in known.groupby("status")
    }
    texts = {
        "verified": "Published numbers, looked up at their source: {}.",
        "recalled": "Recalled numbers were written down from memory and not looked up, so do not "
        "quote them: {}.",
    }
    return " ".join(text.format(sources[key]) for key, text in texts.items() if key in sources)
