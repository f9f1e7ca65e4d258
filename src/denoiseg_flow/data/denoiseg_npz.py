"""Read the published DenoiSeg datasets (npz), image by image and without trusting pickles.

The archives hold ``train/train_data.npz`` (X_train, Y_train, X_val, Y_val) and
``test/test_data.npz`` (X_test, Y_test). Images of different sizes are stored as object arrays, that
is, as pickles, which are read without running anything (``files.pickled_arrays``).
"""

import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy

from denoiseg_flow.data.archive import ArchiveImage
from denoiseg_flow.data.files.pickled_arrays import ArrayUnpickler, PickledArray
from denoiseg_flow.errors import InputError, plain

PARTS = (
    ("train", "train_data.npz", "X_train", "Y_train"),
    ("val", "train_data.npz", "X_val", "Y_val"),
    ("test", "test_data.npz", "X_test", "Y_test"),
)
MAX_READ = 2 * 2**30  # bytes read into memory at once, for an image or an object array

_BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,  # encrypted, nested too deeply, or compressed in a way unknown to zipfile
    OSError,  # zipfile, for offsets beyond the end of the file
    struct.error,
    SyntaxError,  # NumPy, for an invalid header
    TokenError,
)


def read_denoiseg_npz(folder: str | Path) -> Iterator[ArchiveImage]:
    """Read an unpacked DenoiSeg archive, one image at a time.

    Parameters
    ----------
    folder
        Folder that holds train_data.npz and test_data.npz, at any depth.

    Yields
    ------
    ArchiveImage
        Images of these archives have no noise: each is its own clean image.

    Raises
    ------
    InputError
        If a file or array is missing or damaged, or contains anything but images and labels.
    """
    for subset, file_name, images, labels in PARTS:
        path = _only(folder, file_name)
        pairs = _together(read_images(path, images), read_images(path, labels), path, images)
        for number, (image, truth) in enumerate(pairs, start=1):
            origin = f"{file_name}:{images}[{number - 1}]"
            yield ArchiveImage(f"{subset}_{number:05d}", image, truth, image, subset, origin)


def read_images(path: str | Path, key: str) -> Iterator[np.ndarray]:
    """Read an array of images from an npz file, one image at a time.

    Parameters
    ----------
    path
        The npz file.
    key
        Name of an array of shape (image, y, x) or (image, y, x, 1), or of an object array of
        images of shape (y, x) or (y, x, 1).

    Yields
    ------
    numpy.ndarray
        Shape (y, x).

    Raises
    ------
    InputError
        If the array is missing, damaged, or a pickle of anything but plain arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{key}.npy" not in archive.namelist():
                raise InputError(
                    f"{path} has no array {key} and so is not a DenoiSeg dataset; set "
                    "'format: folder' in the dataset's config"
                )
            info = archive.getinfo(f"{key}.npy")
            with archive.open(info) as stream:
                for image in _read_npy(stream, info.file_size):
                    yield _single_channel(image)
    except _BROKEN as error:
        raise InputError(
            f"array {key} in {path} is damaged or contains something other than images "
            f"({plain(error)}); download it again from a source that you trust"
        ) from error


def _only(folder: str | Path, name: str) -> Path:
    found = sorted(Path(folder).rglob(name))
    if len(found) != 1:
        raise InputError(
            f"the archive has {len(found)} files named {name}, but a DenoiSeg dataset has one; "
            "correct 'url' or 'format' in the dataset's config"
        )
    return found[0]


def _together(
    images: Iterator[np.ndarray], labels: Iterator[np.ndarray], path: Path, key: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for image, truth in zip_longest(images, labels):
        if image is None or truth is None:
            raise InputError(
                f"{path} has different numbers of images ({key}) and masks; download it again"
            )
        yield image, truth


def _single_channel(image: np.ndarray) -> np.ndarray:
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim != 2:
        raise ValueError(f"expected images of shape (y, x), got {image.shape}")
    return image


def _read_npy(stream: IO[bytes], n_bytes: int) -> Iterator[np.ndarray]:
    """Yield the items along the first axis of an array in npy format."""
    version = npy.read_magic(stream)
    if version != (1, 0):  # later versions only allow longer headers than images need
        raise ValueError(f"npy format version {version}")
    shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    at_once = n_bytes if fortran_order or dtype.hasobject else n_bytes // max(1, *shape[:1])
    if at_once > MAX_READ:
        raise ValueError(f"{at_once} bytes would have to be read at once")
    if dtype == np.dtype(object):
        yield from _unpickle(stream, n_bytes)
        return
    if dtype.kind not in "biuf" or len(shape) < 3:
        raise ValueError(f"array of type {dtype} and shape {shape}")
    if math.prod(shape) * dtype.itemsize != n_bytes - stream.tell():
        raise ValueError(f"shape {shape} does not match its {n_bytes} bytes")
    if fortran_order:
        yield from np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
        return
    for _ in range(shape[0]):
        # One image at a time; NumPy would load all of them.
        yield np.frombuffer(stream.read(math.prod(shape[1:]) * dtype.itemsize), dtype).reshape(
            shape[1:]
        )


def _unpickle(stream: IO[bytes], n_bytes: int) -> Iterator[np.ndarray]:
    """Yield the images of a pickled one-dimensional object array of ``n_bytes``."""
    outer = ArrayUnpickler(stream).load()
    if not isinstance(outer, PickledArray) or not isinstance(outer.content, list):
        raise ValueError("not an array of images")
    for item in outer.content:
        if not isinstance(item, PickledArray):
            raise ValueError(f"an item of type {type(item).__name__}")
        image = item.numbers()
        n_bytes -= image.nbytes
        if n_bytes < 0:  # a pickle can refer to the same image a million times
            raise ValueError("more images than it has bytes")
        yield image
