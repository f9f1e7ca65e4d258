"""What a user says about the division of a dataset: subsets, groups and ranks of its images.

It comes from a table, from the subfolders of the images, or (groups only) from their file names or
their place in a plate.
"""

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from denoiseg_flow.data.files.microscopes import is_scene
from denoiseg_flow.data.files.plates import place_of
from denoiseg_flow.data.manifest import SUBSETS
from denoiseg_flow.data.store import is_formula, stem
from denoiseg_flow.errors import InputError, plain, shown

#: Columns of the table of a split, besides the image.
SAID = ("subset", "group", "rank")
FOLDER = "folder"
WELL, PLATE = "well", "plate"
_LIKE = 0.8  # similarity of two names from which on one may be a misspelling of the other


@dataclass(frozen=True)
class SplitFile:
    """The table of a split.

    Attributes
    ----------
    path
        Its file.
    rows
        One row per image: line (in the file), image (as written) and those of the columns
        :data:`SAID` that the file has; rank is Int64, with <NA> for images without.
    """

    path: Path
    rows: pd.DataFrame

    @classmethod
    def read(cls, path: str | Path) -> "SplitFile":
        """Read comma- or tab-separated text.

        Raises
        ------
        InputError
            If the file is missing or no table, lacks columns, or has a cell that cannot be used.
        """
        path = Path(path)
        lines = _lines(path)
        _, header = next(lines, (1, []))
        columns = _columns(path, header)
        rows = []
        for line, cells in lines:
            if len(cells) != len(header):
                raise InputError(
                    f"{path}, line {line} has {len(cells)} cells, but the first line has "
                    f"{len(header)}; correct it"
                )
            row = {name: cells[place] for name, place in columns.items()}
            rows.append({"line": line} | _checked(row, f"{path}, line {line}"))
        if not rows:
            raise InputError(f"{path} names no image; write a line for each")
        table = pd.DataFrame(rows)
        if "rank" in table:
            table["rank"] = table["rank"].astype("Int64")
            again = table["rank"].duplicated() & table["rank"].notna()
            if again.any():
                row = table[again].iloc[0]
                raise InputError(
                    f"{path}, line {row['line']}: rank {row['rank']} is given twice; number the "
                    "images in the order of their annotation"
                )
        return cls(path, table)

    def of_images(self, images: pd.DataFrame) -> pd.DataFrame:
        """Return the row of each image, with the index of the images.

        Parameters
        ----------
        images
            Columns image, source and annotated of a manifest. A row of the table names a source,
            with all its images, by its path with or without ending, or a single image.

        Raises
        ------
        InputError
            If the table names an image that does not exist, names one twice or not at all, or ranks
            one without a mask.
        """
        places: dict[str, list[int]] = {}
        for place, (source, image) in enumerate(
            zip(images["source"], images["image"], strict=True)
        ):
            for name in {_without_ending(source), image}:
                places.setdefault(name, []).append(place)
        row_of: dict[int, int] = {}
        for number, (line, name) in enumerate(
            zip(self.rows["line"], self.rows["image"], strict=True)
        ):
            found = places.get(_without_ending(name))
            if found is None:
                raise InputError(
                    f"{self.path}, line {line}: the dataset has no image {shown(name)}; correct "
                    "the name, or remove the line"
                )
            for place in found:
                if place in row_of:
                    raise InputError(
                        f"{self.path}, line {line}: image {shown(name)} is named in line "
                        f"{self.rows['line'][row_of[place]]} already; remove one of the two lines"
                    )
                row_of[place] = number
        lacking = [name for place, name in enumerate(images["source"]) if place not in row_of]
        if lacking:
            more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
            raise InputError(
                f"{self.path} does not name image {plain(lacking[0])}{more}; write a line for "
                "each image, or move images that are not to be used out of their folder"
            )
        rows = self.rows.iloc[[row_of[place] for place in range(len(images))]]
        rows = rows.set_index(images.index)
        if "rank" in rows:
            self.check_ranks(rows, images["annotated"] == 1, "has no mask; add it")
        return rows

    def check_ranks(self, rows: pd.DataFrame, allowed: pd.Series, but: str) -> None:
        """Raise InputError if an image is ranked, but not allowed to be.

        Parameters
        ----------
        rows, allowed
            Rows of images, see :meth:`of_images`, and which of them may have a rank.
        but
            Why the others may not, and the fix.
        """
        wrong = rows[rows["rank"].notna() & ~allowed]
        if len(wrong):
            line, rank = wrong[["line", "rank"]].iloc[0]
            raise InputError(
                f"{self.path}, line {line}: the image has rank {rank}, which is the order in which "
                f"training images are annotated, but {but}, or leave the rank empty"
            )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
            for cells in reader:
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield reader.line_num, stripped
    except FileNotFoundError:
        raise InputError(
            f"{path} (config key 'split.file') does not exist; correct its path"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} (config key 'split.file') cannot be read as a table ({plain(error)}); save it "
            "as comma- or tab-separated text in UTF-8"
        ) from None


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Return the places of the known columns."""
    known = ("image", *SAID)
    columns = {name: place for place, name in enumerate(header) if name in known}
    for name in header:
        lacking = [each for each in known if each not in columns]
        meant = get_close_matches(name.lower(), lacking, n=1, cutoff=_LIKE)
        if meant and name not in known:
            raise InputError(
                f"{path} has a column {shown(name)}; did you mean '{meant[0]}'? Rename it"
            )
    if len(set(header) & set(known)) < sum(name in known for name in header):
        raise InputError(f"{path} has two columns of one name in its first line; rename one")
    if "image" not in columns or len(columns) < 2:
        raise InputError(
            f"the first line of {path} must name the column image, and one or more of subset, "
            "group and rank, separated by commas or tabs"
        )
    return columns


def _checked(row: dict[str, str], where: str) -> dict[str, Any]:
    """Return the cells of a row as values."""
    if not row["image"]:
        raise InputError(f"{where}: column image is empty; write the name of an image file")
    if "subset" in row and row["subset"] not in SUBSETS:
        raise InputError(
            f"{where}: subset {shown(row['subset'])} is unknown; write train, val or test"
        )
    if "group" in row:
        row["group"] = _checked_group(row["group"], where)
    if "rank" not in row:
        return row
    return row | {"rank": _rank(row["rank"], where)}


def _rank(cell: str, where: str) -> int | None:
    if not cell:
        return None
    try:
        value = float(cell)  # tables with empty cells are often written as 3.0
    except ValueError:
        value = 0
    if not 1 <= value < 2**53 or value != int(value):
        raise InputError(
            f"{where}: rank {shown(cell)} is not a whole number from 1; number the images in the "
            "order of their annotation, or leave it empty"
        )
    return int(value)


def _checked_group(name: str, where: str) -> str:
    """Return a name that can be written into tables."""
    if not name:
        raise InputError(f"{where}: the group is empty; name the group of each image")
    if not name.isprintable() or is_formula(name):
        raise InputError(
            f"{where}: group {name!a} has unprintable characters, or is a formula to a "
            "spreadsheet; rename it"
        )
    return unicodedata.normalize("NFC", name)


def _without_ending(name: str) -> str:
    """Return the path of an image without its ending."""
    path = PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/"))
    return (path.parent / stem(path.name)).as_posix()


def subfolders(how: Mapping[str, Any] | str) -> tuple[str, ...]:
    """Return what each level of subfolders stands for, see :func:`folders.find`."""
    if isinstance(how, str):
        return ()
    return tuple(kind for kind in ("subset", "group") if how.get(kind) == FOLDER)


def subset_of(source: str, levels: Sequence[str]) -> str:
    """Return the subset that a file's first subfolder stands for; empty if for none.

    Parameters
    ----------
    source
        Path of the file in the folder of images.
    levels
        See :func:`subfolders`.
    """
    return PurePosixPath(source).parts[0] if "subset" in levels else ""


def is_given(how: Mapping[str, Any] | str) -> bool:
    """Return whether a split says more than how to draw images at random."""
    return isinstance(how, str) or any(how.get(key) for key in ("file", "subset", "group"))


def said_columns(how: Mapping[str, Any] | str) -> set[str]:
    """Return what a split says of each image: some of :data:`SAID`.

    Raises
    ------
    InputError
        If it says something twice, its table cannot be used, or its pattern of groups is invalid.
    """
    if isinstance(how, str):
        return {"subset"}
    keys = {key for key in ("subset", "group") if how.get(key)}
    if "group" in keys and how["group"] not in (FOLDER, WELL, PLATE):
        _pattern(how["group"])
    columns = set(SplitFile.read(how["file"]).rows) & set(SAID) if how.get("file") else set()
    for key in sorted(keys & columns):
        raise InputError(
            f"config key 'split.{key}' is set, but {how['file']} has a column {key}, too; remove "
            "one of them"
        )
    return keys | columns


def what_is_said(images: pd.DataFrame, how: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the split says of each image.

    Parameters
    ----------
    images
        Columns image, source, annotated and given_subset of a manifest.
    how
        The keys file, subset and group of a split.

    Returns
    -------
    pandas.DataFrame
        Some of the columns :data:`SAID`, with the index of the images.

    Raises
    ------
    InputError
        As :func:`said_columns` and :meth:`SplitFile.of_images`; if a group is in two subsets, or an
        image outside the subset train is ranked.
    """
    columns = said_columns(how)
    said = pd.DataFrame(index=images.index)
    file = SplitFile.read(how["file"]) if how.get("file") else None
    if file:
        said = file.of_images(images)
    if how.get("subset"):
        said["subset"] = images["given_subset"]
    if how.get("group"):
        said["group"] = [group_of(source, how["group"]) for source in images["source"]]
    if file and {"subset", "rank"} <= columns:
        training = said["subset"] == "train"
        file.check_ranks(said, training, "is not for training; move it to the subset train")
    if {"subset", "group"} <= columns:
        _check_groups(images.assign(**said[["subset", "group"]]))
    return said[[name for name in SAID if name in said]]


def _check_groups(images: pd.DataFrame) -> None:
    """Raise InputError if a group is in two subsets."""
    for group, members in images.groupby("group", sort=False):
        first = members.iloc[0]
        others = members[members["subset"] != first["subset"]]
        if len(others):
            other = others.iloc[0]
            raise InputError(
                f"group {shown(group)} is in two subsets: {plain(first['source'])} is for "
                f"{first['subset']}, {plain(other['source'])} for {other['subset']}; put all "
                "images of a group into one"
            )


def group_of(source: str, how: str) -> str:
    """Return the group of a file: its subfolder, well or plate, or what a pattern finds.

    Parameters
    ----------
    source
        Path of the file in the folder of images.
    how
        :data:`FOLDER`, :data:`WELL`, :data:`PLATE`, or a regular expression with one group.
    """
    path = PurePosixPath(source)
    place = place_of(path)
    if how == FOLDER:
        whole = place.plate if place else path.parent if is_scene(path) else path
        return _checked_group(whole.parent.name, f"folder of {source}")
    if how in (WELL, PLATE):
        if not place:
            raise InputError(
                f"config key 'split.group' is '{how}', but image {plain(source)} is in no plate; "
                "give plates of OME-Zarr, or write a pattern that finds the group in file names"
            )
        name = "_".join(map(stem, place.plate.parts))
        return _checked_group(f"{name}_{place.well}" if how == WELL else name, plain(source))
    found = _pattern(how).search(unicodedata.normalize("NFC", source))
    if not found or not found[1]:
        raise InputError(
            f"config key 'split.group' is {shown(how)}, which finds no group in the name of "
            f"{plain(source)}; write a pattern that fits all names, or give a table with a column "
            "group"
        )
    return _checked_group(found[1], plain(source))


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(
            f"config key 'split.group' is {shown(text)}, which is no regular expression ({error})"
            "; correct it, or write 'folder', 'well' or 'plate'"
        ) from None
    if pattern.groups != 1:
        raise InputError(
            f"config key 'split.group' is {shown(text)}, which has {pattern.groups} pairs of "
            "parentheses; put one pair around the part of the file name that names the group, "
            "or write 'folder', 'well' or 'plate'"
        )
    return pattern
