"""The record of predicted images and their results: ``images.tsv``.

Jobs that share a folder append to separate files, one for each shard of the images; a checksum of
the image name decides the shard. The files are joined when all jobs are done.
"""

import csv
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from denoiseg_flow.data.files.microscopes import file_of
from denoiseg_flow.data.files.tif import other_files
from denoiseg_flow.jobs.atomic import new_file

SHARDS = 1024  # a power of two, and the largest number of jobs that can share a folder
FORMS = ("tif", "ome.zarr")  # file formats of images
AGAIN = "run the same command again to predict it anew"
INTERRUPTED = f"it was interrupted; {AGAIN}"


@dataclass(frozen=True)
class Entry:
    """One image and the state of its results."""

    image: str
    source: str
    """Path of the file; a relative path is stored relative to the folder of results."""
    size: int
    """Bytes of the file, or of all files of an OME-Zarr image."""
    modified: int
    """Time of the last change, in nanoseconds since 1970."""
    model: str
    """SHA-256 checksum of the model file."""
    objects: int | str = ""
    """Number of objects; empty for models that only denoise, and for images that failed."""
    table: str = ""
    """SHA-256 checksum of the object table."""
    failed: str = ""
    """Reason of the failure; empty for predicted images."""
    warned: str = ""
    """Warnings about the reliability of the results; empty if there are none."""
    results: str = ""
    """Results that may exist, as folders and endings: ``denoised.tif overlays.png``."""
    confidence: str = ""
    """Confidence of the labels, see :mod:`~denoiseg_flow.evaluation.confidence`; empty if it is
    unknown, and for models without class probabilities."""

    @classmethod
    def of(cls, image: str, source: Path, model: str) -> "Entry":
        """Return the entry of an image without results."""
        return cls(image, str(source), *state(source), model)

    def is_of(self, other: "Entry") -> bool:
        """Return whether both entries describe the same, unchanged image file."""
        same_state = (self.size, self.modified) == (other.size, other.modified)
        return same_state and self.is_from(other.source)

    def is_from(self, source: str | Path) -> bool:
        """Return whether ``source`` is the image file, however its path is written."""
        return os.path.abspath(self.source) == os.path.abspath(source)

    def files(self, folder: Path) -> list[Path]:
        """Return the files of the image that may exist in a folder of results."""
        return files_of(self.image, self.results.split(), folder)


def results_in(form: str, denoised: bool = True, segmented: bool = True) -> list[str]:
    """Return the results of an image as in :attr:`Entry.results`, for a file format ``form``."""
    segments = [f"labels.{form}", "overlays.png", "objects.csv"]
    return [f"denoised.{form}"] * denoised + segments * segmented


def files_of(image: str, results: Iterable[str], folder: Path) -> list[Path]:
    """Return the paths of the results of an image, see :func:`results_in`."""
    parts = (each.partition(".") for each in results)
    return [folder / kind / f"{image}.{ending}" for kind, _, ending in parts]


def state(source: Path) -> tuple[int, int]:
    """Return size (bytes) and time of change (ns) of an image file; 0 and 0 if it is missing."""
    source = file_of(source) or source  # of a scene
    # An OME-Zarr image is a folder of many files, and an OME-TIFF may be in several.
    others = source.rglob("*") if source.is_dir() else map(source.with_name, other_files(source))
    try:
        found = [path.stat() for path in (source, *others)]
    except OSError:  # such as a broken link; opening it will raise the error
        return 0, 0
    return sum(each.st_size for each in found), max(each.st_mtime_ns for each in found)


def shard(image: str) -> int:
    """Return the shard of an image; it depends only on the name."""
    # A CRC would divide numbered names very unevenly.
    digest = hashlib.blake2b(os.fsencode(image), digest_size=4).digest()
    return int.from_bytes(digest) % SHARDS


_ALL = {each for form in FORMS for each in results_in(form)}


class Record:
    """The record of the images in a folder of results; entries count as soon as they are added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "images.tsv"
        self.added = folder / ".record"

    def read(self, images: Iterable[str] | None = None) -> dict[str, Entry]:
        """Return the last entry of each image.

        Parameters
        ----------
        images
            Images whose latest entries must be included; None: all. Other images may lack entries
            added since the last :meth:`replace`.
        """
        return {entry.image: entry for entry in self._entries(images)}

    def joined(self) -> Iterator[Entry]:
        """Yield the entries of the last :meth:`replace`."""
        return _entries(self.path, self.folder)

    def is_one(self) -> bool:
        """Return whether ``images.tsv`` is a record, not another table of that name."""
        with self.path.open("rb") as file:
            return file.read(6) == b"image\t"

    def has_tables(self) -> bool:
        """Return whether object tables may exist."""
        return any("objects.csv" in entry.results for entry in self._entries())

    def add(self, entry: Entry) -> None:
        """Append an entry, which replaces earlier ones of the same image."""
        self.added.mkdir(exist_ok=True)
        with self._shard(shard(entry.image)).open("a", encoding="utf-8", newline="") as file:
            file.write("\n")  # in case the last entry was truncated
            _table(file).writerow(self._row(entry))

    def replace(self, entries: Iterable[Entry]) -> None:
        """Replace all entries; none is lost if the process is killed."""
        with (
            new_file(self.path) as unfinished,
            unfinished.open("w", encoding="utf-8", newline="") as file,
        ):
            _table(file).writerow(field.name for field in fields(Entry))
            _table(file).writerows(map(self._row, entries))
        shutil.rmtree(self.added, ignore_errors=True)

    def _row(self, entry: Entry) -> tuple[str | int, ...]:
        """Return the entry as written, with a path that stays valid if the study moves."""
        source = _moved(entry.source, start=str(self.folder))
        return tuple(source if name == "source" else each for name, each in vars(entry).items())

    def _entries(self, images: Iterable[str] | None = None) -> Iterator[Entry]:
        """Yield the entries for :meth:`read`, earlier ones of an image first."""
        shards = range(SHARDS) if images is None else sorted(set(map(shard, images)))
        shards = shards if self.added.exists() else []
        for path in (self.path, *map(self._shard, shards)):
            yield from _entries(path, self.folder)

    def _shard(self, number: int) -> Path:
        return self.added / f"{number}.tsv"


def _entries(path: Path, folder: Path) -> Iterator[Entry]:
    """Yield the entries of a file; skip damaged ones, such as those truncated by a kill."""
    if not path.exists():
        return
    columns = [field.name for field in fields(Entry)]
    without_confidence = columns[:-1]
    without_results = columns[: columns.index("warned")]
    width = len(columns)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        while True:
            entry = None
            with suppress(csv.Error, ValueError):  # the image of such a row is predicted again
                if (row := next(rows, None)) is None:
                    return
                if row in (without_confidence, without_results):
                    width = len(row)
                if len(row) == width and Path(row[0]).name == row[0]:
                    objects = int(row[5]) if row[5].isdecimal() else row[5]
                    # The oldest version wrote paths as they were given.
                    oldest = width == len(without_results)
                    source = row[1] if oldest else _moved(row[1], inside=str(folder))
                    sizes = int(row[2]), int(row[3])
                    found = Entry(row[0], source, *sizes, row[4], objects, *row[6:])
                    found = _with_results(found) if oldest else found
                    entry = found if set(found.results.split()) <= _ALL else None
            if entry:
                yield entry


def _with_results(entry: Entry) -> Entry:
    """Return an entry of the oldest version with all that there may be of it."""
    segmented = entry.objects != "" or entry.failed.endswith(AGAIN)
    done = not entry.failed or segmented
    found = [each for form in FORMS for each in results_in(form, True, segmented) if done]
    return replace(entry, results=" ".join(dict.fromkeys(found)))


def _moved(source: str, inside: str = "", start: str = "") -> str:
    """Convert a path relative to the folder ``inside`` into one relative to ``start``.

    Both default to the working directory. Absolute paths stay unchanged.
    """
    if os.path.isabs(source):
        return source
    folder, name = os.path.split(source)
    return os.path.join(_way(inside, folder, start, os.getcwd()), name)


@lru_cache  # because most images are in the same folder
def _way(inside: str, folder: str, start: str, _: str) -> str:
    way = os.path.relpath(os.path.join(inside, folder or "."), start or None)
    return "" if way == "." else way


def _table(file: TextIO) -> Any:
    return csv.writer(file, delimiter="\t", lineterminator="\n")
