"""Labels in NumPy's npy format, plain or in a file of Cellpose's."""

import io
import pickle
import pickletools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

# Operations of pickle that look up classes elsewhere than in find_class.
_REFUSED = {"EXT1", "EXT2", "EXT4"}


class NpySource:
    """An npy file of labels, which is read as a whole.

    Of a pickled dictionary, as in ``_seg.npy`` files of Cellpose, the array ``masks`` is read. No
    function that the pickle names is called: anything but plain containers, numbers and text is
    only recorded, and the array is rebuilt from its bytes.
    """

    def __init__(self, path: Path) -> None:
        file = io.BytesIO(path.read_bytes())
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"version {version} of the npy format is unknown")
        shape, column_major, dtype = read_header[version](file)
        if dtype.hasobject:
            shape, column_major, dtype, content = _masks_of(file.read())
        else:
            content = file.read()
        self._pixels = _array(shape, column_major, dtype, content)
        self.shape, self.dtype = self._pixels.shape, self._pixels.dtype
        self.axes = "YX" if self._pixels.ndim == 2 else "Q" * self._pixels.ndim
        self.palette = False
        self.pixel_size: dict[str, float] = {}
        self.channels: tuple[str, ...] = ()

    def read(self, slices: Sequence[slice]) -> np.ndarray:
        return self._pixels[tuple(slices)].copy()

    def close(self) -> None:
        pass


def _array(shape: Any, column_major: bool, dtype: np.dtype, content: bytes) -> np.ndarray:
    """Return the array with these bytes, in the byte order of this machine."""
    flat = np.frombuffer(content, dtype)
    pixels = flat.reshape(shape, order="F" if column_major else "C")
    return pixels.astype(dtype.newbyteorder("="), order="C", copy=False)


class _Recorded:
    """An object in a pickle: what would have been called, and with which arguments and state."""

    args: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *args: Any) -> "_Recorded":
        recorded = super().__new__(cls)
        recorded.args = args
        return recorded

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Recorder(pickle.Unpickler):
    """An unpickler that calls nothing."""

    def find_class(self, module: str, name: str) -> type[_Recorded]:
        return type(name, (_Recorded,), {})


def _masks_of(pickled: bytes) -> tuple[Any, bool, np.dtype, bytes]:
    """Return shape, order, type and bytes of the array ``masks`` in a pickled dictionary."""
    for number, (operation, argument, _) in enumerate(pickletools.genops(pickled), start=1):
        # The unpickler would reserve memory for all places up to that of a memo.
        if operation.name in _REFUSED or ("PUT" in operation.name and (argument or 0) > number):
            raise ValueError(f"its pickle has an unexpected {operation.name}")
    _, _, _, _, (content,) = _Recorder(io.BytesIO(pickled)).load().state
    if not isinstance(content, dict) or not isinstance(content.get("masks"), _Recorded):
        raise ValueError("it has no array 'masks', as files of Cellpose have")
    _, shape, dtype, column_major, pixels = content["masks"].state
    _, order, *_ = dtype.state
    kind = np.dtype(dtype.args[0]).newbyteorder(order)
    if kind.kind not in "biuf" or not isinstance(pixels, bytes):
        raise ValueError("its array 'masks' holds no numbers")
    return shape, bool(column_major), kind, pixels
