"""Labels in NumPy's npy format, plain or in a file of Cellpose's."""

import io
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy

from denoiseg_flow.data.files.pickled_arrays import ArrayUnpickler, PickledArray
from denoiseg_flow.data.files.whole import WholeSource


class NpySource(WholeSource):
    """An npy file of labels, which is read as a whole.

    Of a pickled dictionary, as in ``_seg.npy`` files of Cellpose, the array ``masks`` is read.
    """

    def __init__(self, path: Path) -> None:
        file = io.BytesIO(path.read_bytes())
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"version {version} of the npy format is unknown")
        shape, column_major, dtype = read_header[version](file)
        if dtype.hasobject:
            pixels = _masks_of(file)
        else:
            order: Literal["F", "C"] = "F" if column_major else "C"
            pixels = np.frombuffer(file.read(), dtype).reshape(shape, order=order)
        native = pixels.astype(pixels.dtype.newbyteorder("="), order="C", copy=False)
        super().__init__(native, "YX" if native.ndim == 2 else "Q" * native.ndim)


def _masks_of(stream: IO[bytes]) -> np.ndarray:
    """Return the array ``masks`` in a pickled dictionary."""
    outer = ArrayUnpickler(stream, ignore_others=True).load()
    (content,) = outer.content if isinstance(outer, PickledArray) else (None,)
    masks = content.get("masks") if isinstance(content, dict) else None
    if not isinstance(masks, PickledArray):
        raise ValueError("it has no array 'masks', as files of Cellpose have")
    return masks.numbers()
