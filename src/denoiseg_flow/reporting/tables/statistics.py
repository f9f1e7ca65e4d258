"""From tidy metrics to means, error bars and paired differences.

Values are averaged over the images of a source (the file they come from), then over sources, then
over seeds: a stack of twenty z-slices says little more than one of its z-slices. The standard error
(SEM) is std(ddof=1) / sqrt(n) over the seeds, and NaN with one seed: it shows how much trainings
differ. For the uncertainty of differences see :mod:`intervals`.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Sequence
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.scoring import METRICS_COLUMNS, RUN_COLUMNS
from denoiseg_flow.jobs import checksums
from denoiseg_flow.reporting.tables.intervals import estimate_mean, holm

#: What identifies one number of a table: everything but seed and image.
CELL_COLUMNS = ["dataset", "noise", "method", "n_annotated", "metric"]

#: Name of the noisy input among the methods.
NOISY_INPUT = "noisy input"

# The default of pandas since 3.1; before, it changed last digits.
_OLD_PANDAS = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD_PANDAS else {}

_TYPES = {"n_annotated": "int64", "seed": "int64", "value": "float64"}


def read_metrics(paths: Iterable[Path]) -> pd.DataFrame:
    """Read many metrics.tsv files into one data frame, sorted by all its key columns.

    The joined text is parsed only once, which makes reading 10,000 small files fast.

    Raises
    ------
    InputError
        If a file is missing or damaged, has other columns or cannot be parsed, or if a row is
        duplicated.
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
                f"wrong columns in {path}, expected {', '.join(METRICS_COLUMNS)}; score this run "
                "again"
            )
        bodies.append(body if body.endswith("\n") or not body else body + "\n")
    try:
        frame = _parse(io.StringIO("".join([header, "\n", *bodies])), separator="\t")
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(
            f"cannot parse the metrics files: {error}; score the runs again"
        ) from error
    keys = METRICS_COLUMNS[:-1]
    # The codes of sorted categories sort like the text, only faster. They are converted after
    # parsing, because pandas would turn names like "001" into numbers.
    names = [column for column in keys if column not in _TYPES]
    frame = frame.astype(dict.fromkeys(names, "category"))
    frame = frame.sort_values(keys, kind="stable", ignore_index=True)
    repeated = frame.duplicated(keys)
    if repeated.any():
        row = ", ".join(str(frame.loc[repeated.idxmax(), key]) for key in keys)
        raise InputError(f"two metrics files contain the same row ({row}); pass each run once")
    return frame


def write_metrics_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write the data frame of :func:`read_metrics` as csv.

    The bytes are those of ``frame.to_csv``, which takes three times as long for millions of rows
    because it formats every name in every row.
    """
    run, place = (
        _joined(frame, columns) for columns in (RUN_COLUMNS, ["source", "image", "metric"])
    )
    values = ("\n" if value != value else f"{value!r}\n" for value in frame["value"].tolist())
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(",".join(METRICS_COLUMNS) + "\n")
        file.writelines(map(add, run + place, values))


def _joined(frame: pd.DataFrame, columns: list[str]) -> NDArray[np.object_]:
    """Return some columns as comma-separated text; rows with equal text share one object."""
    key = np.zeros(len(frame), dtype="int64")
    for column in columns:
        codes, values = pd.factorize(frame[column])
        key = key * len(values) + codes
    codes, _ = pd.factorize(key)
    _, first = np.unique(codes, return_index=True)
    table = frame[columns].iloc[first].to_csv(index=False, header=False, lineterminator=",\0")
    return np.array(table.split("\0"), dtype=object)[codes]


def read_metrics_csv(path: Path) -> pd.DataFrame:
    """Read the data frame that :func:`write_metrics_csv` wrote."""
    checksums.verify(path)
    return _parse(path, separator=",")


def _parse(source: Path | io.StringIO, separator: str) -> pd.DataFrame:
    """Parse metrics; names stay text, even if they look like numbers."""
    return pd.read_csv(
        source,
        sep=separator,
        dtype={column: _TYPES.get(column, "str") for column in METRICS_COLUMNS},
        keep_default_na=False,
        na_values={"value": ["", "nan"]},
        **_EXACT,
    )


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Average over the images of each source, over the sources of each run, then over seeds.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`read_metrics` returns them. NaN values (undefined for an image) are
        left out; an infinite PSNR stays infinite.

    Returns
    -------
    pandas.DataFrame
        dataset, noise, method, n_annotated, metric, mean, sem (NaN with one seed), n_seeds,
        n_sources and n_images (both distinct), sorted by these columns.
    """
    known = metrics.dropna(subset=["value"])
    sources = known.groupby([*CELL_COLUMNS, "seed", "source"], observed=True)["value"].mean()
    runs = sources.groupby(level=[*CELL_COLUMNS, "seed"], observed=True).mean()
    cells = runs.groupby(level=CELL_COLUMNS, observed=True)
    with np.errstate(invalid="ignore"):
        summary = cells.agg(mean="mean", sem="sem", n_seeds="size")
    summary["n_sources"] = known.groupby(CELL_COLUMNS, observed=True)["source"].nunique()
    summary["n_images"] = known.groupby(CELL_COLUMNS, observed=True)["image"].nunique()
    return summary.reset_index()


def noisy_input(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics of the noisy input, once per image and seed.

    Every run repeats the metrics of its noisy test images, such as PSNR_noisy. They become the
    metrics, such as PSNR, of the method "noisy input" with n_annotated 0.
    """
    rows = metrics[metrics["metric"].str.endswith("_noisy")]
    rows = rows.drop_duplicates(["dataset", "noise", "seed", "image", "metric"])
    return rows.assign(
        method=NOISY_INPUT, n_annotated=0, metric=rows["metric"].str.removesuffix("_noisy")
    )


def denoising_summary(metrics: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Return :func:`summarise` of the named metrics, including those of the noisy input.

    The noisy input has no error bar: the noise does not depend on the seed, and the spread over
    seeds would only reflect the choice of images.
    """
    both = pd.concat([metrics, noisy_input(metrics)])
    summary = summarise(both[both["metric"].isin(list(names))])
    summary.loc[summary["method"] == NOISY_INPUT, "sem"] = np.nan
    return summary


def paired_differences(
    metrics: pd.DataFrame,
    reference: str,
    metric_names: Collection[str],
    untrained: Collection[str] = (),
) -> pd.DataFrame:
    """Return the difference of each method from the reference, with its 95% confidence interval.

    Values are paired by dataset, noise, n_annotated, seed and image. A method without annotated
    images (only n_annotated 0) is paired with every n_annotated of the reference, and vice versa.
    :func:`intervals.estimate_mean` gives means and intervals from the mean differences of each
    source.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`read_metrics` returns them.
    reference
        The method that is subtracted.
    metric_names
        Metrics to compare.
    untrained
        Methods with the same result for every seed.

    Returns
    -------
    pandas.DataFrame
        dataset, noise, method, n_annotated, metric, difference, low, high and p (NaN if there are
        too few seeds or sources for an interval), from_seeds, n_seeds, n_sources, n_images, and
        p_adjusted (for the number of methods with the same dataset, noise, n_annotated and
        metric). Pairs whose difference is not finite are left out.
    """
    used = metrics[metrics["metric"].isin(list(metric_names))]
    is_reference = used["method"] == reference
    pairs = _pair(used[~is_reference], used[is_reference].drop(columns="method"))
    with np.errstate(invalid="ignore"):
        pairs["difference"] = pairs["value"] - pairs["value_reference"]
    pairs = pairs[np.isfinite(pairs["difference"])]
    rows = []
    for cell, group in pairs.groupby(CELL_COLUMNS, observed=True):
        table = group.pivot_table(
            index="seed", columns="source", values="difference", observed=True
        ).to_numpy(float)
        method = cell[CELL_COLUMNS.index("method")]
        estimate = estimate_mean(table, not {method, reference} <= set(untrained))
        rows.append((*cell, *estimate, *table.shape, group["image"].nunique()))
    columns = ["difference", "low", "high", "p", "from_seeds", "n_seeds", "n_sources", "n_images"]
    found = pd.DataFrame(rows, columns=[*CELL_COLUMNS, *columns])
    setting = found.groupby([name for name in CELL_COLUMNS if name != "method"])
    return found.assign(p_adjusted=setting["p"].transform(holm))


def most_annotated(metrics: pd.DataFrame, groups: Sequence[str]) -> pd.Series:
    """Return for each row the largest n_annotated of its group: 0 for methods that use none."""
    return metrics.groupby(list(groups), observed=True)["n_annotated"].transform("max")


def _pair(methods: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Join both sides on equal n_annotated, and methods that use none with all others."""
    keys = ["dataset", "noise", "seed", "source", "image", "metric"]
    free = most_annotated(methods, ["dataset", "noise", "method"]) == 0
    reference_free = most_annotated(reference, ["dataset", "noise"]) == 0
    suffixes = ("", "_reference")
    joined = [
        methods.merge(reference, on=[*keys, "n_annotated"], suffixes=suffixes),
        methods[free]
        .drop(columns="n_annotated")
        .merge(reference[reference["n_annotated"] > 0], on=keys, suffixes=suffixes),
        methods[methods["n_annotated"] > 0].merge(
            reference[reference_free].drop(columns="n_annotated"), on=keys, suffixes=suffixes
        ),
    ]
    return pd.concat(joined, ignore_index=True)
