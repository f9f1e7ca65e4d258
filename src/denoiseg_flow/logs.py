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
    except InputError as error:
        _end(f"Error: {error}", handler)
    except OSError as error:
        if error.errno not in _ADVICE:
            _end(traceback.format_exc(), handler)
        _end(f"Error: cannot use {error.filename or 'a file'}: {_ADVICE[error.errno]}", handler)
    except Exception:
        _end(traceback.format_exc(), handler)
    finally:
        logging.captureWarnings(False)
        root.removeHandler(screen)
        root.removeHandler(handler)
        with suppress(OSError):  # the log may lie on the disk that is full
            handler.close()


def _end(text: str, handler: logging.FileHandler) -> None:
    with suppress(OSError):
        handler.stream.write(text + "\n")
        handler.stream.flush()
    print(text, file=sys.stderr)
    raise SystemExit(1)
