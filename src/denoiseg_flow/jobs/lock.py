"""A lock that keeps two processes from doing the same job at once.

Snakemake locks the working folder, but its jobs outlive it: if Snakemake is killed, they keep
running, and the next call starts them a second time. Likewise, a node that only lost its network
keeps running while a scheduler gives its jobs to another node.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from denoiseg_flow.jobs import byte_locks

logger = logging.getLogger(__name__)

# Places of the file, see byte_locks.
_AT_WORK, _WAITING = 0, 1


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
        free = byte_locks.lock(self._descriptor, _WAITING)
        if free:
            byte_locks.unlock(self._descriptor, free)
        return not free


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
    descriptor, predecessor = _acquire(path, shared)
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, _this_process().encode())
        yield JobLock(descriptor, predecessor)
    finally:
        # Remove the file before the lock is released: a waiting process then notices that its file
        # is gone. If the lock is shared, the last process removes the file.
        with suppress(OSError):
            if not shared or byte_locks.lock(descriptor, _AT_WORK):
                path.unlink()
        os.close(descriptor)
        if byte_locks.ON_WINDOWS:  # it removes no file that a process has open
            with suppress(OSError):
                path.unlink()


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
        text = _read(descriptor)
        here = f" on {socket.gethostname()}" in text
        # A shared lock, for this moment, is possible with read permission only.
        free = byte_locks.lock(descriptor, _AT_WORK, shared=True)
        return None if free and (here or not text) else text or "another process"
    finally:
        os.close(descriptor)


def _acquire(path: Path, shared: bool) -> tuple[int, str]:
    """Return the descriptor of the locked file, and the process that this one waited for."""
    predecessor = ""
    while True:
        descriptor = byte_locks.open_file(path)
        try:
            if not byte_locks.lock(descriptor, _AT_WORK, shared):
                waiting = byte_locks.lock(descriptor, _WAITING, shared=True)
                predecessor = _read(descriptor) or "another process"
                logger.warning(
                    "%s is already running this job: waiting for it (%s)", predecessor, path
                )
                byte_locks.lock(descriptor, _AT_WORK, shared, wait=True)
                if waiting:
                    byte_locks.unlock(descriptor, waiting)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor, predecessor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has removed the file


def _read(descriptor: int) -> str:
    """Return what the process that holds a lock has written into its file."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, 1000).decode(errors="replace")


def _this_process() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    scheduled = f", SLURM job {job}" if job else ""
    return f"process {os.getpid()} on {socket.gethostname()}{scheduled}"
