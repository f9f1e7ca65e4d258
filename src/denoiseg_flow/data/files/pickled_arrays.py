"""Arrays in pickles, without trusting these.

A pickle can run any code when NumPy loads it. Here, it is interpreted with stand-ins for the few
types that a pickled array consists of, and anything else is rejected or, if asked for, ignored.
"""

import pickle
import re
from typing import IO, Any, ClassVar

import numpy as np

_PLAIN = re.compile(r"[<>|=]?[biuf][1-8]")


class _PickledType:
    """Stands in for a pickled numpy.dtype."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.code[0] in "biuf" and state[1] in ("<", ">"):
            self.code = state[1] + self.code


class PickledArray:
    """Stands in for a pickled numpy.ndarray.

    Attributes
    ----------
    content
        Bytes of an array of numbers, or a list of the items of an array of objects.
    """

    content: Any = None

    def __init__(self, array_type: object, shape: tuple[int, ...], code: bytes | str) -> None:
        if array_type is not _ARRAY_TYPE:
            raise ValueError("something other than a plain array")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, self.shape, self.type, self.fortran_order, self.content = state

    def numbers(self) -> np.ndarray:
        """Return the array; raise ValueError or TypeError unless it holds numbers."""
        code = self.type.code
        if not _PLAIN.fullmatch(code):
            raise ValueError(f"pixel type {code!r}")
        flat = np.frombuffer(self.content, np.dtype(code))
        return flat.reshape(self.shape, order="F" if self.fortran_order else "C")


class _Ignored:
    """Stands in for any other type: takes what it is given, and does nothing."""

    def __new__(cls, *_: Any) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode, by which pickle protocols up to 2 write bytes."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding!r}")
    return text.encode("latin1")


_ARRAY_TYPE = "numpy.ndarray"
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,  # written by NumPy 1
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,  # written by NumPy 2
    ("numpy", "ndarray"): _ARRAY_TYPE,
    ("numpy", "dtype"): _PickledType,
    ("_codecs", "encode"): _encode_latin1,
}


class ArrayUnpickler(pickle._Unpickler):
    """Load arrays as stand-ins: neither foreign code runs nor that of NumPy.

    Derived from pickle's Python implementation, because that in C allocates any amount of memory
    that a few bytes request.

    Parameters
    ----------
    stream
        File with the pickle.
    ignore_others
        Whether objects of other types may occur; they are loaded as objects without content.
    """

    # No array consists of a bytearray, for which memory of any stated size would be allocated.
    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, stream: IO[bytes], ignore_others: bool = False) -> None:
        super().__init__(stream)
        self._ignore_others = ignore_others

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if self._ignore_others:
            return _Ignored
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")
