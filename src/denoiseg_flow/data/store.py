"""Write and open the canonical images and masks of the workflow.

Files with a single channel have no channel axis; it is added and removed here.
"""

import errno
import math
import os
import re
import unicodedata
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import tifffile
from numpy.typing import DTypeLike

from denoiseg_flow.data.files.memory_maps import release, reserve
from denoiseg_flow.data.files.metadata import ORDER, Metadata
from denoiseg_flow.data.files.reader import READERS, UNREADABLE, open_image_file
from denoiseg_flow.data.files.tiles import PIECE, Readable, pieces
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import checksums
from denoiseg_flow.version import __version__

if TYPE_CHECKING:
    import torch

Pixels = TypeVar("Pixels", np.ndarray, "torch.Tensor")

ENDINGS = tuple(READERS)

BAND_ROWS = 256  # rows written at once
# Pixels; images are tiled if both sides are longer, but plain ImageJ does not read tiles.
LARGE = 4096

# "-20 degrees" and "+drug (2)" are not formulas, though they begin like one.
_FORMULA = re.compile(r"[=@]|[+-].*(\w\(|[|!])")


def is_formula(text: str) -> bool:
    """Return whether spreadsheets would evaluate a text."""
    return _FORMULA.match(text) is not None


def is_image(path: str | Path, endings: tuple[str, ...] = ENDINGS) -> bool:
    """Return whether ``path`` has the ending of an image (in any case) and is not hidden."""
    name = Path(path).name
    return name.lower().endswith(endings) and not name.startswith(".")


def stem(path: str | Path, endings: tuple[str, ...] = ENDINGS) -> str:
    """Return the file name of ``path`` without its ending; ``.ome.tif`` is one ending.

    Names are normalised (NFC), because systems encode accented letters differently.

    Raises
    ------
    InputError
        If the name cannot safely be written into a text table.
    """
    name = Path(path).name
    if not name.isprintable():  # line breaks, control characters, undecodable bytes
        raise InputError(f"the file name {str(path)!a} has unprintable characters; rename it")
    if is_formula(name):
        raise InputError(
            f"spreadsheets would evaluate the name of {path} as a formula; rename the file"
        )
    ending = next((e for e in endings if name.lower().endswith(e)), "")
    return unicodedata.normalize("NFC", name[: len(name) - len(ending)])


def copy_image(image: Readable, path: str | Path, metadata: Metadata, dtype: DTypeLike) -> None:
    """Copy an image with the axes in its metadata, piece by piece."""
    _copy(image, create_array(path, image.shape, metadata, dtype))


def copy_repeats(
    images: Sequence[Readable], path: str | Path, metadata: Metadata, dtype: DTypeLike
) -> None:
    """Copy acquisitions of one field to one file; the axes in their metadata are those of each.

    Several follow each other along an axis T.
    """
    if len(images) == 1:
        copy_image(images[0], path, metadata, dtype)
        return
    shape = (len(images), *images[0].shape)
    copies = create_array(path, shape, replace(metadata, axes=f"T{metadata.axes}"), dtype)
    for image, copy in zip(images, copies, strict=True):
        _copy(image, copy)


def _copy(image: Readable, copy: np.ndarray) -> None:
    for place in pieces(image.shape, PIECE):
        copy[place] = image[place]
        release(image)
        release(copy)


def open_image(path: str | Path) -> np.ndarray:
    """Open an image written by this module, memory-mapped if possible.

    Parameters
    ----------
    path
        A canonical image of the workflow.

    Returns
    -------
    numpy.ndarray
        (channel, [z,] y, x). A read-only memory map for an uncompressed tif, otherwise an array in
        memory.

    Raises
    ------
    InputError
        If the file is missing or damaged; see :func:`~denoiseg_flow.jobs.checksums.verify`.
    """
    image, axes = _open(path)
    return image if "C" in axes else image[None]


def open_repeats(path: str | Path) -> np.ndarray:
    """Open acquisitions of one field (acquisition, channel, [z,] y, x), like :func:`open_image`."""
    images, axes = _open(path)
    images = images if "T" in axes else images[None]
    return images if "C" in axes else np.expand_dims(images, 1)


def open_labels(path: str | Path) -> np.ndarray:
    """Open a mask or other labels ([z,] y, x), like :func:`open_image`."""
    return _open(path)[0]


def _open(path: str | Path) -> tuple[np.ndarray, str]:
    """Return the array in a file and its axes."""
    checksums.verify(path)
    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            if series.dataoffset is not None:
                dtype = np.dtype(tif.byteorder + series.dtype.char)
                mapped = np.memmap(path, dtype, "r", series.dataoffset, series.shape)
                axes = series.axes.replace("S", "C")
                order = sorted(range(len(axes)), key=lambda number: ORDER.index(axes[number]))
                return mapped.transpose(order), "".join(axes[number] for number in order)
    except UNREADABLE:
        pass  # the reader below raises a helpful error
    with open_image_file(path, colour=None) as file:
        return file.read([slice(None)] * len(file.shape)), file.metadata.axes


def read_metadata(path: str | Path) -> Metadata:
    """Return the metadata of an image written by this module; raises like :func:`open_image`."""
    checksums.verify(path)
    with open_image_file(path, colour=None) as file:
        return file.metadata


def open_plane(path: str | Path) -> np.ndarray:
    """Open the plane (y, x) of an image that is examined for its noise.

    This is the middle z-slice of a volume, and the first of several channels.
    """
    return middle_plane(open_image(path)[0])


def open_picture(path: str | Path) -> np.ndarray:
    """Read what figures show of an image: its :func:`open_plane`, or its colours (y, x, 3)."""
    image = open_image(path)
    shown = image if read_metadata(path).colour else image[:1]
    planes = np.stack([middle_plane(channel) for channel in shown], axis=-1)
    return planes if len(shown) > 1 else planes[..., 0]


def middle_plane(image: np.ndarray) -> np.ndarray:
    """Return the middle z-slice (y, x) of a volume (z, y, x); a plane is returned unchanged."""
    planes = planes_of(image)
    return planes[len(planes) // 2]


def planes_of(image: np.ndarray) -> np.ndarray:
    """Return the planes (plane, y, x) of a volume (z, y, x) or of a single plane (y, x)."""
    return image.reshape(-1, *image.shape[-2:])


def centre_crop(image: Pixels, side: int, axes: tuple[int, int] = (-2, -1)) -> Pixels:
    """Crop an image to its central ``side`` x ``side`` pixels; shorter axes stay whole."""
    place = [slice(None)] * image.ndim
    for axis in axes:
        start = max(0, (image.shape[axis] - side) // 2)
        place[axis] = slice(start, start + side)
    return image[tuple(place)]


def write_image(path: str | Path, image: np.ndarray, metadata: Metadata | None = None) -> None:
    """Write an image as uncompressed OME-TIFF, which can be memory-mapped, creating its folder.

    Parameters
    ----------
    path
        File to write.
    image
        (channel, [z,] y, x); keeps its pixel type.
    metadata
        Metadata of the image. None: one channel, without further metadata.
    """
    if metadata is None or "C" not in metadata.axes:
        (image,) = image
    write_array(path, image, metadata)


def write_labels(path: str | Path, labels: np.ndarray, metadata: Metadata | None = None) -> None:
    """Write a mask or other labels ([z,] y, x), like :func:`write_image`, compressed with zlib."""
    write_array(path, labels, metadata, "zlib", int(labels.max()))


def write_array(
    path: str | Path,
    array: np.ndarray,
    metadata: Metadata | None = None,
    compression: str | None = None,
    highest: int | None = None,
) -> None:
    """Write an array with the axes in its metadata, by default ([z,] y, x), as OME-TIFF.

    ``highest`` is the highest label, for labels.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    metadata = metadata or Metadata.of_shape(array.shape)
    array = array.transpose(_order_in_file(metadata))
    try:
        tifffile.imwrite(
            path,
            array,
            compression=compression,
            **_descriptions(Path(path), array.shape, array.dtype, metadata, highest),
        )
    except OSError as error:
        if error.errno is not None:
            raise
        # NumPy reports how much it wrote, but not the reason: the disk is full.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def create_image(path: str | Path, shape: tuple[int, ...], metadata: Metadata) -> np.ndarray:
    """Create an OME-TIFF for an image (channel, [z,] y, x), float32, and map it for writing.

    The array is a memory map of the file; an image can be written to it piece by piece.
    """
    in_file = shape if "C" in metadata.axes else shape[1:]
    return create_array(path, in_file, metadata).reshape(shape)


def create_array(
    path: str | Path,
    shape: tuple[int, ...],
    metadata: Metadata | None = None,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Create an OME-TIFF for an array, see :func:`write_array`, and map it for writing.

    The array is a memory map of the file; it can be written piece by piece.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(dtype)
    metadata = metadata or Metadata.of_shape(shape)
    order = _order_in_file(metadata)
    in_file = tuple(shape[number] for number in order)
    array = tifffile.memmap(
        path, shape=in_file, dtype=dtype, **_descriptions(Path(path), in_file, dtype, metadata)
    )
    reserve(path, Path(path).stat().st_size)
    return array.transpose(np.argsort(order))


def write_bands(
    path: str | Path,
    bands: Iterable[np.ndarray],
    shape: tuple[int, ...],
    dtype: DTypeLike,
    highest: int,
    metadata: Metadata | None = None,
) -> None:
    """Write labels band by band as an OME-TIFF compressed with zlib, creating its folder.

    Large images are tiled, others stored in strips, so that regions can be read separately.

    Parameters
    ----------
    bands
        Arrays (y, x) of type ``dtype``, as wide as the image, from top to bottom and plane by
        plane. All but the last of a plane have ``BAND_ROWS`` rows.
    shape
        Shape of the whole image, ([z,] y, x).
    highest
        The highest label.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(dtype)
    metadata = metadata or Metadata.of_shape(shape)
    tiled = min(shape[-2:]) > LARGE
    cut: dict[str, Any] = {"tile": (BAND_ROWS, BAND_ROWS)} if tiled else {"rowsperstrip": BAND_ROWS}
    tifffile.imwrite(
        path,
        (
            zlib.compress(np.ascontiguousarray(part).data)
            for band in bands
            for part in (_tiles(band) if tiled else [band])
        ),
        shape=shape,
        dtype=dtype,
        compression="zlib",
        # The rule of tifffile for other images: 32-bit offsets end at 4 GB.
        bigtiff=dtype.itemsize * math.prod(shape) > 2**32 - 2**25,
        **cut,
        **_descriptions(Path(path), shape, dtype, metadata, highest),
    )


def _tiles(band: np.ndarray) -> Iterator[np.ndarray]:
    """Yield tiles of ``BAND_ROWS`` x ``BAND_ROWS`` pixels, padded with zeros at the edges."""
    for left in range(0, band.shape[1], BAND_ROWS):
        part = band[:, left : left + BAND_ROWS]
        yield np.pad(part, [(0, BAND_ROWS - length) for length in part.shape])


def _order_in_file(metadata: Metadata) -> list[int]:
    """Return the numbers of the axes in the order in a file, which is that of ImageJ.

    Channels follow z-slices; the colours of a pixel are together.
    """
    order = "TZYXC" if metadata.colour else "TZCYX"
    return [metadata.axes.index(axis) for axis in order if axis in metadata.axes]


def _descriptions(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    metadata: Metadata,
    highest: int | None = None,
) -> dict[str, Any]:
    """Return the arguments by which tifffile writes the metadata of a file.

    The shape is that in the file, see :func:`_order_in_file`. A file has two descriptions: programs
    read the first, which is that of OME, but plain ImageJ reads the last, which is its own. The
    pixel size is also stored as the tif resolution, for ImageJ and for programs that read neither.
    """
    axes = "".join(metadata.axes[number] for number in _order_in_file(metadata))
    axes = axes.replace("C", "S") if metadata.colour else axes
    arguments: dict[str, Any] = {
        "ome": True,
        "metadata": _ome(path, axes, shape, dtype, metadata),
        "photometric": "rgb" if metadata.colour else "minisblack",
        "software": False,
        "byteorder": "<",
    }
    # With a description of its own, ImageJ does not open stacks of other colours.
    for_imagej = not metadata.colour or dtype == np.uint8
    if for_imagej:
        arguments["extratags"] = _imagej(axes, shape, metadata, highest)
    if {"X", "Y"} <= metadata.pixel_size.keys():
        unit, length = ("NONE", 1) if for_imagej else ("CENTIMETER", 1e4)
        resolution = tuple(length / metadata.pixel_size[axis] for axis in "XY")
        arguments |= {"resolution": resolution, "resolutionunit": unit}
    return arguments


def _ome(
    path: Path, axes: str, shape: tuple[int, ...], dtype: np.dtype, metadata: Metadata
) -> dict[str, Any]:
    """Return the metadata of an image in a file as tifffile writes them for OME."""
    # The standard requires one. A random one would give identical images different files.
    identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{path.name} {axes} {shape} {dtype}")
    ome: dict[str, Any] = {
        "axes": axes,
        "Name": stem(path),
        "UUID": str(identity),
        "Creator": f"denoiseg-flow {__version__}",
    }
    for axis, length in metadata.pixel_size.items():
        ome |= {f"PhysicalSize{axis}": length, f"PhysicalSize{axis}Unit": "µm"}
    if metadata.time_step:
        ome |= {"TimeIncrement": metadata.time_step, "TimeIncrementUnit": "s"}
    if not metadata.colour:
        colours = [
            int.from_bytes(bytes.fromhex(f"{colour}FF"), signed=True)
            for colour in metadata.channel_colours
        ]
        channels = {"Name": list(metadata.channels), "Color": colours}
        ome["Channel"] = {key: values for key, values in channels.items() if values}
    return ome


def _imagej(
    axes: str, shape: tuple[int, ...], metadata: Metadata, highest: int | None
) -> list[tuple[Any, ...]]:
    """Return the tags from which ImageJ reads metadata."""
    described: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    if {"X", "Y"} <= metadata.pixel_size.keys():
        described["unit"] = "um"
        if "Z" in metadata.pixel_size:
            described["spacing"] = metadata.pixel_size["Z"]
    if metadata.time_step:
        described["finterval"] = metadata.time_step
    if highest is not None:
        # By default, ImageJ takes the range of the first plane, which may be empty.
        described |= {"min": 0.0, "max": float(max(1, highest))}
    if "C" in axes:
        described["mode"] = "composite"
        n_planes = math.prod(shape[:-2])
        if metadata.channels:
            tables["Labels"] = list(metadata.channels) * (n_planes // len(metadata.channels))
        if metadata.channel_colours:
            colours = np.array([list(bytes.fromhex(each)) for each in metadata.channel_colours])
            ramps = colours[..., None] * np.arange(256) // 255  # (channel, red to blue, level)
            tables["LUTs"] = list(ramps.astype(np.uint8))
    text = tifffile.imagej_description(shape, axes, rgb=metadata.colour, **described)
    # By its name, because tifffile refuses the number of a tag that it writes itself.
    description = ("ImageDescription", "s", 0, text, True)
    return [description, *tifffile.imagej_metadata_tag(tables, "<")]
