"""From tidy metrics to means, error bars and paired differences.

The unit of replication is the run (one seed): values are first averaged over the images of a run,
then over the seeds; the standard error (SEM) is std(ddof=1) / sqrt(n) over the seeds, and NaN with
one seed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import partial
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from denoiseg_flow.data import checksums
from denoiseg_flow.errors import InputError
from denoiseg_flow.scoring import METRICS_COLUMNS, RUN_COLUMNS
from denoiseg_flow.seeds import generator

#: What identifies one number of a table: everything but seed and image.
CELL_COLUMNS = ["dataset", "noise", "method", "n_labelled", "metric"]

#: How the noisy input is called where it stands among the methods.
NOISY_INPUT = "noisy input"

_TYPES = {"n_labelled": "int64", "seed": "int64", "value": "float64"}


def read_metrics(paths: Iterable[Path]) -> pd.DataFrame:
    """Read many metrics.tsv files into one frame, sorted by all its key columns.

    The text is joined and parsed once, which is what makes 10,000 small files quick.

    Raises
    ------
    InputError
        If a file is missing or damaged, has other columns or cannot be parsed, or a row occurs
        twice.
    """
    header = "\t".join(METRICS_COLUMNS)
    bodies = []
    for path in paths:
        checksums.verify(path)
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path} ({error}); score this run again") from error
        first, _, body = text.partition("\n")
        if first.rstrip("\r") != header:
            raise InputError(
                f"{path} does not start with the columns {', '.join(METRICS_COLUMNS)}; "
                "score this run again"
            )
        bodies.append(body if body.endswith("\n") or not body else body + "\n")
    try:
        frame = _parse(io.StringIO("".join([header, "\n", *bodies])), separator="\t")
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"the metrics files cannot be parsed: {error}; score again") from error
    keys = METRICS_COLUMNS[:-1]
    # Categories are sorted text, so that their codes sort like the text, only faster. Not parsed as
    # such: pandas would make numbers of names like "001".
    names = [column for column in keys if column not in _TYPES]
    frame = frame.astype(dict.fromkeys(names, "category"))
    frame = frame.sort_values(keys, kind="stable", ignore_index=True)
    repeated = frame.duplicated(keys)
    if repeated.any():
        row = ", ".join(str(frame.loc[repeated.idxmax(), key]) for key in keys)
        raise InputError(f"two metrics files hold the same row ({row}); pass each run once")
    return frame


def write_metrics_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write the frame of :func:`read_metrics` as csv.

    The bytes are those of ``frame.to_csv``, which takes three times as long for millions of rows:
    it formats every name of every row.
    """
    run, place = (_joined(frame, columns) for columns in (RUN_COLUMNS, ["image", "metric"]))
    values = ("\n" if value != value else f"{value!r}\n" for value in frame["value"].tolist())
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(",".join(METRICS_COLUMNS) + "\n")
        file.writelines(map(add, run + place, values))


def _joined(frame: pd.DataFrame, columns: list[str]) -> NDArray[np.object_]:
    """Return the values of some columns as text with commas, the same object for the same text."""
    key = np.zeros(len(frame), dtype="int64")
    for column in columns:
        codes, values = pd.factorize(frame[column])
        key = key * len(values) + codes
    codes, _ = pd.factorize(key)
    _, first = np.unique(codes, return_index=True)
    table = frame[columns].iloc[first].to_csv(index=False, header=False, lineterminator=",\0")
    return np.array(table.split("\0"), dtype=object)[codes]


def read_metrics_csv(path: Path) -> pd.DataFrame:
    """Read the frame of :func:`read_metrics` back from the csv file that it was written to."""
    checksums.verify(path)
    return _parse(path, separator=",")


def _parse(source: Path | io.StringIO, separator: str) -> pd.DataFrame:
    """Read metrics; names are text, whatever they look like."""
    return pd.read_csv(
        source,
        sep=separator,
        dtype={column: _TYPES.get(column, "str") for column in METRICS_COLUMNS},
        keep_default_na=False,
        na_values={"value": ["", "nan"]},
    )


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Average over the images of each run, then over seeds.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`read_metrics` returns them. NaN values (undefined for that image)
        are left out; an infinite PSNR stays infinite.

    Returns
    -------
    pandas.DataFrame
        dataset, noise, method, n_labelled, metric, mean, sem (NaN with one seed), n_seeds and
        n_images (distinct images), sorted by these columns.
    """
    known = metrics.dropna(subset=["value"])
    runs = known.groupby([*CELL_COLUMNS, "seed"], observed=True)["value"].mean()
    cells = runs.groupby(level=CELL_COLUMNS, observed=True)
    with np.errstate(invalid="ignore"):
        summary = cells.agg(mean="mean", sem="sem", n_seeds="size")
    summary["n_images"] = known.groupby(CELL_COLUMNS, observed=True)["image"].nunique()
    return summary.reset_index()


def noisy_input(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics of the noisy input itself, once per image and seed.

    Every run repeats PSNR_noisy and SSIM_noisy of its test images; here they become the metrics
    PSNR and SSIM of the method "noisy input" with n_labelled 0.
    """
    rows = metrics[metrics["metric"].isin(["PSNR_noisy", "SSIM_noisy"])]
    rows = rows.drop_duplicates(["dataset", "noise", "seed", "image", "metric"])
    return rows.assign(
        method=NOISY_INPUT, n_labelled=0, metric=rows["metric"].str.removesuffix("_noisy")
    )


def denoising_summary(metrics: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Return :func:`summarise` of the named metrics, those of the noisy input among them.

    The noise does not depend on the seed: spread over seeds would only show the choice of images,
    so that the noisy input has no error bar.
    """
    both = pd.concat([metrics, noisy_input(metrics)])
    summary = summarise(both[both["metric"].isin(list(names))])
    summary.loc[summary["method"] == NOISY_INPUT, "sem"] = np.nan
    return summary


def paired_differences(
    metrics: pd.DataFrame,
    reference: str,
    seed: int,
    metric_names: tuple[str, ...],
    n_resamples: int = 2000,
) -> pd.DataFrame:
    """Return each method minus the reference, with a 95 % bootstrap interval.

    Values are paired by dataset, noise, n_labelled, seed and image. A method that uses no labels
    (n_labelled 0) is paired with every label count of the reference, and the other way round.

    The interval is the 2.5 to 97.5 percentile of a hierarchical bootstrap: seeds are drawn with
    replacement, and images with replacement, the same images for all seeds; the statistic is the
    mean over the drawn images, then over the drawn seeds. With one seed only images are resampled.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`read_metrics` returns them.
    reference
        The method that is subtracted.
    seed
        Seed of the bootstrap.
    metric_names
        Metrics to compare.
    n_resamples
        Number of bootstrap samples.

    Returns
    -------
    pandas.DataFrame
        dataset, noise, method, n_labelled, metric, difference, low, high (NaN if there is only one
        pair), n_seeds, n_images. Pairs whose difference is not finite are left out.
    """
    used = metrics[metrics["metric"].isin(metric_names)]
    is_reference = used["method"] == reference
    pairs = _pair(used[~is_reference], used[is_reference].drop(columns="method"))
    with np.errstate(invalid="ignore"):
        pairs["difference"] = pairs["value"] - pairs["value_reference"]
    pairs = pairs[np.isfinite(pairs["difference"])]

    resamples: dict[tuple[int, int], tuple[NDArray, NDArray]] = {}
    rows = []
    for cell, group in pairs.groupby(CELL_COLUMNS, observed=True):
        table = group.pivot(index="seed", columns="image", values="difference").to_numpy(float)
        if table.shape not in resamples:
            resamples[table.shape] = _resample(seed, table.shape, n_resamples)
        low, high = _interval(table, *resamples[table.shape])
        difference = float(np.nanmean(table, axis=1).mean())
        rows.append((*cell, difference, low, high, *table.shape))
    return pd.DataFrame(
        rows, columns=[*CELL_COLUMNS, "difference", "low", "high", "n_seeds", "n_images"]
    )


def _pair(methods: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Join both sides on equal label counts, and label-free runs with every other count."""
    keys = [c for c in (*RUN_COLUMNS, "image", "metric") if c not in ("method", "n_labelled")]
    free, reference_free = methods["n_labelled"] == 0, reference["n_labelled"] == 0
    suffixes = ("", "_reference")
    joined = [
        methods.merge(reference, on=[*keys, "n_labelled"], suffixes=suffixes),
        methods[free]
        .drop(columns="n_labelled")
        .merge(reference[~reference_free], on=keys, suffixes=suffixes),
        methods[~free].merge(
            reference[reference_free].drop(columns="n_labelled"), on=keys, suffixes=suffixes
        ),
    ]
    return pd.concat(joined, ignore_index=True)


def _resample(seed: int, shape: tuple[int, int], n: int) -> tuple[NDArray, NDArray]:
    """Return how often each seed (n, n_seeds) and each image (n, n_images) is drawn."""
    random = generator(seed, "bootstrap", *shape)
    seeds, images = (random.multinomial(k, np.full(k, 1 / k), size=n) for k in shape)
    return seeds.astype(float), images.astype(float)


def _interval(
    table: NDArray[np.float64], seeds: NDArray[np.float64], images: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the percentile interval for differences of shape (n_seeds, n_images), NaN: no pair."""
    if table.size == 1:
        return float("nan"), float("nan")
    present = np.isfinite(table)
    # Not by BLAS, whose threads would wait for each other longer than they compute.
    per_seed = partial(np.einsum, "ri,si->rs", images)
    drawn = per_seed(present.astype(float))  # (resample, seed): drawn images that this seed has
    # Sums around the mean keep a constant difference constant in floating point.
    centre = float(np.nanmean(table))
    deviations = per_seed(np.where(present, table - centre, 0.0))
    weights = np.where(drawn > 0, seeds, 0.0)
    means = deviations / np.maximum(drawn, 1)
    total = weights.sum(axis=1)
    kept = total > 0
    statistic = (weights * means).sum(axis=1)[kept] / total[kept] + centre
    low, high = np.quantile(statistic, [0.025, 0.975])
    return float(low), float(high)
