"""What a script says: to its log file and to the screen, in a sentence where that is enough."""

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
    errno.EACCES: "no permission to write or read there; change it or choose another folder",
    errno.EPERM: "no permission to write or read there; change it or choose another folder",
    errno.ENAMETOOLONG: "the name is too long, with what is added to it; rename the image",
    errno.EROFS: "the file system is read-only; choose another folder with 'pathvars: results'",
}


@contextmanager
def job_log(path: str | Path) -> Iterator[JobLock]:
    """Send messages of a job to its log file, warnings to the screen too, and end it on an error.

    Mistakes of the user, and disks that are full or closed, end in one sentence; anything else in
    a traceback. Both go to the log and to the screen, and the exit status is 1. A second process
    that is given the same job waits until the first one ends.
    """
    # What was imported stays. Looking through it for garbage, at the latest when Python ends, would
    # take longer than many a job.
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
                logger.info("waited until %s ended, which did the same job", lock.predecessor)
            yield lock
    except Exception as error:
        print(sentence(error), file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None  # whoever pressed Ctrl-C knows why
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
        with suppress(OSError):  # the log may lie on the disk that is full
            handler.close()


def sentence(error: Exception) -> str:
    """Return what went wrong in a sentence where that is enough, with the traceback elsewhere."""
    found = advice(error)
    return f"Error: {found}" if found else "".join(traceback.format_exception(error))


def advice(error: Exception) -> str | None:
    """Return what went wrong and what to do, if it is a mistake of the user or of the disk."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _ADVICE:
        path = error.filename2 or error.filename or "a file"  # the second is where it should be
        return f"cannot use {path}: {_ADVICE[error.errno]}"
    return None
