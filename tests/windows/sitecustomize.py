"""What Windows lacks and forbids, for Python processes on Linux that find this file first.

Python imports it at every start, so it also holds for all processes that such a process starts.

- Unix modules and functions are missing; locks are those of ``msvcrt``.
- A file that this process has open or mapped can be neither removed nor renamed nor replaced, and
  no process can remove a lock file that any process has open.
- A file that is removed when it is closed cannot be opened again by its name.
- Names that Windows forbids are refused.
- The package must name the encoding of every text file, since that of Windows is another one.
"""

import errno
import fcntl
import os
import re
import subprocess  # noqa: F401  # it takes a system that has msvcrt for Windows
import sys
import tempfile
import warnings
from contextlib import suppress
from types import ModuleType

_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]|[ .]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.I)

# --- locks ----------------------------------------------------------------------------------------

msvcrt = ModuleType("msvcrt")
msvcrt.LK_UNLCK, msvcrt.LK_NBLCK = 0, 2
_locked = set()  # (descriptor, first byte, number of bytes)


def _locking(descriptor, mode, count):
    first = os.lseek(descriptor, 0, os.SEEK_CUR)
    held = (descriptor, first, count)
    if mode == msvcrt.LK_UNLCK:
        if held not in _locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        fcntl.lockf(descriptor, fcntl.LOCK_UN, count, first)
        _locked.remove(held)
        return
    assert mode == msvcrt.LK_NBLCK
    for other, begin, length in _locked:
        same = os.path.sameopenfile(other, descriptor)
        if same and begin < first + count and first < begin + length:
            raise PermissionError(errno.EACCES, "Permission denied")
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
    except OSError:
        raise PermissionError(errno.EACCES, "Permission denied") from None
    _locked.add(held)


def _close(descriptor, close=os.close):
    close(descriptor)
    _locked.difference_update([held for held in _locked if held[0] == descriptor])


msvcrt.locking = _locking

# --- files in use ---------------------------------------------------------------------------------

_temporary = set()  # files that are removed when they are closed


def _named_temporary_file(*arguments, create=tempfile.NamedTemporaryFile, **options):
    file = create(*arguments, **options)
    if options.get("delete", True):
        _temporary.add(file.name)
    return file


def _used(process):
    """Yield the files that a process has open or mapped."""
    with suppress(OSError):  # it has ended
        for number in os.listdir(f"/proc/{process}/fd"):
            with suppress(FileNotFoundError):
                yield os.readlink(f"/proc/{process}/fd/{number}")
        with open(f"/proc/{process}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                yield f"/{line.rstrip().partition('/')[2]}"


def _check_unused(path, folder=None):
    if isinstance(folder, int) and folder >= 0:
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
    path = os.path.realpath(os.fsdecode(path))
    if path in _temporary:
        _temporary.discard(path)
        return
    processes = ["self"]
    if path.endswith(".lock"):
        processes = [name for name in os.listdir("/proc") if name.isdecimal()]
    for process in processes:
        for used in _used(process):
            # Folders are open while they are removed.
            if (used == path or used.startswith(f"{path}/")) and not os.path.isdir(used):
                raise PermissionError(
                    errno.EACCES, f"used by process {process} on a simulated Windows", path
                )


def _check_name(path):
    for name in os.path.relpath(os.fsdecode(path), "/").split("/"):
        if name not in (".", "..") and _FORBIDDEN.search(name):
            raise OSError(errno.EINVAL, "a name that Windows forbids", path)


_busy = False


def _audit(event, arguments):
    global _busy
    if _busy:
        return
    _busy = True
    try:
        if event == "os.remove":
            _check_unused(*arguments)
        elif event == "os.rename":
            _check_unused(arguments[0], arguments[2])
            if os.path.lexists(arguments[1]):
                _check_unused(arguments[1], arguments[3])
            _check_name(arguments[1])
        elif event == "os.mkdir":
            _check_name(arguments[0])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            if os.fsdecode(arguments[0]) in _temporary:
                raise PermissionError(errno.EACCES, "open, and removed when closed", arguments[0])
            if arguments[2] & os.O_CREAT:
                _check_name(arguments[0])
    finally:
        _busy = False


# --- all of it ------------------------------------------------------------------------------------

sys.platform = "win32"
sys.modules["msvcrt"] = msvcrt
try:
    from denoiseg_flow.jobs import byte_locks  # noqa: F401
finally:
    sys.platform = "linux"  # or the standard library would call functions of Windows
    del sys.modules["msvcrt"]
sys.modules["fcntl"] = None
os.close = _close
for name in ("pread", "pwrite", "posix_fallocate", "sched_getaffinity"):
    delattr(os, name)
warnings.filterwarnings("error", category=EncodingWarning, module="denoiseg_flow")
tempfile.NamedTemporaryFile = _named_temporary_file
sys.addaudithook(_audit)
