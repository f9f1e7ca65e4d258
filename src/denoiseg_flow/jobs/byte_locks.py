"""Locks of numbered places in an open file.

The system frees them when the process ends, however it ends.
"""

import errno
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

ON_WINDOWS = sys.platform == "win32"

Held: TypeAlias = tuple[int, int]
"""The bytes that a lock takes: the first, and how many."""

_NO_BYTES = (0, 0)
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}

logger = logging.getLogger(__name__)


def open_file(path: Path) -> int:
    """Open a file to lock, which is created if it does not exist, and return its descriptor."""
    for _ in range(20 if ON_WINDOWS else 0):
        with suppress(PermissionError):  # while another process removes the file
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        time.sleep(0.1)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def lock(descriptor: int, place: int, shared: bool = False, wait: bool = False) -> Held | None:
    """Lock a place of an open file; return None if another process holds it.

    If the file system has no locks, a warning is logged and nothing is locked.

    Parameters
    ----------
    descriptor
        Descriptor of the file, open for reading and writing.
    place
        Number of the place.
    shared
        Whether other processes that share the place may hold it at the same time.
    wait
        Whether to wait until no other process holds the place.
    """
    try:
        return _lock(descriptor, place, shared, wait)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning(
            "the file system does not support locks (%s): two processes may run the same job",
            error.strerror,
        )
    return _NO_BYTES


def unlock(descriptor: int, held: Held) -> None:
    """Release what :func:`lock` returned."""
    if held != _NO_BYTES:
        _unlock(descriptor, held)


if sys.platform == "win32":
    import msvcrt

    # Windows has only exclusive locks, and no other process can read the bytes that are locked. So
    # a place is a range of bytes behind whatever the file contains: a shared lock takes one of
    # them, an exclusive lock all.
    _BEHIND = 2**30
    _SHARERS = 1024

    def _lock(descriptor: int, place: int, shared: bool, wait: bool) -> Held | None:
        first = _BEHIND + place * _SHARERS
        choices = [(first + number, 1) for number in range(_SHARERS)]
        while True:
            for held in choices if shared else [(first, _SHARERS)]:
                with suppress(PermissionError):
                    _change(descriptor, msvcrt.LK_NBLCK, held)
                    return held
            if not wait:
                return None
            time.sleep(0.1)

    def _unlock(descriptor: int, held: Held) -> None:
        _change(descriptor, msvcrt.LK_UNLCK, held)

    def _change(descriptor: int, mode: int, held: Held) -> None:
        first, count = held
        os.lseek(descriptor, first, os.SEEK_SET)
        msvcrt.locking(descriptor, mode, count)

else:
    import fcntl

    # Record locks, because they also work on network file systems.

    def _lock(descriptor: int, place: int, shared: bool, wait: bool) -> Held | None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(descriptor, kind if wait else kind | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return None
        return place, 1

    def _unlock(descriptor: int, held: Held) -> None:
        first, count = held
        fcntl.lockf(descriptor, fcntl.LOCK_UN, count, first)
