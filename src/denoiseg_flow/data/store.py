"""The canonical images and masks of the workflow: written and opened."""

import errno
import math
import os
import re
import unicodedata
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import DTypeLike

from denoiseg_flow.data.files.memory_maps import release, reserve
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import UNREADABLE, open_image_file, read_image
from denoiseg_flow.data.files.tiles import PIECE, Readable, pieces
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import checksums
from denoiseg_flow.version import __version__

ENDINGS = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".png", ".ome.zarr", ".zarr")

BAND_ROWS = 256  # of an image that is written piece by piece
LARGE = 1024  # pixels a side: such an image is written in tiles if it is larger

# "-20 degrees" and "+drug (2)" are none, though they begin like one.
_FORMULA = re.compile(r"[=@]|[+-].*(\w\(|[|!])")


def is_image(path: str | Path) -> bool:
    """Return whether ``path`` ends like an image (in any case) and is not hidden."""
    name = Path(path).name
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def stem(path: str | Path) -> str:
    """Return the file name of ``path`` without its ending, ``.ome.tif`` counting as one ending.

    Accents become parts of their letters (NFC), because some systems part them and others do not.

    Raises
    ------
    InputError
        For a name that cannot be written into a table of text.
    """
    name = Path(path).name
    if not name.isprintable():  # line breaks, other controls, bytes that are no text
        raise InputError(
            f"the file name {str(path)!a} has characters that cannot be printed: rename it"
        )
    if _FORMULA.match(name):
        raise InputError(
            f"{path} has a name that spreadsheets take for a formula, and would compute: rename it"
        )
    ending = next((e for e in ENDINGS if name.lower().endswith(e)), "")
    return unicodedata.normalize("NFC", name[: len(name) - len(ending)])


def copy_image(image: Readable, path: str | Path, metadata: Metadata, dtype: DTypeLike) -> None:
    """Write an image as :func:`write_image` does, piece by piece."""
    copy = create_image(path, image.shape, metadata, dtype)
    for place in pieces(image.shape, PIECE):
        copy[place] = image[place]
        release(image)
        release(copy)


def open_image(path: str | Path) -> np.ndarray:
    """Open an image that this module wrote, without reading it into memory where possible.

    Parameters
    ----------
    path
        A canonical image of the workflow.

    Returns
    -------
    numpy.ndarray
        Shape (y, x) or (z, y, x), with channels in front if there are several; a read-only memory
        map for an uncompressed tif, an array in memory otherwise.

    Raises
    ------
    InputError
        If the file is missing or damaged; see :func:`~denoiseg_flow.jobs.checksums.verify`.
    """
    checksums.verify(path)
    try:
        return tifffile.memmap(path, mode="r")
    except UNREADABLE:
        return read_image(path)


def read_metadata(path: str | Path) -> Metadata:
    """Return the metadata of an image that this module wrote; raises as :func:`open_image`."""
    checksums.verify(path)
    with open_image_file(path) as file:
        return file.metadata


def open_channels(path: str | Path) -> np.ndarray:
    """Open an image as (channel, [z,] y, x), however many channels it has."""
    image = open_image(path)
    return image if "C" in read_metadata(path).axes else image[None]


def open_plane(path: str | Path) -> np.ndarray:
    """Open the plane (y, x) that stands for an image in pictures and in checks of its noise.

    That is the middle one of a volume, and the first of several channels.
    """
    return middle_plane(open_channels(path)[0])


def middle_plane(image: np.ndarray) -> np.ndarray:
    """Return the middle plane (y, x) of a volume (z, y, x), or the plane itself."""
    return image[len(image) // 2] if image.ndim == 3 else image


def planes_of(image: np.ndarray) -> np.ndarray:
    """Return (plane, y, x), the planes of a volume (z, y, x), or the one that an image is."""
    return image.reshape(-1, *image.shape[-2:])


def centre_crop(image: np.ndarray, side: int, axes: tuple[int, int] = (-2, -1)) -> np.ndarray:
    """Cut the central ``side`` x ``side`` pixels, y and x being ``axes``; smaller ones stay."""
    place = [slice(None)] * image.ndim
    for axis in axes:
        start = max(0, (image.shape[axis] - side) // 2)
        place[axis] = slice(start, start + side)
    return image[tuple(place)]


def write_image(
    path: str | Path,
    image: np.ndarray,
    metadata: Metadata | None = None,
    compress: bool = False,
) -> None:
    """Write an image as OME-TIFF, creating its folder.

    Parameters
    ----------
    path
        Where to write.
    image
        Any shape; written with its own pixel type.
    metadata
        Of the image; None: it is a plane (y, x) or a volume (z, y, x) of which nothing is known.
    compress
        Compress with zlib; right for labels. Images stay uncompressed, so that they can be
        memory-mapped.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        tifffile.imwrite(
            path,
            image,
            compression="zlib" if compress else None,
            **_ome(Path(path), image.shape, image.dtype, metadata),
        )
    except OSError as error:
        if error.errno is not None:
            raise
        # NumPy says how much it wrote, but not why it stopped: there was no more space.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def create_image(
    path: str | Path,
    shape: tuple[int, ...],
    metadata: Metadata | None = None,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Create an OME-TIFF of the given shape and map it for writing.

    The array is backed by the file, so that an image can be written piece by piece.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(dtype)
    array = tifffile.memmap(
        path, shape=shape, dtype=dtype, **_ome(Path(path), shape, dtype, metadata)
    )
    reserve(path, Path(path).stat().st_size)
    return array


def write_bands(
    path: str | Path,
    bands: Iterable[np.ndarray],
    shape: tuple[int, ...],
    dtype: DTypeLike,
    metadata: Metadata | None = None,
) -> None:
    """Write an image piece by piece as an OME-TIFF compressed with zlib, creating its folder.

    Parts of large images can be read by themselves: they are made of tiles, others of strips.

    Parameters
    ----------
    bands
        Arrays (y, x) of type ``dtype``, as wide as the image, from top to bottom, one plane after
        the other. All but the last of a plane have ``BAND_ROWS`` rows.
    shape
        ([z,] y, x) of the whole image.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(dtype)
    tiled = min(shape[-2:]) > LARGE
    cut: dict[str, Any] = {"tile": (BAND_ROWS, BAND_ROWS)} if tiled else {"rowsperstrip": BAND_ROWS}
    tifffile.imwrite(
        path,
        (
            zlib.compress(np.ascontiguousarray(part))
            for band in bands
            for part in (_tiles(band) if tiled else [band])
        ),
        shape=shape,
        dtype=dtype,
        compression="zlib",
        # As tifffile decides by itself for other images: 32-bit offsets end at 4 GB.
        bigtiff=dtype.itemsize * math.prod(shape) > 2**32 - 2**25,
        **cut,
        **_ome(Path(path), shape, dtype, metadata),
    )


def _tiles(band: np.ndarray) -> Iterator[np.ndarray]:
    """Yield squares of ``BAND_ROWS`` pixels a side, filled up with zeros at the ends."""
    for left in range(0, band.shape[1], BAND_ROWS):
        part = band[:, left : left + BAND_ROWS]
        yield np.pad(part, [(0, BAND_ROWS - length) for length in part.shape])


def _ome(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, metadata: Metadata | None
) -> dict[str, Any]:
    """Arguments of tifffile for an OME-TIFF with the given metadata.

    The pixel size also becomes the resolution of the tif, for programs that know no OME.
    """
    metadata = metadata or Metadata.of_shape(shape)
    # The standard wants one. Drawn at random, it would make equal images unequal files.
    identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{path.name} {metadata.axes} {shape} {dtype}")
    ome: dict[str, Any] = {
        "axes": metadata.axes,
        "UUID": str(identity),
        "Creator": f"denoiseg-flow {__version__}",
    }
    for axis, length in metadata.pixel_size.items():
        ome |= {f"PhysicalSize{axis}": length, f"PhysicalSize{axis}Unit": "µm"}
    if metadata.channels:
        ome["Channel"] = {"Name": list(metadata.channels)}
    arguments: dict[str, Any] = {
        "ome": True,
        "metadata": ome,
        "photometric": "minisblack",
        "software": False,
    }
    if {"X", "Y"} <= metadata.pixel_size.keys():
        width, height = metadata.pixel_size["X"], metadata.pixel_size["Y"]
        arguments |= {"resolution": (1e4 / width, 1e4 / height), "resolutionunit": "CENTIMETER"}
    return arguments
