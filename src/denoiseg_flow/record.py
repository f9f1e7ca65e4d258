"""The record of which images a model was used on, and what became of each: ``images.tsv``.

Jobs that share a folder add to files of their own: to one for each shard of the images, which a
checksum of the name decides. They are joined when all jobs are done.
"""

import csv
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from denoiseg_flow.data.tif_files import other_files

SHARDS = 1024  # a power of two, and so many jobs at most can share a folder


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
    table: str = ""
    """SHA-256 checksum of the table of these objects."""
    failed: str = ""
    """Why it failed; empty if it did not."""

    @classmethod
    def of(cls, image: str, source: Path, model: str) -> "Entry":
        """Return the entry of an image that nothing has become of yet."""
        return cls(image, str(source), *state(source), model)

    def is_of(self, other: "Entry") -> bool:
        """Whether both are of the same image file in the same state."""
        mine, others = astuple(self), astuple(other)
        return mine[1:4] == others[1:4]


def state(source: Path) -> tuple[int, int]:
    """Return bytes and time of change (ns) of an image file, 0 and 0 if it is not there."""
    # An OME-Zarr image is a folder of many files, and an OME-TIFF may be in several.
    others = source.rglob("*") if source.is_dir() else map(source.with_name, other_files(source))
    try:
        found = [path.stat() for path in (source, *others)]
    except OSError:  # such as a link to nowhere: whoever opens it says so
        return 0, 0
    return sum(each.st_size for each in found), max(each.st_mtime_ns for each in found)


def shard(image: str) -> int:
    """Return the number of the shard that an image belongs to, whatever others there are."""
    # Not a CRC: it gives names that are numbered most uneven shares.
    digest = hashlib.blake2b(os.fsencode(image), digest_size=4).digest()
    return int.from_bytes(digest) % SHARDS


class Record:
    """What became of the images of a folder of results, known from the moment it is added."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "images.tsv"
        self.added = folder / ".record"

    def read(self, images: Iterable[str] | None = None) -> dict[str, Entry]:
        """Return the last entry of each image.

        Parameters
        ----------
        images
            Whose entries are wanted for sure; None: those of all. Of others, what was added since
            the last :meth:`replace` may be missing.
        """
        shards = range(SHARDS) if images is None else sorted(set(map(shard, images)))
        paths = [self.path, *map(self._shard, shards)]
        return {entry.image: entry for path in paths for entry in _entries(path)}

    def add(self, entry: Entry) -> None:
        """Add an entry, which counts from now on."""
        self.added.mkdir(exist_ok=True)
        with self._shard(shard(entry.image)).open("a", encoding="utf-8", newline="") as file:
            file.write("\n")  # ends an entry that was cut off, if there is one
            _table(file).writerow(astuple(entry))

    def replace(self, entries: Iterable[Entry]) -> None:
        """Make these all the entries; at every moment, a process that is killed loses none."""
        partial = self.path.with_name(f".{self.path.name}.partial")
        with partial.open("w", encoding="utf-8", newline="") as file:
            _table(file).writerow(field.name for field in fields(Entry))
            _table(file).writerows(map(astuple, entries))
        os.replace(partial, self.path)
        shutil.rmtree(self.added, ignore_errors=True)

    def _shard(self, number: int) -> Path:
        return self.added / f"{number}.tsv"


def _entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a file, but for damaged ones, such as one that was cut off by a kill."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        while True:
            entry = None
            with suppress(csv.Error, ValueError):  # the image of such a row is done again
                if (row := next(rows, None)) is None:
                    return
                if len(row) == len(fields(Entry)) and Path(row[0]).name == row[0]:
                    objects = int(row[5]) if row[5].isdecimal() else row[5]
                    entry = Entry(*row[:2], int(row[2]), int(row[3]), row[4], objects, *row[6:])
            if entry:
                yield entry


def _table(file: TextIO) -> Any:
    return csv.writer(file, delimiter="\t", lineterminator="\n")
