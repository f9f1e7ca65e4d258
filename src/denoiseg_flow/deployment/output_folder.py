"""A folder of results on new images: who writes there, and what must not be written over."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from denoiseg_flow.deployment.ledger import Entry, Record, files_of
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.lock import sole_process

UNFINISHED = ".unfinished_"  # beginning of the names of folders that a killed process leaves

_ELSEWHERE = (
    "move it away, or choose another folder for the results ('--out', or 'predict: {name: ...}' in "
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


def check_targets(
    images: Mapping[str, Path], folder: Path, results: Sequence[str]
) -> dict[str, Entry]:
    """Check that nothing would be written over but results of the same images.

    Parameters
    ----------
    images
        Files of the images to predict, by name.
    folder
        Where to write.
    results
        What comes of each image, see :func:`~denoiseg_flow.deployment.ledger.results_in`.

    Returns
    -------
    dict of str to Entry
        What the record of the folder knows, at least of these images, by name.

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
    known = record.read(images)
    places = {os.path.abspath(folder / result.partition(".")[0]) for result in results}
    for name, source in images.items():
        entry, given = known.get(name), os.path.abspath(source)
        listed = entry.results.split() if entry else []
        is_same = entry and entry.is_from(given) and os.path.dirname(given) not in places
        # Others are looked for one by one: there may be a hundred thousand images.
        others = [result for result in results if not (is_same and result in listed)]
        for result, path in zip(others, files_of(name, others, folder), strict=True):
            if not os.path.lexists(path):
                continue
            problem = f"is not among the results that {record.path} lists"
            if os.path.abspath(path) == given:
                problem = "is one of the images to predict"
            elif entry and result in listed:
                problem = f"is the result of {entry.source}, not of {source}"
            raise InputError(f"{path} would be written over, but {problem}: {_ELSEWHERE}")
    return known


def check_source(images: Path, folder: Path) -> None:
    """Raise an InputError if a folder has results of images from another folder than this."""
    for entry in Record(folder).read().values():
        source = os.path.dirname(os.path.abspath(entry.source))
        if entry.results and source != os.path.abspath(images):
            raise InputError(
                f"{folder} has the results of images from {source}, such as {entry.image}, not "
                f"from {images}: {_ELSEWHERE}"
            )
