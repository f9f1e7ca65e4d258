"""A lock that keeps two processes from doing the same job at once.

Snakemake locks a folder, but its jobs outlive it: when it is killed, they run on, and the next call
starts them a second time. A node that only lost its network runs on, too, while its jobs are given
to another one.
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

# Bytes of the file that are locked: record locks, which network file systems know as well, and
# which the kernel releases when the process ends, however it ends.
_AT_WORK, _WAITING = 0, 1
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}


class JobLock:
    """The lock of one job, held by this process; see :func:`sole_process`.

    Attributes
    ----------
    predecessor
        The process that was waited for; empty if there was none.
    """

    def __init__(self, descriptor: int, predecessor: str) -> None:
        self._descriptor = descriptor
        self.predecessor = predecessor

    def awaited(self) -> bool:
        """Return whether another process waits to do the same job again."""
        nobody = _lock(self._descriptor, _WAITING, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _lock(self._descriptor, _WAITING, fcntl.LOCK_UN)
        return not nobody


@contextmanager
def sole_process(path: Path, shared: bool = False) -> Iterator[JobLock]:
    """Hold the lock of a job; wait, and say for whom, while another process holds it.

    A process that holds it must not ask for it again: the kernel would release both.

    Parameters
    ----------
    path
        File of the lock. It is there while the job runs, and says who runs it; nothing is left of
        it afterwards, unless the process is killed.
    shared
        Whether other processes that share it may hold it at the same time.
    """
    descriptor, predecessor = _acquire(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _this_process().encode(), 0)
        yield JobLock(descriptor, predecessor)
    finally:
        # Before the lock is gone: whoever waits for it finds that this is no longer the file. Of
        # those who share it, the last one removes it.
        with suppress(OSError):
            if not shared or _lock(descriptor, _AT_WORK, fcntl.LOCK_EX | fcntl.LOCK_NB):
                path.unlink()
        os.close(descriptor)


def _acquire(path: Path, how: int) -> tuple[int, str]:
    """Return the descriptor of the locked file, and for whom this process waited."""
    predecessor = ""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor, _AT_WORK, how | fcntl.LOCK_NB):
                _lock(descriptor, _WAITING, fcntl.LOCK_SH)
                holder = os.pread(descriptor, 1000, 0).decode(errors="replace")
                predecessor = holder or "another process"
                logger.warning(
                    "%s is at work on this already: waiting until it ends (%s)", predecessor, path
                )
                _lock(descriptor, _AT_WORK, how)
                _lock(descriptor, _WAITING, fcntl.LOCK_UN)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor, predecessor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # of a file that its holder removed


def _lock(descriptor: int, byte: int, how: int) -> bool:
    """Change the lock of one byte; return whether that was possible."""
    try:
        fcntl.lockf(descriptor, how, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning(
            "the file system knows no locks (%s): nothing keeps two processes from doing one job",
            error.strerror,
        )
    return True


def _this_process() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    scheduled = f", SLURM job {job}" if job else ""
    return f"process {os.getpid()} on {socket.gethostname()}{scheduled}"
