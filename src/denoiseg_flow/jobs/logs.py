"""Messages of a script: to its log file and to the screen, errors in one sentence if possible."""

import errno
import gc
import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.lock import JobLock, sole_process

logger = logging.getLogger(__name__)

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EACCES: "permission denied; check the permissions or choose another folder",
    errno.EPERM: "permission denied; check the permissions or choose another folder",
    errno.ENAMETOOLONG: "the name is too long with the suffixes added; shorten the image name",
    errno.EROFS: "the file system is read-only; choose another folder with 'pathvars: results'",
}


@contextmanager
def job_log(path: str | Path) -> Iterator[JobLock]:
    """Log the messages of a job to its log file, warnings to the screen too, and exit on an error.

    Mistakes of the user and full or read-only disks are reported in one sentence, anything else as
    a traceback. Both go to the log and to the screen, and the exit status is 1. If another process
    already runs the job, this one waits for it.
    """
    # Imported modules stay. To search them for garbage, at the latest when Python exits, would
    # take longer than many jobs.
    gc.freeze()
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(screen)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with sole_process(Path(f"{path}.lock")) as lock, _log_file(path):
            if lock.predecessor:
                logger.info("waited for %s, which ran the same job", lock.predecessor)
            yield lock
    except Exception as error:
        print(sentence(error), file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None  # no message: the user pressed Ctrl-C
    finally:
        logging.captureWarnings(False)
        root.removeHandler(screen)


@contextmanager
def _log_file(path: str | Path) -> Iterator[None]:
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except Exception as error:
        with suppress(OSError):
            print(sentence(error), file=handler.stream, flush=True)
        raise
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # the log may be on the full disk
            handler.close()


def sentence(error: Exception) -> str:
    """Return an error in one sentence if :func:`advice` has one, otherwise as a traceback."""
    found = advice(error)
    return f"Error: {found}" if found else "".join(traceback.format_exception(error))


def advice(error: Exception) -> str | None:
    """Return cause and fix of an error if it is a mistake of the user or a problem of the disk."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _ADVICE:
        path = error.filename2 or error.filename or "a file"  # the second is the target
        return f"cannot use {path}: {_ADVICE[error.errno]}"
    return None
