"""A lock that keeps two processes from doing the same job at once.

Snakemake locks the working folder, but its jobs outlive it: if Snakemake is killed, they keep
running, and the next call starts them a second time. Likewise, a node that only lost its network
keeps running while a scheduler gives its jobs to another node.
"""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

# Bytes of the file to lock. Record locks also work on network file systems, and the kernel
# releases them when the process ends, however it ends.
_AT_WORK, _WAITING = 0, 1
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}


class JobLock:
    """The lock of one job, held by this process; see :func:`sole_process`.

    Attributes
    ----------
    predecessor
        The process that this one waited for; empty if there was none.
    """

    def __init__(self, descriptor: int, predecessor: str) -> None:
        self._descriptor = descriptor
        self.predecessor = predecessor

    def awaited(self) -> bool:
        """Return whether another process is waiting to do the same job."""
        nobody = _lock(self._descriptor, _WAITING, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _lock(self._descriptor, _WAITING, fcntl.LOCK_UN)
        return not nobody


@contextmanager
def sole_process(path: Path, shared: bool = False) -> Iterator[JobLock]:
    """Hold the lock of a job; while another process holds it, wait and log which one.

    A process must not take a lock that it already holds: the kernel would release both.

    Parameters
    ----------
    path
        The lock file. It exists while the job runs, names the process that runs it, and is removed
        afterwards unless the process is killed.
    shared
        Whether other processes with ``shared=True`` may hold the lock at the same time.
    """
    descriptor, predecessor = _acquire(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _this_process().encode(), 0)
        yield JobLock(descriptor, predecessor)
    finally:
        # Remove the file before the lock is released: a waiting process then notices that its file
        # is gone. If the lock is shared, the last process removes the file.
        with suppress(OSError):
            if not shared or _lock(descriptor, _AT_WORK, fcntl.LOCK_EX | fcntl.LOCK_NB):
                path.unlink()
        os.close(descriptor)


def holder(path: Path) -> str | None:
    """Return the process that holds a lock; None if there is none.

    Of a process on another machine this is what the file says, because not every network file
    system shares locks: the process may have been killed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        text = os.read(descriptor, 1000).decode(errors="replace")
        here = f" on {socket.gethostname()}" in text
        # A shared lock, for this moment, is possible with read permission only.
        free = _lock(descriptor, _AT_WORK, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None if free and (here or not text) else text or "another process"
    finally:
        os.close(descriptor)


def _acquire(path: Path, how: int) -> tuple[int, str]:
    """Return the descriptor of the locked file, and the process that this one waited for."""
    predecessor = ""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor, _AT_WORK, how | fcntl.LOCK_NB):
                _lock(descriptor, _WAITING, fcntl.LOCK_SH)
                holder = os.pread(descriptor, 1000, 0).decode(errors="replace")
                predecessor = holder or "another process"
                logger.warning(
                    "%s is already running this job: waiting for it (%s)", predecessor, path
                )
                _lock(descriptor, _AT_WORK, how)
                _lock(descriptor, _WAITING, fcntl.LOCK_UN)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor, predecessor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has removed the file


def _lock(descriptor: int, byte: int, how: int) -> bool:
    """Change the lock of one byte; return whether that worked."""
    try:
        fcntl.lockf(descriptor, how, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning(
            "the file system does not support locks (%s): two processes may run the same job",
            error.strerror,
        )
    return True


def _this_process() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    scheduled = f", SLURM job {job}" if job else ""
    return f"process {os.getpid()} on {socket.gethostname()}{scheduled}"
