"""Files and folders that appear complete or not at all.

Each is written under a temporary name and renamed at the end. Processes that write the same one
wait for each other, and unfinished files of killed processes are removed.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from denoiseg_flow.jobs.lock import JobLock, sole_process


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; its file replaces ``path`` at the end unless an error is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    with sole_writer(path):
        try:
            yield unfinished
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``folder`` at the end unless an error is raised."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(folder)
    with sole_writer(folder):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            yield unfinished
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def remove_file(path: Path) -> None:
    """Remove a file if it exists, and the unfinished file of a killed process."""
    with sole_writer(path):
        path.unlink(missing_ok=True)
        _unfinished(path).unlink(missing_ok=True)


def sole_writer(path: Path) -> AbstractContextManager[JobLock]:
    """Wait for other processes that write to ``path``, and lock it against them."""
    return sole_process(path.with_name(f".{path.name}.lock"))


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")
