"""Comparison of our numbers with published ones, for the same data, noise and method."""

from __future__ import annotations

from collections.abc import Mapping

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
    order_rows,
    split_panels,
    wide_panel,
)
from denoiseg_flow.reporting.tables.quality import COMPARED
from denoiseg_flow.reporting.tables.statistics import summarise

_ORACLE = "denoiseg_alpha_best_on_test"
_ORACLE_ROW = "oracle (alpha chosen on the test set)"
_JOIN = ["noise", "n_annotated", "metric", "published_method"]


def published_table(
    metrics: pd.DataFrame,
    published: pd.DataFrame,
    dataset_names: dict[str, str],
    method_names: dict[str, str],
    methods: list[str],
    noises: Mapping[str, str],
) -> Table:
    """Return our means and published means for the same dataset, noise, method and n_annotated.

    Parameters
    ----------
    metrics, methods, noises
        As in :func:`~denoiseg_flow.reporting.tables.quality.segmentation_table`.
    published
        Columns dataset, noise, method, n_annotated, metric, mean, sem (may be empty), source, as in
        ``config/published/denoiseg.csv``.
    dataset_names, method_names
        Published names by our names. DenoiSeg with a fixed alpha is also compared, without a
        difference, with the published "oracle", whose alpha was chosen on the test set.
    """
    ours = summarise(metrics)
    ours = ours[ours["method"].isin(list(method_names)) & ours["dataset"].isin(list(dataset_names))]
    ours = ours.assign(
        published_dataset=ours["dataset"].map(dataset_names),
        published_method=ours["method"].map(method_names),
    )
    is_denoiseg = ours["published_method"].str.startswith("denoiseg_alpha")
    ours = pd.concat([ours, ours[is_denoiseg].assign(published_method=_ORACLE)])
    ours = ours.drop_duplicates(["dataset", *_JOIN, "method"])
    theirs = published.rename(
        columns={
            "dataset": "published_dataset",
            "method": "published_method",
            "mean": "published_mean",
            "sem": "published_sem",
        }
    )
    data = ours.merge(theirs, on=["published_dataset", *_JOIN])
    title, caption = TABLES["published"]
    if data.empty:
        reason = "there are no published numbers for the settings of these runs"
        return empty_table(title, reason, data)
    data["difference"] = (data["mean"] - data["published_mean"]).where(
        data["published_method"] != _ORACLE
    )
    data = order_rows(data, methods, noises, "published_method")
    shown = [metric for metric in COMPARED if (data["metric"] == metric).any()]
    panels = tuple(
        _published_panel(heading, part)
        for _, heading, part in split_panels(data, shown, ["dataset", "noise"])
    )
    return Table(
        title,
        caption.format(
            metrics=definitions(shown),
            error_bar=error_bar(data),
            sources="; ".join(sorted(set(data["source"]))),
        ),
        data.drop(columns="published_dataset"),
        panels,
    )


def _published_panel(heading: str, part: pd.DataFrame) -> Panel:
    """Return a panel with the rows ours, published, difference and oracle of each method."""
    frames, cells = [], []
    kinds = ["ours", "published", "difference", _ORACLE_ROW]
    for row in part.itertuples():
        published = format_mean(row.published_mean, row.published_sem, row.metric)
        texts = {_ORACLE_ROW: published}
        if row.published_method != _ORACLE:
            texts = {
                "ours": format_mean(row.mean, row.sem, row.metric),
                "published": published,
                "difference": format_number(row.difference, row.metric, "+"),
            }
        for kind, text in texts.items():
            frames.append((row.method, kind, row.n_annotated))
            cells.append(Cell(text))
    frame = pd.DataFrame(frames, columns=["method", "number", "n_annotated"])
    frame["method"] = frame["method"].astype(part["method"].dtype)
    frame["number"] = pd.Categorical(frame["number"], kinds, ordered=True)
    return wide_panel(heading, frame, cells, ["method", "number"], "n_annotated")
