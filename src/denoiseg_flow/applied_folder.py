"""A folder of results on new images: who writes there, and what must not be written over."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from denoiseg_flow.errors import InputError
from denoiseg_flow.job_lock import sole_process
from denoiseg_flow.record import Record, files_of

UNFINISHED = ".unfinished_"  # beginning of the names of folders that a killed process leaves

_ELSEWHERE = (
    "move it away, or choose another folder for the results ('--out', or 'apply: {name: ...}' in "
    "the config)"
)


@contextmanager
def at_work(folder: Path, shared: bool = False) -> Iterator[None]:
    """Write to a folder of results, which is made if need be, while no other process does.

    Waits, and says for whom, while one does. What killed processes left half done is removed.

    Parameters
    ----------
    shared
        Whether other processes may write there as well, which share it too. Nothing is removed.

    Raises
    ------
    InputError
        If a file is in the place of the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder} is or lies in a file, not a folder: {_ELSEWHERE}") from None
    with sole_process(folder / ".lock", shared):
        for unfinished in () if shared else folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished)
        yield


def check_targets(images: Mapping[str, Path], folder: Path, results: Sequence[str]) -> None:
    """Check that nothing would be written over but results of the same images.

    Parameters
    ----------
    images
        Files of the images to predict, by name.
    folder
        Where to write.
    results
        What comes of each image, see :func:`record.results_in`.

    Raises
    ------
    InputError
        If there is a file in the place of a result, or of a table of all images, that the record
        of the folder does not know, or knows as that of another image file, or that is to be
        predicted itself.
    """
    record = Record(folder)
    tables = {record.path: record.is_one, folder / "objects.csv": record.has_tables}
    for path, is_known in tables.items():
        if os.path.lexists(path) and not is_known():
            raise InputError(
                f"{path} would be written over, but no earlier call made it: {_ELSEWHERE}"
            )
    inputs = {os.path.abspath(path) for path in images.values()}
    known = record.read(images)
    for name, source in images.items():
        entry = known.get(name)
        listed = entry.results.split() if entry else []
        for result, path in zip(results, files_of(name, results, folder), strict=True):
            problem = None
            if os.path.abspath(path) in inputs:
                problem = "is one of the images to predict"
            elif result in listed:
                if not entry.is_from(source) and os.path.lexists(path):
                    problem = f"is the result of {entry.source}, not of {source}"
            elif os.path.lexists(path):
                problem = f"is not among the results that {record.path} lists"
            if problem:
                raise InputError(f"{path} would be written over, but {problem}: {_ELSEWHERE}")


def check_source(images: Path, folder: Path) -> None:
    """Raise an InputError if a folder has results of images from another folder than this."""
    for entry in Record(folder).read().values():
        source = os.path.dirname(os.path.abspath(entry.source))
        if entry.results and source != os.path.abspath(images):
            raise InputError(
                f"{folder} has the results of images from {source}, such as {entry.image}, not "
                f"from {images}: {_ELSEWHERE}"
            )
