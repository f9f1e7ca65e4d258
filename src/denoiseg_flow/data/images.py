"""Read and write grey images and label masks (tif, ome.tif, png), one plane per file.

What cannot be that (colour, stacks, NaN, constant planes, damaged files) is refused, with a
sentence that names the file and the way out.
"""

import errno
import logging
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy
import tifffile
from numpy.typing import DTypeLike

from denoiseg_flow.data.planes import UNREADABLE, read_plane
from denoiseg_flow.errors import InputError

logger = logging.getLogger(__name__)

ENDINGS = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".png")
BinaryMasks = Literal["warn", "connected_components"]

STRIP_ROWS = 64  # of the strips of an image that is written piece by piece

_INT32 = np.iinfo(np.int32)
_FLOAT32_EXACT = 2**24  # integers up to here survive a trip through float32


def is_image(path: str | Path) -> bool:
    """Return whether ``path`` ends like an image (in any case) and is not hidden."""
    name = Path(path).name
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def stem(path: str | Path) -> str:
    """Return the file name of ``path`` without its ending, ``.ome.tif`` counting as one ending."""
    name = Path(path).name
    ending = next((e for e in ENDINGS if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]


def read_image(path: str | Path) -> np.ndarray:
    """Read one grey image.

    Parameters
    ----------
    path
        A tif, tiff, ome.tif or png file.

    Returns
    -------
    numpy.ndarray
        Shape (y, x); uint8, uint16, uint32 or float32, with the values of the file. Signed
        integers become unsigned where no value is negative, float32 otherwise.

    Raises
    ------
    InputError
        If the file is missing, damaged, in colour, a stack, constant, or holds NaN or infinity.
    """
    plane = read_plane(path, indexed=False)
    return check_image(plane, str(path))


def check_image(plane: np.ndarray, name: str, constant: bool = False) -> np.ndarray:
    """Return ``plane`` in one of the four pixel types of the workflow, or raise.

    Parameters
    ----------
    plane
        Shape (y, x), any real pixel type.
    name
        How error messages call the image.
    constant
        Whether an image with a single grey value is accepted.

    Returns
    -------
    numpy.ndarray
        Shape (y, x); uint8, uint16, uint32 or float32.

    Raises
    ------
    InputError
        If the image is empty, constant, not finite, or outside the range of these types.
    """
    if plane.size == 0:
        raise InputError(f"image {name} has no pixels (shape {plane.shape}): remove it")
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        n_bad = int((~np.isfinite(plane)).sum())
        raise InputError(
            f"image {name} holds {n_bad} NaN or infinite pixels: replace them by numbers "
            "(for example the background value) or crop them away"
        )
    low, high = plane.min(), plane.max()
    if low == high and not constant:
        raise InputError(
            f"image {name} is constant (every pixel is {low}): remove it or export it again"
        )
    return _pixel_type(plane, name, low, high)


def _pixel_type(plane: np.ndarray, name: str, low: np.generic, high: np.generic) -> np.ndarray:
    kind, size = plane.dtype.kind, plane.dtype.itemsize
    if kind == "b":
        return plane.astype(np.uint8)
    if kind == "u" and size <= 4:
        return plane.astype(plane.dtype.newbyteorder("="), copy=False)
    if kind in "ui" and low >= 0 and high <= np.iinfo(np.uint32).max:
        return plane.astype(f"u{min(size, 4)}")
    if kind in "ui" and max(-int(low), int(high)) <= _FLOAT32_EXACT:
        return plane.astype(np.float32)
    if kind == "f" and max(abs(low), abs(high)) <= np.finfo(np.float32).max:
        return plane.astype(np.float32, copy=False)
    raise InputError(
        f"image {name} has pixels of type {plane.dtype} from {low} to {high}, which do not fit "
        "into float32: export it as uint8, uint16 or float32"
    )


def open_image(path: str | Path) -> np.ndarray:
    """Open an image that :func:`write_image` wrote, without reading it into memory where possible.

    Parameters
    ----------
    path
        A canonical image of the workflow.

    Returns
    -------
    numpy.ndarray
        Shape (y, x); a read-only memory map for an uncompressed tif, an array in memory otherwise.

    Raises
    ------
    InputError
        If the file is missing, damaged or not a single grey plane.
    """
    try:
        plane = tifffile.memmap(path, mode="r")
    except UNREADABLE:
        return read_plane(path, indexed=False)
    return plane if plane.ndim == 2 else read_plane(path, indexed=False)


def centre_crop(image: np.ndarray, side: int) -> np.ndarray:
    """Cut the central ``side`` x ``side`` pixels of (y, x, ...); smaller images come back whole."""
    starts = [max(0, (length - side) // 2) for length in image.shape[:2]]
    return image[tuple(slice(start, start + side) for start in starts)]


def write_image(
    path: str | Path,
    plane: np.ndarray,
    compress: bool = False,
    pixel_size: tuple[float, float] | None = None,
) -> None:
    """Write one plane as tif, creating its folder.

    Parameters
    ----------
    path
        Where to write.
    plane
        Shape (y, x); written with its own pixel type.
    compress
        Compress with zlib; right for labels. Images stay uncompressed, so that they can be
        memory-mapped.
    pixel_size
        Height and width of a pixel in micrometres, stored as resolution per centimetre.
    """
    if plane.ndim != 2:
        raise ValueError(f"{path}: expected shape (y, x), got {plane.shape}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        tifffile.imwrite(
            path,
            plane,
            compression="zlib" if compress else None,
            metadata=None,
            software=False,
            **_tags(pixel_size),
        )
    except OSError as error:
        if error.errno is not None:
            raise
        # NumPy says how much it wrote, but not why it stopped: there was no more space.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def create_image(
    path: str | Path, shape: tuple[int, ...], pixel_size: tuple[float, float] | None
) -> np.ndarray:
    """Create a float32 tif of the given shape, (y, x) or (plane, y, x), and map it for writing.

    The array is backed by the file, so that an image can be written piece by piece.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    array = tifffile.memmap(path, shape=shape, dtype=np.float32, **_tags(pixel_size))
    reserve(path, Path(path).stat().st_size)
    return array


def write_strips(
    path: str | Path,
    pieces: Iterable[np.ndarray],
    shape: tuple[int, int],
    dtype: DTypeLike,
    pixel_size: tuple[float, float] | None = None,
) -> None:
    """Write one plane piece by piece as a tif compressed with zlib, creating its folder.

    Parameters
    ----------
    pieces
        Arrays (y, x) of type ``dtype``, as wide as the image, from top to bottom. All but the
        last have a multiple of ``STRIP_ROWS`` rows.
    shape
        (y, x) of the whole plane.
    pixel_size
        Height and width of a pixel in micrometres.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path,
        (
            zlib.compress(np.ascontiguousarray(piece[top : top + STRIP_ROWS]))
            for piece in pieces
            for top in range(0, len(piece), STRIP_ROWS)
        ),
        shape=shape,
        dtype=dtype,
        rowsperstrip=STRIP_ROWS,
        compression="zlib",
        # As tifffile decides by itself for other images: 32-bit offsets end at 4 GB.
        bigtiff=np.dtype(dtype).itemsize * shape[0] * shape[1] > 2**32 - 2**25,
        metadata=None,
        software=False,
        **_tags(pixel_size),
    )


def reserve(path: str | Path, size: int) -> None:
    """Give a file its space on the disk, where the system can, before it is mapped into memory.

    Without it, writing to the map on a full disk would kill the process instead of raising OSError.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def _tags(pixel_size: tuple[float, float] | None) -> dict[str, Any]:
    """Tags of a grey tif whose pixels have the given height and width in micrometres."""
    tags: dict[str, Any] = {"photometric": "minisblack"}
    if pixel_size is not None:
        height, width = pixel_size
        tags |= {"resolution": (1e4 / width, 1e4 / height), "resolutionunit": "CENTIMETER"}
    return tags


def read_mask(path: str | Path, **values: Any) -> np.ndarray:
    """Read an instance mask; ``values`` are further arguments of :func:`check_mask`.

    Parameters
    ----------
    path
        A tif or png file with one positive number per object, 0 for background and negative
        numbers for pixels to ignore, unless ``values`` tell otherwise.

    Returns
    -------
    numpy.ndarray
        Labels, int32, shape (y, x).

    Raises
    ------
    InputError
        If the file is missing, damaged, in colour, a stack, or holds values that are no labels.
    """
    return check_mask(read_plane(path, indexed=True), str(path), **values)


def check_mask(
    plane: np.ndarray,
    name: str,
    binary_masks: BinaryMasks = "warn",
    background_label: int = 0,
    ignore_label: int | None = None,
) -> np.ndarray:
    """Return the labels in ``plane``, int32: 0 background, positive objects, negative ignored.

    Parameters
    ----------
    plane
        Shape (y, x), any real pixel type.
    name
        How error messages call the mask.
    binary_masks
        What to do with a mask whose only values are 0 and 1, or 0 and 255: ``warn`` if it seems
        to show several objects, or give every one of its ``connected_components`` its own label.
    background_label
        The number that stands for background in the mask.
    ignore_label
        The number of the pixels that nobody annotated; None: only negative ones are such.

    Raises
    ------
    InputError
        If the mask is empty, holds values that are no labels, or annotates no pixel at all.
    """
    if plane.size == 0:
        raise InputError(f"mask {name} has no pixels (shape {plane.shape}): remove it")
    if plane.dtype.kind == "f":
        if not np.isfinite(plane).all():
            raise InputError(f"mask {name} holds NaN or infinite pixels: export it as integers")
        if not np.array_equal(plane, np.rint(plane)):
            raise InputError(
                f"mask {name} holds fractions, as after interpolation: export it with "
                "nearest-neighbour interpolation, as integers"
            )
    elif plane.dtype.kind not in "bui":
        raise InputError(f"mask {name} has pixels of type {plane.dtype}: export it as uint16")
    low, high = plane.min(), plane.max()
    if low < _INT32.min or high > _INT32.max:
        raise InputError(
            f"mask {name} holds labels from {low} to {high}, beyond 32 bits: number its objects "
            "from 1 and export it as uint16"
        )
    labels = plane.astype(np.int32)
    background, ignored = labels == background_label, labels == ignore_label
    labels[background], labels[ignored] = 0, -1
    high = labels.max()
    if high < 0:
        raise InputError(
            f"mask {name} annotates no pixel, all of them are to be ignored: annotate some, or "
            "remove the file, so that its image counts as not annotated"
        )
    if high not in (1, 255) or not np.isin(labels, (0, high)).all():
        return labels
    components, n_components = scipy.ndimage.label(labels, np.ones((3, 3)))
    if binary_masks == "connected_components":
        return components.astype(np.int32)
    if n_components > 1:
        logger.warning(
            "mask %s holds only 0 and %d in %d separate regions, as if it were binary, and is "
            "taken as one object: if it shows several, set `binary_masks: connected_components` "
            "in the dataset's config",
            name,
            high,
            n_components,
        )
    return labels


def check_pair(
    image: np.ndarray, other: np.ndarray, image_name: str, other_name: str, other_kind: str
) -> None:
    """Raise InputError unless an image and its mask or clean image have the same shape."""
    if image.shape != other.shape:
        raise InputError(
            f"image {image_name} is {image.shape[0]} x {image.shape[1]} pixels, but its "
            f"{other_kind} {other_name} is {other.shape[0]} x {other.shape[1]} (height x width): "
            "export both from the same image, at the same size"
        )
