"""The tables of the report: means with error bars, paired differences.

Every function returns a :class:`~denoiseg_flow.reporting.tables.layout.Table`, which
:func:`files.write_table` writes for machines and people side by side.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import pandas as pd

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

#: Metrics that are compared with a reference method and with published numbers.
COMPARED = ("AP", "SEG", "PSNR")
_DENOISING = ("PSNR", "PSNR_scale_invariant", "PSNR_255", "SSIM", "checkerboard")
_UNRANKED = ("checkerboard",)  # neither high nor low is best
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
    """Segmentation quality: method x number of annotated images, per dataset and noise level.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`statistics.read_metrics` returns them.
    methods, noises
        Names in the order in which to show them; names not listed come last. For each noise level
        its kind and parameters in words.

    Returns
    -------
    Table
        Panels for AP and SEG; the data also hold AP at the stricter thresholds and AP_mean.
    """
    chosen = metrics["metric"].str.startswith("AP") | (metrics["metric"] == "SEG")
    data = order_rows(summarise(metrics[chosen]), methods, noises)
    if data.empty:
        return empty_table("Segmentation", "no annotated test image holds an object", data)
    return Table(
        "Segmentation",
        "Segmentation quality of each method by number of annotated training images (columns). "
        f"{definitions(('AP', 'SEG'))} {noise_levels(noises)} {error_bar(data)} Bold: best of the "
        "column.",
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
    """Denoising quality: method and number of labels x noise level, per dataset and metric.

    The first row of PSNR and SSIM is the noisy input itself; it takes no part in the ranking.

    Parameters
    ----------
    metrics, methods, noises
        As in :func:`segmentation_table`.
    noise_sigmas
        For methods that are told how strong the noise is: whether it was known or estimated.
    """
    data = order_rows(denoising_summary(metrics, _DENOISING), [NOISY_INPUT, *methods], noises)
    if data.empty:
        return empty_table("Denoising", "no test image has a clean image", data)
    shown = [metric for metric in _DENOISING if (data["metric"] == metric).any()]
    return Table(
        "Denoising",
        "Denoising quality of each method by noise level (columns), against clean images. "
        f"{definitions(shown)} {noise_levels(noises)} {_told(noise_sigmas)}"
        f"{error_bar(data)} Bold: best of the "
        "column, noisy input aside (it depends on no seed and has no error bar).",
        data,
        tuple(
            wide_panel(
                heading, part, _mean_cells(part, "noise"), ["method", "n_annotated"], "noise"
            )
            for _, heading, part in split_panels(data, shown, ["dataset"])
        ),
    )


def _told(noise_sigmas: Mapping[str, str]) -> str:
    """Return sentences that tell where methods have the strength of the noise from."""
    names: dict[str, list[str]] = {source: [] for source in noise_sigmas.values()}
    for name, source in noise_sigmas.items():
        names[source].append(name)
    meanings = {
        "known": "known from the noise level",
        "estimated": "estimated from each image",
    }
    return "".join(
        f"The standard deviation of the noise was {meanings[source]} for {', '.join(told)}. "
        for source, told in names.items()
    )


def self_supervision_table(
    metrics: pd.DataFrame, methods: list[str], noises: Mapping[str, str]
) -> Table:
    """What methods know of themselves from hidden pixels, beside the truth if it is known.

    Parameters are those of :func:`segmentation_table`.

    Returns
    -------
    Table
        A panel per dataset and noise level; the true errors are left out where there are no
        clean images.
    """
    judged = metrics.loc[metrics["metric"] == "loss_self_supervised", "method"].unique()
    chosen = metrics["method"].isin(judged) & metrics["metric"].isin(list(_SELF_SUPERVISION))
    data = order_rows(summarise(metrics[chosen]), methods, noises)
    if data.empty:
        return empty_table("Self-supervision", "no loss at hidden pixels was measured", data)
    order = pd.CategoricalDtype(list(_SELF_SUPERVISION.values()), ordered=True)
    data["measure"] = data["metric"].map(_SELF_SUPERVISION).astype(order)
    panels = []
    for (dataset, noise), part in data.groupby(["dataset", "noise"], observed=True, sort=True):
        cells = [Cell(format_mean(row.mean, row.sem, row.metric)) for row in part.itertuples()]
        heading = f"{dataset}, {noise}"
        panels.append(wide_panel(heading, part, cells, ["method", "n_annotated"], "measure"))
    return Table(
        "Self-supervision",
        "How well methods foretell pixels that they do not see. The self-supervised loss is the "
        "mean squared difference of what they foretell from the noisy image, the true error that "
        "from the clean one: with noise that is independent from pixel to "
        "pixel and of mean zero, they differ by the variance of the noise, so that the loss ranks "
        "methods without a clean image. With clean images, it is that of methods that hide the "
        "pixels of a grid, predicted J-invariantly, each pixel while it is hidden, and beside it "
        "in a single pass, which shows the network every pixel. Without, it is measured for every "
        "denoiser at a quarter of the pixels, hidden behind the mean of their neighbours. "
        f"{noise_levels(noises)} {error_bar(data)}",
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
    """Each method minus ``reference``, paired by seed and image, with intervals.

    See :func:`statistics.paired_differences` for pairing and intervals, and
    :func:`segmentation_table` for the other parameters.
    """
    differences = paired_differences(metrics, reference, COMPARED, untrained)
    data = order_rows(differences, methods, noises)
    if data.empty:
        title = f"Paired differences to {reference}"
        return empty_table(title, f"no other method has a metric that {reference} has too", data)
    shown = [metric for metric in COMPARED if (data["metric"] == metric).any()]
    panels = []
    for metric, heading, part in split_panels(data, shown, ["dataset", "noise"]):
        cells = []
        for row in part.itertuples():
            number, low, high = (
                format_number(value, metric, "+") for value in (row.difference, row.low, row.high)
            )
            interval = "" if math.isnan(row.low) else f" [{low}, {high}]"
            # As displayed as well, so that no bold interval shows a bound of zero.
            digits = decimals(metric)
            excludes_zero = round(row.low, digits) > 0 or round(row.high, digits) < 0
            differs = row.p_adjusted <= 1 - LEVEL and excludes_zero
            cells.append(Cell(number + interval, bold=differs))
        panels.append(
            wide_panel(f"{heading}, minus {reference}", part, cells, ["method"], "n_annotated")
        )
    return Table(
        f"Paired differences to {reference}",
        f"Each method minus {reference}, by number of annotated training images (columns), paired "
        f"by seed and image. {definitions(shown)} Brackets: 95 % interval, over other trainings "
        f"and other images ({seed_range(data)}; none with one seed, or with fewer than "
        f"{MIN_SOURCES} images). Bold: a difference is shown, with p-values adjusted for the "
        "methods of the column (Holm).",
        data,
        tuple(panels),
    )


def _mean_cells(part: pd.DataFrame, column: str) -> list[Cell]:
    """Return mean ± SEM per row, the best of each column (as displayed) in bold."""
    ranked = part[(part["method"] != NOISY_INPUT) & part["mean"].notna()]
    ranked = ranked[~ranked["metric"].isin(_UNRANKED)]
    # What looks equal to the best is marked like the best.
    shown = ranked["mean"].round(decimals(part["metric"].iloc[0]))
    columns = shown.groupby(ranked[column], observed=True)
    best = shown[(shown == columns.transform("max")) & (columns.transform("size") > 1)].index
    return [
        Cell(format_mean(row.mean, row.sem, row.metric), bold=row.Index in best)
        for row in part.itertuples()
    ]
