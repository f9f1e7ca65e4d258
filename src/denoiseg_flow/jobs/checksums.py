"""Checksums of the folders of images and the tables that jobs pass on to other jobs.

An image with a flipped bit still opens without an error; only a checksum reveals the damage. The
checksum files have the format of ``sha256sum``, so ``sha256sum -c`` verifies them too.
"""

import errno
import hashlib
import os
from functools import cache, lru_cache
from pathlib import Path

from denoiseg_flow.errors import InputError

NAME = "checksums.sha256"
_DEPTH = 2  # how many folders above a file may hold its checksum


def write(path: str | Path) -> None:
    """Write the checksums of a complete folder into it, or the checksum of a file beside it.

    Files whose names begin with a dot or are not printable are skipped: nothing reads them.
    """
    path = Path(path)
    if path.is_file():
        _record([path], path.parent, _beside(path))
        return
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and file.name != NAME
        and not file.name.startswith(".")
        and file.relative_to(path).as_posix().isprintable()
    ]
    _record(files, path, path / NAME)


def verify(path: str | Path) -> None:
    """Check that a file has not changed since its checksum was written.

    A file without a known checksum passes. Each process reads a file only once.

    Raises
    ------
    InputError
        If the file has changed; the message says what to delete so that Snakemake makes it again.
    """
    path = Path(path)
    known = [(_beside(path), path.parent, "it")]
    known += [(folder / NAME, folder, str(folder)) for folder in path.parents[:_DEPTH]]
    for record, folder, made in known:
        name = path.relative_to(folder).as_posix()
        if expected := _recorded(record, _version(record)).get(name):
            _compare(path, expected, made)


def verify_folder(folder: str | Path) -> None:
    """Check that no file of a folder has changed since its checksums were written.

    Raises
    ------
    InputError
        As :func:`verify`.
    """
    folder = Path(folder)
    record = folder / NAME
    for name, expected in _recorded(record, _version(record)).items():
        _compare(folder / name, expected, str(folder))


def _compare(path: Path, expected: str, made: str) -> None:
    if expected != _digest_once(path, _version(path)):
        raise InputError(
            f"{path} is damaged (wrong checksum): delete {made} and run the workflow again"
        )


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _version(path: Path) -> tuple[int, ...] | None:
    """Return values that change whenever a file is rewritten; None if there is no file."""
    try:
        status = os.stat(path)
    except OSError as error:
        # The name of an image may be so long that the name of its checksum file is too long.
        if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
            raise
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _record(files: list[Path], folder: Path, record: Path) -> None:
    lines = (f"{digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    record.write_text("".join(lines), encoding="utf-8", newline="\n")


def digest(path: Path) -> str:
    """Return the SHA-256 checksum of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _digest_once(path: Path, version: tuple[int, ...] | None) -> str:
    return digest(path) if version else "no file"


@lru_cache
def _recorded(record: Path, version: tuple[int, ...] | None) -> dict[str, str]:
    """Return the checksums in a checksum file, by file name; damaged lines are skipped."""
    if version is None:
        return {}
    lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: digest for digest, gap, name in (line.partition("  ") for line in lines) if gap}
