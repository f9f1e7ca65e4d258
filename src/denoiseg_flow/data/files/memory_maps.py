"""Arrays that lie in files, so that they may be larger than the memory."""

import math
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike


def temporary_map(shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
    """Return an array of zeros in a nameless temporary file (in TMPDIR).

    Raises
    ------
    OSError
        If there is not enough space for it.
    """
    with tempfile.NamedTemporaryFile(prefix="denoiseg_flow_") as file:
        reserve(file.name, math.prod(shape) * np.dtype(dtype).itemsize)
        # The map outlives the name of the file, and the file is gone with the process.
        return np.memmap(file.name, dtype, "r+", shape=shape)


def release(array: object) -> None:
    """Give back the memory that a memory-mapped array takes; its values stay in the file.

    Every page that was read or written counts as memory of the process until then. Does nothing
    to anything else.
    """
    if not isinstance(array, np.memmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    base: object = array.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def reserve(path: str | Path, size: int) -> None:
    """Give a file its space on the disk, where the system can, before it is mapped into memory.

    Without it, writing to the map on a full disk would kill the process instead of raising OSError.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
