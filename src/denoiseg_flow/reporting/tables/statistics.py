"""From tidy metrics to means, error bars and paired differences.

Values are averaged over the images of a source (the file they are from), then over the sources,
then over the seeds: a stack of twenty planes says little more than one of its planes. The standard
error (SEM) is std(ddof=1) / sqrt(n) over the seeds, and NaN with one seed: it tells how much
trainings differ. How sure a difference is, intervals tell, see :mod:`intervals`.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.scoring import METRICS_COLUMNS, RUN_COLUMNS
from denoiseg_flow.jobs import checksums
from denoiseg_flow.reporting.tables.intervals import estimate_mean, holm

#: What identifies one number of a table: everything but seed and image.
CELL_COLUMNS = ["dataset", "noise", "method", "n_annotated", "metric"]

#: How the noisy input is called where it stands among the methods.
NOISY_INPUT = "noisy input"

_TYPES = {"n_annotated": "int64", "seed": "int64", "value": "float64"}


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
    run, place = (
        _joined(frame, columns) for columns in (RUN_COLUMNS, ["source", "image", "metric"])
    )
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
    """Average over the images of each source of a run, over its sources, then over seeds.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`read_metrics` returns them. NaN values (undefined for that image)
        are left out; an infinite PSNR stays infinite.

    Returns
    -------
    pandas.DataFrame
        dataset, noise, method, n_annotated, metric, mean, sem (NaN with one seed), n_seeds,
        n_sources and n_images (distinct ones), sorted by these columns.
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
    """Return the metrics of the noisy input itself, once per image and seed.

    Every run repeats PSNR_noisy and SSIM_noisy of its test images; here they become the metrics
    PSNR and SSIM of the method "noisy input" with n_annotated 0.
    """
    rows = metrics[metrics["metric"].isin(["PSNR_noisy", "SSIM_noisy"])]
    rows = rows.drop_duplicates(["dataset", "noise", "seed", "image", "metric"])
    return rows.assign(
        method=NOISY_INPUT, n_annotated=0, metric=rows["metric"].str.removesuffix("_noisy")
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
    metric_names: Collection[str],
    untrained: Collection[str] = (),
) -> pd.DataFrame:
    """Return each method minus the reference, with its 95 % interval.

    Values are paired by dataset, noise, n_annotated, seed and image. A method that uses no labels
    (n_annotated 0) is paired with every label count of the reference, and the other way round.
    Means and intervals are those of :func:`intervals.estimate_mean`, of the
    mean differences of each source.

    Parameters
    ----------
    metrics
        Tidy metrics as :func:`read_metrics` returns them.
    reference
        The method that is subtracted.
    metric_names
        Metrics to compare.
    untrained
        Methods that give the same with every seed.

    Returns
    -------
    pandas.DataFrame
        dataset, noise, method, n_annotated, metric, difference, low, high and p (NaN where there
        are too few seeds or sources for an interval), from_seeds, n_seeds,
        n_sources, n_images, and p_adjusted, for all methods of the same dataset, noise,
        n_annotated and metric. Pairs whose difference is not finite are left out.
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


def _pair(methods: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Join both sides on equal label counts, and label-free runs with every other count."""
    keys = ["dataset", "noise", "seed", "source", "image", "metric"]
    free, reference_free = methods["n_annotated"] == 0, reference["n_annotated"] == 0
    suffixes = ("", "_reference")
    joined = [
        methods.merge(reference, on=[*keys, "n_annotated"], suffixes=suffixes),
        methods[free]
        .drop(columns="n_annotated")
        .merge(reference[~reference_free], on=keys, suffixes=suffixes),
        methods[~free].merge(
            reference[reference_free].drop(columns="n_annotated"), on=keys, suffixes=suffixes
        ),
    ]
    return pd.concat(joined, ignore_index=True)
