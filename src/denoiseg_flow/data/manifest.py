"""The tables of a dataset: its images (manifest), and the subset of each (split)."""

from pathlib import Path

import pandas as pd

from denoiseg_flow.errors import InputError, plain
from denoiseg_flow.jobs import checksums

MANIFEST_COLUMNS = (
    "image", "height", "width", "depth", "dtype", "annotated", "n_objects", "clean",
    "given_subset", "source",
)  # fmt: skip
SPLIT_COLUMNS = (
    "image", "subset", "annotated", "rank", "height", "width", "depth", "clean", "source",
)  # fmt: skip
SUBSETS = ("train", "val", "test")
# Of annotated images so few that each is used for both: trained on, and scored by a network that
# was trained without it.
CROSS = "cross"
TRAINED, TESTED = ("train", CROSS), ("test", CROSS)

_NUMBERS = ("height", "width", "depth", "annotated", "n_objects", "clean")


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Write a manifest or a split as tab-separated text, creating its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False, lineterminator="\n")


def read(path: str | Path) -> pd.DataFrame:
    """Read a manifest or a split.

    Returns
    -------
    pandas.DataFrame
        Names are text ("001" and "NA" stay what they are); height, width, annotated, n_objects
        and clean are integers; rank, in a split, is Int64 with <NA> where there is none.

    Raises
    ------
    InputError
        If it is neither, as after a change by hand.
    """
    checksums.verify(path)
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        columns = SPLIT_COLUMNS if "rank" in table else MANIFEST_COLUMNS
        table = table[list(columns)]
        for column in table.columns.intersection(_NUMBERS):
            table[column] = table[column].astype("int64")
        if "rank" in table:
            table["rank"] = pd.to_numeric(table["rank"].replace("", None)).astype("Int64")
        if table["image"].duplicated().any() or table["image"].str.contains("/").any():
            raise ValueError("names of images that are repeated or lead elsewhere")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path} is damaged or was changed by hand ({plain(error)}): delete it and run the "
            "workflow again"
        ) from error
    return table
