"""What a script says: to its log file and to the screen, in a sentence where that is enough."""

import errno
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from denoiseg_flow.errors import InputError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EACCES: "no permission to write or read there; change it or choose another folder",
    errno.EPERM: "no permission to write or read there; change it or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder with 'pathvars: results'",
}


@contextmanager
def job_log(path: str | Path) -> Iterator[None]:
    """Send messages of a job to its log file, warnings to the screen too, and end it on an error.

    Mistakes of the user, and disks that are full or closed, end in one sentence; anything else in
    a traceback. Both go to the log and to the screen, and the exit status is 1.
    """
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(formatter)
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    root.addHandler(screen)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    except Exception as error:
        text = sentence(error)
        with suppress(OSError):
            handler.stream.write(text + "\n")
            handler.stream.flush()
        print(text, file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        logging.captureWarnings(False)
        root.removeHandler(screen)
        root.removeHandler(handler)
        with suppress(OSError):  # the log may lie on the disk that is full
            handler.close()


def sentence(error: Exception) -> str:
    """Return what went wrong in a sentence where that is enough, with the traceback elsewhere."""
    if isinstance(error, InputError):
        return f"Error: {error}"
    if isinstance(error, OSError) and error.errno in _ADVICE:
        return f"Error: cannot use {error.filename or 'a file'}: {_ADVICE[error.errno]}"
    return "".join(traceback.format_exception(error))
