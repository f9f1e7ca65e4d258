"""Read OME-Zarr images (NGFF 0.4 in zarr 2, 0.5 in zarr 3) and write them (NGFF 0.4).

The functions that need zarr import it, because the import is slow.
"""

import json
import math
import os
import re
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from denoiseg_flow.data.files.metadata import (
    ORDER,
    SPATIAL,
    Metadata,
    coloured,
    default_colours,
    numbered,
)
from denoiseg_flow.data.files.tiles import boxes
from denoiseg_flow.data.files.units import micrometres, seconds
from denoiseg_flow.errors import InputError, plain

if TYPE_CHECKING:
    import zarr

CHUNK = {"T": 1, "C": 1, "Z": 16, "Y": 512, "X": 512}  # at most
BROWSABLE = 2048  # pixels; larger images get lower resolution levels
SMALLEST = 1024  # pixels; no further level is added below this size
LARGEST_CHUNK = 2**30  # bytes of an uncompressed chunk, which is read as a whole

_METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
_TYPES = {"T": "time", "C": "channel"}
_SHOWN = (0.001, 0.999)  # quantiles of the pixels that viewers show as black and full colour


class ZarrSource:
    """The full resolution of the only multiscale image in an OME-Zarr store.

    Attributes
    ----------
    shape, axes, dtype, pixel_size, channels, channel_colours, time_step
        Like those of `tif.TifSource`; Q is an axis other than TCZYX.

    Parameters
    ----------
    path
        The folder of the store, or one inside.
    labels
        Whether it is a label image, in which missing chunks are background, unless all are missing.

    Raises
    ------
    InputError
        If the folder is not an OME-Zarr image, has several images, or its chunks are missing or
        too large.
    OSError, ValueError, ...
        If it is damaged: any error in ``reader.UNREADABLE``.
    """

    palette = rgb = False

    def __init__(self, path: Path, labels: bool = False) -> None:
        folder = _image_in(path)
        metadata = _ome_metadata(folder, path)
        (multiscale,) = metadata["multiscales"]
        dataset = multiscale["datasets"][0]
        inside = PurePosixPath(dataset["path"])
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueError(f"its metadata refer to another folder, {str(inside)!r}")
        self._array = _open_array(folder / inside)
        self.shape, self.dtype = self._array.shape, self._array.dtype.newbyteorder("=")
        axes = [
            axis if isinstance(axis, Mapping) else {"name": axis}  # names only: NGFF 0.3
            for axis in multiscale.get("axes", ORDER.lower())
        ]
        names = [str(axis["name"]).upper() for axis in axes]
        self.axes = "".join(name if name in ORDER else "Q" for name in names)
        if len(self.axes) != len(self.shape):
            raise ValueError(f"axes {self.axes} for shape {self.shape}")
        scale = np.multiply(_scale(dataset, axes), _scale(multiscale, axes))
        sizes = {
            name: micrometres(step, axis.get("unit"))
            for name, step, axis in zip(names, scale, axes, strict=True)
            if name in SPATIAL
        }
        self.pixel_size = {name: size for name, size in sizes.items() if size}
        channels = (metadata.get("omero") or {}).get("channels", ())
        self.channels = numbered([channel.get("label") for channel in channels])
        self.channel_colours = coloured([_colour(channel.get("color")) for channel in channels])
        times = zip(names, scale, axes, strict=True)
        self.time_step = next(
            (seconds(step, axis.get("unit")) for name, step, axis in times if name == "T"), None
        )
        n_bytes = math.prod(self._array.chunks) * self.dtype.itemsize
        if n_bytes > LARGEST_CHUNK:
            raise InputError(
                f"{path} has chunks of {n_bytes / 2**30:.3g} GiB, but a chunk is read as a whole; "
                "export the image again with chunks of about 512 x 512 pixels"
            )
        n_chunks, n_missing = _count_chunks(self._array, folder / inside)
        # Label images are mostly background, whose chunks zarr does not write by default. Of images
        # they are rejected, because a chunk that was lost looks the same.
        if n_missing and not (labels and n_missing < n_chunks):
            raise InputError(
                f"{path} misses {n_missing} of its {n_chunks} chunks, because they were lost or "
                "because empty chunks were not written; copy it again, or write it with "
                "write_empty_chunks=True"
            )

    def read(self, slices: Sequence[slice]) -> np.ndarray:
        """Return the pixels in a slice of each dimension, with start and stop."""
        return np.asarray(self._array[tuple(slices)], self.dtype)

    def close(self) -> None:
        """Do nothing, because a store keeps no file open."""


def is_ome_zarr(folder: Path) -> bool:
    """Return whether a folder contains an OME-Zarr image, whatever its name."""
    return b'"multiscales"' in metadata_in(folder)


def metadata_in(folder: Path) -> bytes:
    """Return the attributes of a folder of a zarr store as stored; empty if there are none."""
    for name in ("zarr.json", ".zattrs"):
        try:
            return (folder / name).read_bytes()
        except OSError:
            continue
    return b""


def attributes_in(text: bytes) -> dict[str, Any]:
    """Return the OME metadata in the attributes of a folder; raise ValueError if damaged."""
    content: dict[str, Any] = json.loads(text)
    attributes = content.get("attributes", content)
    return attributes.get("ome", attributes)


def _open_array(folder: Path) -> "zarr.Array[Any]":
    """Open an array for reading; damaged chunks raise ValueError.

    Blosc trusts the size in the first bytes of a chunk. If it is wrong, Blosc reads and writes
    outside its buffers, which crashes the process.
    """
    import zarr
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype
    from zarr.storage import LocalStore, WrapperStore

    class CheckedStore(WrapperStore[LocalStore]):
        async def get(
            self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
        ) -> Buffer | None:
            found = await super().get(key, prototype, byte_range)
            if found is not None and byte_range is None and not key.endswith(_METADATA):
                _check_blosc(found[:16].to_bytes(), len(found))
            return found

    store = LocalStore(folder, read_only=True)
    array = zarr.open_array(store, mode="r")
    codecs = str(array.compressors).lower()
    return zarr.open_array(CheckedStore(store), mode="r") if "blosc" in codecs else array


def _check_blosc(header: bytes, size: int) -> None:
    """Raise ValueError unless a Blosc header is consistent with the size of its chunk."""
    n_bytes, _, n_compressed = struct.unpack("<4x3I", header)
    if n_compressed != size or n_bytes > LARGEST_CHUNK:
        raise ValueError(f"a chunk of {size} bytes claims to have {n_compressed}")


def _image_in(path: Path) -> Path:
    """Return the folder of the image in a store: the store itself or its only image.

    Raises
    ------
    InputError
        If the folder is not a zarr store, or bioformats2raw wrote several images into it.
    """
    if not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise InputError(
            f"{path} seems incomplete, because it has no zarr metadata (zarr.json or .zgroup); "
            "copy or export it again"
        )
    attributes = _attributes(path)
    if "plate" in attributes:
        well = path / plain(attributes["plate"]["wells"][0]["path"])
        raise InputError(
            f"{path} is a plate; give one of its fields, such as {well / '0'}, or a well, such as "
            f"{well}"
        )
    if "bioformats2raw.layout" not in attributes:
        return path
    images = sorted(folder for folder in path.iterdir() if folder.name.isdecimal())
    if len(images) != 1:
        example = f", such as {images[0]}" if images else ""
        raise InputError(f"{path} holds {len(images)} images; give one of them{example}")
    return images[0]


def _attributes(folder: Path) -> dict[str, Any]:
    import zarr

    try:
        group = zarr.open_group(folder, mode="r", use_consolidated=False)
    except (zarr.errors.ContainsArrayError, FileNotFoundError):
        return {}  # an array without a group
    attributes: dict[str, Any] = dict(group.attrs)
    return attributes.get("ome", attributes)


def _ome_metadata(folder: Path, path: Path) -> dict[str, Any]:
    """Return the OME metadata of the only image in a folder; errors name ``path``."""
    attributes = _attributes(folder)
    multiscales = attributes.get("multiscales")
    if not multiscales:
        raise InputError(
            f"{path} is a zarr store but not an OME-Zarr image (it has no 'multiscales'); give the "
            "folder of an image, or export it as OME-Zarr"
        )
    if len(multiscales) > 1:
        raise InputError(f"{path} holds {len(multiscales)} images; export one grey image per file")
    return attributes


def _colour(value: object) -> str | None:
    """Return a colour as six hexadecimal digits."""
    found = re.fullmatch(r"#?([0-9A-Fa-f]{6})", str(value))
    return found and found[1].upper()


def _scale(described: Mapping[str, Any], axes: Sequence[Any]) -> list[float]:
    for transformation in described.get("coordinateTransformations") or ():
        if transformation.get("type") == "scale" and "scale" in transformation:
            if len(transformation["scale"]) != len(axes):
                raise ValueError(f"scale {transformation['scale']} for {len(axes)} axes")
            return [float(step) for step in transformation["scale"]]
    return [1.0] * len(axes)


def _count_chunks(array: "zarr.Array[Any]", folder: Path) -> tuple[int, int]:
    """Return how many chunks (or shards) an array should have, and how many are missing.

    zarr reads a missing chunk as the fill value. A single listing of the folder suffices, whatever
    size the metadata claim.
    """
    sides = array.shards or array.chunks
    grid = [-(-length // side) for length, side in zip(array.shape, sides, strict=True)]
    if array.metadata.zarr_format == 2:
        prefix, separator = "", array.metadata.dimension_separator
    else:
        encoding = array.metadata.chunk_key_encoding
        separator = encoding.separator  # type: ignore[attr-defined]  # each of the encodings has it
        prefix = f"c{separator}" if encoding.name == "default" else ""
    n_found = 0
    for parent, _, names in os.walk(folder):
        inside = Path(parent).relative_to(folder).parts
        for name in names:
            key = "/".join((*inside, name))
            numbers = key.removeprefix(prefix).split(separator)
            n_found += (
                key.startswith(prefix)
                and len(numbers) == len(grid)
                and all(
                    n.isdecimal() and int(n) < end for n, end in zip(numbers, grid, strict=True)
                )
            )
    return math.prod(grid), math.prod(grid) - n_found


@contextmanager
def create_ome_zarr(
    path: str | Path,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    metadata: Metadata,
    chunks: tuple[int, ...] | None = None,
    labels: bool = False,
    source: str | None = None,
) -> Iterator["zarr.Array[Any]"]:
    """Create an OME-Zarr image (NGFF 0.4) to be written piece by piece in a ``with`` statement.

    When the statement ends, images of more than 2048 pixels in height or width get lower resolution
    levels for viewers, and the metadata are written. Until then, and after any error, the folder is
    not a valid image.

    Parameters
    ----------
    path
        Folder to create; it must not exist. Its name without endings is the name of the image.
    shape
        Length of each axis.
    dtype
        Pixel type.
    metadata
        Metadata of the image.
    chunks
        Shape of a chunk; best written as a whole. By default at most 512 x 512 pixels, 16 z-slices,
        one channel and one time point.
    labels
        Whether the image holds labels. Lower levels then take every second pixel, otherwise means
        of 2 x 2 pixels.
    source
        The OME-Zarr image that the labels belong to, as a path relative to this folder; None if
        there is none.

    Yields
    ------
    zarr.Array
        Array of zeros to fill.

    Raises
    ------
    FileExistsError
        If ``path`` exists.
    """
    import zarr

    path, axes = Path(path), metadata.axes
    if len(shape) != len(axes):
        raise ValueError(f"{path}: shape {shape} for axes {axes}")
    path.mkdir(parents=True)
    group = zarr.create_group(path, zarr_format=2)
    chunks = chunks or tuple(CHUNK[axis] for axis in axes)
    levels = [_create_level(group, 0, shape, dtype, chunks)]
    yield levels[0]
    if max(shape[-2:]) > BROWSABLE:
        while max(levels[-1].shape[-2:]) > SMALLEST:
            larger = levels[-1]
            halved = (*larger.shape[:-2], *(-(-length // 2) for length in larger.shape[-2:]))
            levels.append(_create_level(group, len(levels), halved, dtype, chunks))
            _halve(larger, levels[-1], labels)
    name = path.name.removesuffix(".zarr").removesuffix(".ome")
    attributes = _ngff(name, metadata, len(levels), "nearest" if labels else "mean")
    if labels:
        attributes["image-label"] = _image_label(source)
    elif "C" in axes and (metadata.channels or metadata.channel_colours):
        attributes["omero"] = {"channels": _channels(metadata, levels[-1])}
    group.attrs.put(attributes)


def add_labels(image: str | Path, labels: str | Path, name: str) -> None:
    """Copy an OME-Zarr label image into the group of labels of an image, as viewers expect it."""
    import zarr

    groups = zarr.create_group(Path(image, "labels"), zarr_format=2)
    groups.attrs.put({"labels": [name]})
    shutil.copytree(labels, Path(image, "labels", name))
    copy = zarr.open_group(Path(image, "labels", name), mode="r+", zarr_format=2)
    copy.attrs["image-label"] = _image_label("../..")


def _create_level(
    group: "zarr.Group", level: int, shape: tuple[int, ...], dtype: DTypeLike, chunks: Sequence[int]
) -> "zarr.Array[Any]":
    from numcodecs import Blosc

    return group.create_array(
        str(level),
        shape=shape,
        dtype=np.dtype(dtype),
        chunks=tuple(max(1, min(part, n)) for part, n in zip(chunks, shape, strict=True)),
        compressors=Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE),
        chunk_key_encoding={"name": "v2", "separator": "/"},
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def _halve(source: "zarr.Array[Any]", target: "zarr.Array[Any]", labels: bool) -> None:
    """Fill an array of half the height and width, chunk by chunk."""
    for place, _ in boxes(target.shape, target.chunks):
        wide = [slice(2 * part.start, 2 * part.stop) for part in place[-2:]]
        piece = np.asarray(source[(*place[:-2], *wide)])
        target[place] = piece[..., ::2, ::2] if labels else _means(piece)


def _means(piece: np.ndarray) -> np.ndarray:
    """Return means of 2 x 2 pixels, fewer at odd edges, in the pixel type of the input."""
    odd = [(0, length % 2) for length in piece.shape[-2:]]
    even = np.pad(piece, [(0, 0)] * (piece.ndim - 2) + odd, mode="edge")
    quarters = [even[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    means = reduce(np.add, (quarter / 4 for quarter in quarters))
    return (np.rint(means) if piece.dtype.kind in "iu" else means).astype(piece.dtype)


def _ngff(name: str, metadata: Metadata, n_levels: int, method: str) -> dict[str, Any]:
    """Return the metadata of an image in the format of NGFF 0.4."""
    steps = dict(metadata.pixel_size)
    if metadata.time_step:
        steps["T"] = metadata.time_step
    axes = []
    for axis in metadata.axes:
        axes.append({"name": axis.lower(), "type": _TYPES.get(axis, "space")})
        if axis in steps:
            axes[-1]["unit"] = "second" if axis == "T" else "micrometer"
    datasets = []
    for level in range(n_levels):
        scale = [
            float(steps.get(axis, 1)) * (2**level if axis in "YX" else 1) for axis in metadata.axes
        ]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    image = {"version": "0.4", "name": name, "type": method, "axes": axes, "datasets": datasets}
    return {"multiscales": [image]}


def _image_label(source: str | None) -> dict[str, Any]:
    """Return what makes an image an image of labels, by NGFF 0.4."""
    return {"version": "0.4"} | ({"source": {"image": source}} if source else {})


def _channels(metadata: Metadata, level: "zarr.Array[Any]") -> list[dict[str, Any]]:
    """Return how viewers show the channels of an image, given its lowest resolution."""
    axis = metadata.axes.find("C")
    count = level.shape[axis]
    channels = []
    colours = metadata.channel_colours or default_colours(count)
    for number, (name, colour) in enumerate(
        zip_longest(metadata.channels or range(1, count + 1), colours)
    ):
        channels.append(
            {
                "label": str(name),
                "color": colour,
                "active": True,
                "window": _window(level, axis, number),
            }
        )
    return channels


def _window(level: "zarr.Array[Any]", axis: int, number: int) -> dict[str, float]:
    """Return the range of the pixels of a channel, and of those that are shown.

    The latter are quantiles of the middle plane, because outliers would darken the others.
    """
    lengths = [*level.shape]
    lengths[axis] = 1
    ends = []
    for place, _ in boxes(lengths, level.chunks):
        piece = np.asarray(level[(*place[:axis], slice(number, number + 1), *place[axis + 1 :])])
        ends += [piece.min(), piece.max()]
    middle = [slice(length // 2, length // 2 + 1) for length in lengths[:-2]]
    middle[axis] = slice(number, number + 1)
    start, end = np.quantile(np.asarray(level[(*middle, slice(None), slice(None))]), _SHOWN)
    window = {"min": min(ends), "max": max(ends), "start": start, "end": end}
    return {key: float(value) for key, value in window.items()}
