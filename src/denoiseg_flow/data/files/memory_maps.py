"""Memory-mapped arrays, which may be larger than main memory."""

import math
import mmap
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike


def temporary_map(shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
    """Return an array of zeros, mapped to an unnamed temporary file in TMPDIR.

    Raises
    ------
    OSError
        If the disk is full.
    """
    with tempfile.NamedTemporaryFile(prefix="denoiseg_flow_") as file:
        reserve(file.name, math.prod(shape) * np.dtype(dtype).itemsize)
        # The map stays valid without a file name; the file disappears with the process. Windows
        # would not open the file a second time, by its name.
        return np.memmap(file, dtype, "r+", shape=shape)


def release(array: object) -> None:
    """Free the memory of a memory-mapped array; its values stay in the file.

    Until then, all pages read or written count as memory of the process. Of a view, the memory of
    the whole array is freed. Other objects are left unchanged.
    """
    base: object = array if isinstance(array, np.memmap) else None
    while isinstance(base, np.ndarray):
        base = base.base
    if sys.platform != "win32" and isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def reserve(path: str | Path, size: int) -> None:
    """Allocate disk space for a file before it is memory-mapped, if the system supports it.

    Otherwise, writing to the map on a full disk would kill the process instead of raising OSError.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
