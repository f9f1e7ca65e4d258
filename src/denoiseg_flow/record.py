"""The record of which images a model was used on, and what became of each: ``images.tsv``."""

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class Entry:
    """One image, and what became of it."""

    image: str
    source: str
    size: int
    """Bytes of the file, or of all files of an OME-Zarr image."""
    modified: int
    """When it was last changed, in nanoseconds since 1970."""
    model: str
    """SHA-256 checksum of the model's file."""
    objects: int | str = ""
    """How many were found; empty for models that only denoise, and for images that failed."""
    failed: str = ""
    """Why it failed; empty if it did not."""

    @classmethod
    def of(cls, image: str, source: Path, model: str) -> "Entry":
        """Return the entry of an image that nothing has become of yet."""
        # An OME-Zarr image is a folder of many files.
        files = [source, *(source.rglob("*") if source.is_dir() else ())]
        found = [path.stat() for path in files]
        size, modified = sum(each.st_size for each in found), max(s.st_mtime_ns for s in found)
        return cls(image, str(source), size, modified, model)

    def is_of(self, other: "Entry") -> bool:
        """Whether both are of the same image file in the same state."""
        mine, others = astuple(self), astuple(other)
        return mine[1:4] == others[1:4]


class Record:
    """A table of entries in a file, to which each is added as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Iterator[Entry]:
        """Yield the entries, but for damaged ones, such as one that was cut off by a kill."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = csv.reader(file, delimiter="\t")
            while True:
                entry = None
                with suppress(csv.Error, ValueError):  # the image of such a row is done again
                    if (row := next(rows, None)) is None:
                        return
                    if len(row) == len(fields(Entry)) and Path(row[0]).name == row[0]:
                        entry = Entry(row[0], row[1], int(row[2]), int(row[3]), *row[4:])
                if entry:
                    yield entry

    def write(self, entries: Iterable[Entry]) -> None:
        """Replace all entries; at every moment there is a complete file."""
        partial = self.path.with_name(f".{self.path.name}.partial")
        with partial.open("w", encoding="utf-8", newline="") as file:
            _table(file).writerow(field.name for field in fields(Entry))
            _table(file).writerows(map(astuple, entries))
        os.replace(partial, self.path)

    def append(self, entry: Entry) -> None:
        """Add an entry."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            _table(file).writerow(astuple(entry))


def _table(file: TextIO) -> Any:
    return csv.writer(file, delimiter="\t", lineterminator="\n")
