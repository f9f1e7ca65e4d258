"""Lock the folder of predicted images, and check that no other file is overwritten."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

from denoiseg_flow.data.files.microscopes import is_scene
from denoiseg_flow.data.files.plates import place_of
from denoiseg_flow.deployment import parquet
from denoiseg_flow.deployment.ledger import Entry, Record, files_of
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.lock import sole_process

UNFINISHED = ".unfinished_"  # prefix of temporary folders, which a killed process leaves behind

_ELSEWHERE = (
    "move it away, or choose another folder for the results ('--out', or 'predict: {name: ...}' in "
    "the config)"
)


@contextmanager
def at_work(folder: Path, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a folder of results, which is created if it does not exist.

    Waits while another process holds it, and logs which. Then removes what killed processes left
    unfinished.

    Parameters
    ----------
    shared
        Whether other processes with ``shared`` may write to the folder at the same time. Nothing is
        removed then.

    Raises
    ------
    InputError
        If ``folder`` is a file or lies below one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder} is a file or lies below one; {_ELSEWHERE}") from None
    with sole_process(folder / ".lock", shared):
        for unfinished in () if shared else folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished)
        yield


def check_targets(
    images: Mapping[str, Path], folder: Path, results: Sequence[str]
) -> dict[str, Entry]:
    """Check that only earlier results of the same images would be overwritten.

    Parameters
    ----------
    images
        Files of the images to predict, by name.
    folder
        Folder of the results.
    results
        Results of each image, see :func:`~denoiseg_flow.deployment.ledger.results_in`.

    Returns
    -------
    dict of str to Entry
        Entries of the folder's record by image name, at least those of ``images``.

    Raises
    ------
    InputError
        If a result or a table of all images would overwrite a file that the record does not list,
        a result of another image file, or an image to predict.
    """
    record = Record(folder)
    tables = {record.path: record.is_one}
    tables |= {folder / name: record.has_tables for name in ("objects.csv", parquet.NAME)}
    for path, is_known in tables.items():
        if os.path.lexists(path) and not is_known():
            raise InputError(
                f"{path} would be overwritten, but no earlier call wrote it; {_ELSEWHERE}"
            )
    known = record.read(images)
    places = {os.path.abspath(folder / result.partition(".")[0]) for result in results}
    for name, source in images.items():
        entry, given = known.get(name), os.path.abspath(source)
        listed = entry.results.split() if entry else []
        is_same = entry and entry.is_from(given) and os.path.dirname(given) not in places
        # Check single files rather than list folders: there may be a hundred thousand images.
        others = [result for result in results if not (is_same and result in listed)]
        for result, path in zip(others, files_of(name, others, folder), strict=True):
            if not os.path.lexists(path):
                continue
            problem = f"is not among the results that {record.path} lists"
            if os.path.abspath(path) == given:
                problem = "is one of the images to predict"
            elif entry and result in listed:
                problem = f"is the result of {entry.source}, not of {source}"
            raise InputError(f"{path} would be overwritten, but {problem}; {_ELSEWHERE}")
    return known


def check_source(images: Path, folder: Path) -> None:
    """Raise InputError if a folder has results of images from another folder than ``images``."""
    if other := _other_result(images, folder):
        raise InputError(
            f"{folder} has results of images from {os.path.dirname(other.source)} (such as "
            f"{other.image}), not from {images}; {_ELSEWHERE}"
        )


def own_folder(images: Path, folder: Path) -> Path:
    """Return a folder for the results of a folder of images that has no results of another one.

    That is ``folder``, or the first of ``folder_2``, ``folder_3`` and so on.
    """
    others = (folder.with_name(f"{folder.name}_{number}") for number in count(2))
    return next(each for each in chain([folder], others) if not _other_result(images, each))


def _other_result(images: Path, folder: Path) -> Entry | None:
    """Return an image of another folder than ``images`` that has results in a folder."""
    given = Path(os.path.abspath(images))
    # One image of each folder is enough: every job does this when it starts.
    first: dict[str, Entry] = {}
    for entry in Record(folder).read().values():
        if entry.results:
            first.setdefault(os.path.dirname(entry.source), entry)
    for entry in first.values():
        source = Path(os.path.abspath(entry.source))
        place = place_of(source)
        # The field of a plate may come from its well, its plate or the folder of that, and a scene
        # from its file or the folder of that.
        sources = [source.parent, *((place.plate, place.plate.parent) if place else ())]
        sources += [source.parent.parent] if is_scene(source) else []
        if given not in sources:
            return replace(entry, source=str(source))
    return None
