"""Read and write the tables of a dataset: its images (manifest) and their subsets (split)."""

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
#: A further column of splits with groups of images, which are divided and averaged as a whole.
GROUP = "group"
SUBSETS = ("train", "val", "test")
# Subset of annotated images that are cross-validated: each is trained on, and also scored with a
# network trained without it.
CROSS = "cross"
TRAINED, TESTED = ("train", CROSS), ("test", CROSS)

_NUMBERS = ("height", "width", "depth", "annotated", "n_objects", "clean")


def units(table: pd.DataFrame) -> pd.Series:
    """Return what is divided and averaged as a whole: the group of each image, or its file."""
    return table[GROUP] if GROUP in table else table["source"]


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Write a manifest or a split as tab-separated text, creating its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False, lineterminator="\n")


def read(path: str | Path) -> pd.DataFrame:
    """Read a manifest or a split.

    Returns
    -------
    pandas.DataFrame
        Names are text ("001" and "NA" stay as they are); height, width, depth, annotated,
        n_objects and clean are integers; rank, in a split, is Int64 with <NA> for unranked images.
        A split with groups has the column group.

    Raises
    ------
    InputError
        If the table is damaged or was edited by hand.
    """
    checksums.verify(path)
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        columns = SPLIT_COLUMNS if "rank" in table else MANIFEST_COLUMNS
        table = table[[*columns, *table.columns.intersection([GROUP])]]
        for column in table.columns.intersection(_NUMBERS):
            table[column] = table[column].astype("int64")
        if "rank" in table:
            table["rank"] = pd.to_numeric(table["rank"].replace("", None)).astype("Int64")
        if table["image"].duplicated().any() or table["image"].str.contains("/").any():
            raise ValueError("duplicate image names, or names with a slash")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path} is damaged or was edited by hand ({plain(error)}); delete it and run the "
            "workflow again"
        ) from error
    return table
