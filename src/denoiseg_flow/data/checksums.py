"""Checksums of the files that jobs hand to each other as a folder.

An image that lost a bit on the disk, or on the way to another machine, is still a good image: only
a checksum tells. They lie in a file as ``sha256sum`` writes it, and ``sha256sum -c`` verifies them.
"""

import hashlib
import os
from functools import cache, lru_cache
from pathlib import Path

from denoiseg_flow.errors import InputError

NAME = "checksums.sha256"
_DEPTH = 2  # folders above a file in which its checksum may stand


def write(folder: Path) -> None:
    """Write the checksums of all files below a folder, which is complete, into that folder."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME and not path.name.startswith(".")
    ]
    lines = [f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / NAME).write_text("".join(lines), encoding="utf-8", newline="\n")


def verify(path: str | Path) -> None:
    """Check that a file is what it was when the checksums of its folder were written.

    A file of which no checksum is known passes. A process looks at each file only once.

    Raises
    ------
    InputError
        If it is not; the message says which folder to make anew.
    """
    path = Path(path)
    for folder in path.parents[:_DEPTH]:
        known = folder / NAME
        try:
            expected = _recorded(known, _version(known)).get(path.relative_to(folder).as_posix())
        except FileNotFoundError:
            continue
        if expected is None:
            return
        try:
            found = _digest_once(path, _version(path))
        except FileNotFoundError:
            found = None
        if found != expected:
            what = "is missing" if found is None else "is damaged, by its checksum"
            raise InputError(f"{path} {what}: delete {folder} and run the workflow again")
        return


def _version(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written again."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.sha256).hexdigest()


@cache
def _digest_once(path: Path, version: tuple[int, ...]) -> str:
    return _digest(path)


@lru_cache
def _recorded(path: Path, version: tuple[int, ...]) -> dict[str, str]:
    """Return the checksums in a file by the names of the files; damaged lines are left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: digest for digest, gap, name in (line.partition("  ") for line in lines) if gap}
