"""The tables of the report: means with error bars, and paired differences.

Every function returns a :class:`~denoiseg_flow.reporting.tables.layout.Table`;
:func:`files.write_table` writes it in formats for programs and for readers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import pandas as pd

from denoiseg_flow.reporting.captions import TABLES
from denoiseg_flow.reporting.tables.intervals import LEVEL, MIN_SOURCES
from denoiseg_flow.reporting.tables.layout import (
    Cell,
    Table,
    decimals,
    definitions,
    empty_table,
    error_bar,
    format_mean,
    format_number,
    noise_levels,
    order_rows,
    seed_range,
    split_panels,
    wide_panel,
)
from denoiseg_flow.reporting.tables.statistics import (
    NOISY_INPUT,
    denoising_summary,
    paired_differences,
    summarise,
)

#: Metrics to compare with a reference method and with published numbers.
COMPARED = ("AP", "SEG", "PSNR", "PSNR_mean_of_repeats")
_DENOISING = (
    *("PSNR", "PSNR_scale_invariant", "PSNR_255", "SSIM", "checkerboard"),
    "PSNR_mean_of_repeats",
)
_UNRANKED = ("checkerboard",)  # neither high nor low values are best
_SELF_SUPERVISION = {
    "loss_self_supervised": "self-supervised loss",
    "MSE_j_invariant": "true error",
    "PSNR": "PSNR, single pass",
    "PSNR_j_invariant": "PSNR, J-invariant",
    "SSIM": "SSIM, single pass",
    "SSIM_j_invariant": "SSIM, J-invariant",
}


def segmentation_table(
    metrics: pd.DataFrame, methods: list[str], noises: Mapping[str, str]
) -> Table:
    """Return segmentation quality: method x n_annotated, per dataset and noise level.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`statistics.read_metrics` returns them.
    methods, noises
        Names in the order of the table, other names come last; for each noise level, its kind and
        parameters in words.

    Returns
    -------
    Table
        Panels for AP and SEG; the data also contain AP at stricter thresholds and AP_mean.
    """
    chosen = metrics["metric"].str.startswith("AP") | (metrics["metric"] == "SEG")
    data = order_rows(summarise(metrics[chosen]), methods, noises)
    title, caption = TABLES["segmentation"]
    if data.empty:
        return empty_table(title, "no annotated test image contains an object", data)
    return Table(
        title,
        caption.format(
            metrics=definitions(("AP", "SEG")),
            noise_levels=noise_levels(noises),
            error_bar=error_bar(data),
        ),
        data,
        tuple(
            wide_panel(heading, part, _mean_cells(part, "n_annotated"), ["method"], "n_annotated")
            for _, heading, part in split_panels(data, ("AP", "SEG"), ["dataset", "noise"])
        ),
    )


def denoising_table(
    metrics: pd.DataFrame,
    noise_sigmas: Mapping[str, str],
    methods: list[str],
    noises: Mapping[str, str],
) -> Table:
    """Return denoising quality: method and n_annotated x noise level, per dataset and metric.

    The first row of PSNR and SSIM is the noisy input, which is not ranked.

    Parameters
    ----------
    metrics, methods, noises
        As in :func:`segmentation_table`.
    noise_sigmas
        Whether the strength of the noise was known or estimated, for methods that need it.
    """
    data = order_rows(denoising_summary(metrics, _DENOISING), [NOISY_INPUT, *methods], noises)
    title, caption = TABLES["denoising"]
    if data.empty:
        return empty_table(title, "there are no clean test images or further acquisitions", data)
    shown = [metric for metric in _DENOISING if (data["metric"] == metric).any()]
    return Table(
        title,
        caption.format(
            metrics=definitions(shown),
            noise_levels=noise_levels(noises),
            noise_sigmas=_noise_sources(noise_sigmas),
            error_bar=error_bar(data),
        ),
        data,
        tuple(
            wide_panel(
                heading, part, _mean_cells(part, "noise"), ["method", "n_annotated"], "noise"
            )
            for _, heading, part in split_panels(data, shown, ["dataset"])
        ),
    )


def _noise_sources(noise_sigmas: Mapping[str, str]) -> str:
    """Return sentences that say how methods know the standard deviation of the noise."""
    names: dict[str, list[str]] = {source: [] for source in noise_sigmas.values()}
    for name, source in noise_sigmas.items():
        names[source].append(name)
    meanings = {
        "known": "known from the noise level",
        "estimated": "estimated from each image",
    }
    return "".join(
        f"The standard deviation of the noise was {meanings[source]} for {', '.join(users)}. "
        for source, users in names.items()
    )


def self_supervision_table(
    metrics: pd.DataFrame, methods: list[str], noises: Mapping[str, str]
) -> Table:
    """Return the self-supervised loss at masked pixels, and the true error if it is known.

    Parameters are those of :func:`segmentation_table`.

    Returns
    -------
    Table
        A panel per dataset and noise level; without clean images, there are no true errors.
    """
    judged = metrics.loc[metrics["metric"] == "loss_self_supervised", "method"].unique()
    chosen = metrics["method"].isin(judged) & metrics["metric"].isin(list(_SELF_SUPERVISION))
    data = order_rows(summarise(metrics[chosen]), methods, noises)
    title, caption = TABLES["self_supervision"]
    if data.empty:
        return empty_table(title, "no loss at masked pixels was measured", data)
    order = pd.CategoricalDtype(list(_SELF_SUPERVISION.values()), ordered=True)
    data["measure"] = data["metric"].map(_SELF_SUPERVISION).astype(order)
    panels = []
    for (dataset, noise), part in data.groupby(["dataset", "noise"], observed=True, sort=True):
        cells = [Cell(format_mean(row.mean, row.sem, row.metric)) for row in part.itertuples()]
        heading = f"{dataset}, {noise}"
        panels.append(wide_panel(heading, part, cells, ["method", "n_annotated"], "measure"))
    return Table(
        title,
        caption.format(noise_levels=noise_levels(noises), error_bar=error_bar(data)),
        data.drop(columns="measure"),
        tuple(panels),
    )


def paired_table(
    metrics: pd.DataFrame,
    reference: str,
    untrained: Collection[str],
    methods: list[str],
    noises: Mapping[str, str],
) -> Table:
    """Return the difference of each method from ``reference``, paired by seed and image.

    See :func:`statistics.paired_differences` for pairs and confidence intervals, and
    :func:`segmentation_table` for the other parameters.
    """
    differences = paired_differences(metrics, reference, COMPARED, untrained)
    data = order_rows(differences, methods, noises)
    title, caption = TABLES["paired"]
    title = title.format(reference=reference)
    if data.empty:
        return empty_table(title, f"no other method shares a metric with {reference}", data)
    shown = [metric for metric in COMPARED if (data["metric"] == metric).any()]
    panels = []
    for metric, heading, part in split_panels(data, shown, ["dataset", "noise"]):
        cells = []
        for row in part.itertuples():
            number, low, high = (
                format_number(value, metric, "+") for value in (row.difference, row.low, row.high)
            )
            interval = "" if math.isnan(row.low) else f" [{low}, {high}]"
            # The rounded interval must exclude zero too: a bold one must not show a bound of zero.
            digits = decimals(metric)
            excludes_zero = round(row.low, digits) > 0 or round(row.high, digits) < 0
            differs = row.p_adjusted <= 1 - LEVEL and excludes_zero
            cells.append(Cell(number + interval, bold=differs))
        panels.append(
            wide_panel(f"{heading}, minus {reference}", part, cells, ["method"], "n_annotated")
        )
    return Table(
        title,
        caption.format(
            reference=reference,
            metrics=definitions(shown),
            seeds=seed_range(data),
            min_images=MIN_SOURCES,
        ),
        data,
        tuple(panels),
    )


def _mean_cells(part: pd.DataFrame, column: str) -> list[Cell]:
    """Return mean ± SEM per row; the best of each column (as displayed) is bold."""
    ranked = part[(part["method"] != NOISY_INPUT) & part["mean"].notna()]
    ranked = ranked[~ranked["metric"].isin(_UNRANKED)]
    # Cells that look equal to the best are bold too.
    shown = ranked["mean"].round(decimals(part["metric"].iloc[0]))
    columns = shown.groupby(ranked[column], observed=True)
    best = shown[(shown == columns.transform("max")) & (columns.transform("size") > 1)].index
    return [
        Cell(format_mean(row.mean, row.sem, row.metric), bold=row.Index in best)
        for row in part.itertuples()
    ]
