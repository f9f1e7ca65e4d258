"""Plates of OME-Zarr, as high-content screens write them: each field of a well is an image.

Below the folder of a plate are those of its rows, columns and fields: ``plate.zarr/A/1/0``.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from denoiseg_flow.data.files.ome_zarr import attributes_in, metadata_in
from denoiseg_flow.errors import InputError, plain

_NAME = re.compile(r"\w[\w.+-]*", re.ASCII)  # of a row, column or field


class Place(NamedTuple):
    """Where an image is in a plate."""

    plate: PurePath
    """Folder of the plate."""
    well: str
    """Row and column: A1."""
    field: str


def place_of(image: PurePath) -> Place | None:
    """Return where an image is in a plate, by its path alone; None if it is in none."""
    if len(image.parts) < 4:
        return None
    plate, row, column, field = image.parts[-4:]
    return Place(image.parents[2], row + column, field) if _is_named(plate) else None


def is_plate(path: Path) -> bool:
    """Return whether a folder, whose name ends in .zarr, is a plate."""
    if not _is_named(path.name):
        return False
    text = metadata_in(path)
    try:
        return b'"plate"' in text and "plate" in attributes_in(text)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return b'"multiscales"' not in text  # a damaged plate, and reading it says so


def _is_named(folder: str) -> bool:
    return folder.lower().endswith(".zarr")


def fields_of(plate: Path) -> dict[str, Path]:
    """Return the folders of all fields of a plate, by names such as ``A1_f0``.

    Reads the metadata of the plate and its wells, and no pixels.

    Raises
    ------
    InputError
        If these are damaged or do not fit what there is, or the plate has no field.
    """
    try:
        fields: dict[str, Path] = {}
        for well in _wells(plate):
            for image in _attributes(plate / well)["well"]["images"]:
                path = well / _checked(image["path"], 1)
                name = "{}{}_f{}".format(*path.parts)
                if name in fields:
                    raise ValueError(f"two fields would be named {name}")
                fields[name] = plate / path
                if not fields[name].is_dir():
                    raise ValueError(f"field {path.as_posix()} is not there")
        if not fields:
            raise ValueError("it has no fields")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(
            f"cannot read the plate {plate}, its metadata seem damaged or incomplete "
            f"({plain(reason)}); copy or export it again"
        ) from error
    return fields


def _wells(plate: Path) -> Iterator[PurePath]:
    for well in _attributes(plate)["plate"]["wells"]:
        yield _checked(well["path"], 2)


def _attributes(folder: Path) -> dict[str, Any]:
    text = metadata_in(folder)
    if not text:
        raise ValueError(f"{folder.name} has none")
    return attributes_in(text)


def _checked(path: Any, count: int) -> PurePath:
    """Return a path in a plate if it has so many parts, all of them plain names."""
    parts = str(path).split("/")
    if len(parts) != count or not all(map(_NAME.fullmatch, parts)):
        raise ValueError(f"path {path!r}")
    return PurePath(*parts)
