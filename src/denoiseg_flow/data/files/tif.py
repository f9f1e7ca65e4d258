"""Read tif files piece by piece, and their metadata."""

import itertools
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.metadata import ORDER, coloured, numbered
from denoiseg_flow.data.files.tif_segments import (
    JPEG,
    MissingCodec,
    SegmentDecoder,
    check_expansion,
)
from denoiseg_flow.data.files.units import micrometres, seconds
from denoiseg_flow.errors import InputError

_MOST_PLANES = 10**6
_LONGEST = 2**26  # bytes of a description
_DESCRIPTIVE = {270, 282, 283}  # ImageDescription, XResolution, YResolution
_FORMATS = {42: ("H", 12, "I"), 43: ("Q", 20, "Q")}  # number of tags, tag, offset


class TifSource:
    """The only image in a tif file.

    Attributes
    ----------
    shape, axes
        Length and letter of each axis in the file, including those of length 1. The letters are
        those of tifffile: S is colour samples, Q and I are axes of unknown meaning.
    dtype
        Pixel type, in native byte order.
    pixel_size
        Micrometres by axis letter, as far as known.
    channels, channel_colours, time_step
        See `metadata.Metadata`.
    rgb
        Whether S is red, green and blue, with transparency if there is a fourth.

    Raises
    ------
    InputError
        If the file has several images.
    OSError, ValueError, ...
        If the file is damaged: any error in ``reader.UNREADABLE``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tif = tifffile.TiffFile(path)
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        _check_chain(self._tif)
        _check_tags(self._tif)
        _check_ome(self._tif)
        series = _series(self._tif)
        if not series:
            raise ValueError("it has no image")
        if len(series) > 1:
            raise InputError(
                f"{self.path} holds {len(series)} images; export one grey image per file"
            )
        self._series = series[0]  # the full resolution of a pyramid
        self._keyframe = self._series.keyframe
        if self._series.dtype is None:
            raise ValueError("unknown pixel type")
        dimensions = [each for each in _dimensions(self._series) if each != (1, "S")]
        self.shape = tuple(length for length, _ in dimensions)
        self.axes = "".join(letter for _, letter in dimensions)
        self.dtype = self._series.dtype.newbyteorder("=")
        photometric = self._keyframe.photometric
        self.palette = photometric == tifffile.PHOTOMETRIC.PALETTE
        # The decoders of JPEG convert its colours.
        self.rgb = photometric == tifffile.PHOTOMETRIC.RGB or (
            photometric == tifffile.PHOTOMETRIC.YCBCR and int(self._keyframe.compression) in JPEG
        )
        self._map: np.memmap | None = None
        self._check_imagej()
        offset = self._series.dataoffset
        if offset is not None and not self._series.is_multifile:
            # In a contiguous ImageJ stack, the first page describes all others.
            _check_end(offset + math.prod(self.shape) * self.dtype.itemsize, self._tif.filehandle)
            if math.prod(self.shape):
                dtype = self.dtype.newbyteorder(self._tif.byteorder)
                self._map = np.memmap(self.path, dtype, "r", offset, self.shape)
        else:
            self._check_pages()
            # The files of a set may be compressed differently.
            keyframes = {_keyframe(page) for page in self._pages if not page.is_final}
            try:
                self._decoders = {page: SegmentDecoder(page) for page in keyframes}
            except MissingCodec as error:
                raise InputError(f"{self.path} {error}") from error
        pixels = _ome_pixels(self._tif)
        self.pixel_size = _pixel_size(self._tif, pixels)
        channels = _channels(pixels)
        self.channels = numbered([each.get("Name") for each in channels])
        self.channel_colours = coloured([_colour(each.get("Color")) for each in channels])
        self.time_step = _time_step(self._tif, pixels)

    def _check_imagej(self) -> None:
        """Raise ValueError for a truncated stack, which tifffile would read as a shorter one."""
        n_planes = math.prod(self.shape) // max(
            1, self._keyframe.imagelength * self._keyframe.imagewidth
        )
        n_promised = int((self._tif.imagej_metadata or {}).get("images", 1))
        if n_promised > n_planes:
            raise ValueError(f"it lacks {n_promised - n_planes} of its {n_promised} planes")

    def _check_pages(self) -> None:
        """Raise ValueError unless the file is large enough to hold all pages of the image."""
        self._pages = [page for page in self._series.pages if page is not None]
        n_missing = len(self._series.pages) - len(self._pages)
        if n_missing:
            raise ValueError(f"it lacks {n_missing} of its {len(self._series.pages)} planes")
        for page in self._pages:
            file, keyframe = page.parent.filehandle, _keyframe(page)
            if (keyframe.shaped, keyframe.dtype) != (self._keyframe.shaped, self._keyframe.dtype):
                raise ValueError("its planes differ in size or type")
            if page.is_final:
                _check_end(page.dataoffsets[0] + keyframe.nbytes, file)
                continue
            n_segments = math.prod(keyframe.chunked)
            n_bytes = int(keyframe.size * np.mean(keyframe.bitspersample)) // 8
            counts = page.databytecounts
            n_written = min(sum(count > 0 for count in counts), len(page.dataoffsets))
            if n_written < n_segments:
                n_missing = n_segments - n_written
                raise ValueError(f"it lacks {n_missing} of the {n_segments} tiles of a plane")
            for start, count in zip(page.dataoffsets, counts, strict=False):
                _check_end(start + count, file)
            check_expansion(int(keyframe.compression), sum(counts), n_bytes)

    def read(self, slices: Sequence[slice]) -> np.ndarray:
        """Return a copy of the pixels in a slice of each dimension, with start and stop."""
        shape = tuple(part.stop - part.start for part in slices)
        if 0 in shape:
            return np.empty(shape, self.dtype)
        if self._map is not None:
            values = np.array(self._map[tuple(slices)], self.dtype)
            release(self._map)
            return values
        n_leading = self._leading()
        if n_leading is None:
            whole = np.empty((len(self._pages), *self._keyframe.shaped), self.dtype)
            for page, plane in zip(self._pages, whole, strict=True):
                self._read_page(page, [slice(0, n) for n in plane.shape], plane)
            return whole.reshape(self.shape)[tuple(slices)].copy()
        values = np.empty(shape, self.dtype)
        lengths = iter(
            part
            for part, length in zip(slices[n_leading:], self.shape[n_leading:], strict=True)
            if length > 1
        )
        region = [slice(0, 1) if n == 1 else next(lengths) for n in self._keyframe.shaped]
        planes = values.reshape(-1, *(part.stop - part.start for part in region))
        places = itertools.product(*(range(s.start, s.stop) for s in slices[:n_leading]))
        for plane, place in zip(planes, places, strict=True):
            number = _flat_index(place, self.shape[:n_leading])
            self._read_page(self._pages[number], region, plane)
        return values

    def _leading(self) -> int | None:
        """Return how many leading axes count pages; None if pages do not match the axes."""
        of_page = [length for length in self._keyframe.shaped if length > 1]
        for number in range(len(self.shape) + 1):
            leading, others = self.shape[:number], self.shape[number:]
            if math.prod(leading) == len(self._pages) and of_page == [
                length for length in others if length > 1
            ]:
                return number
        return None

    def _read_page(self, page: Any, region: Sequence[slice], values: np.ndarray) -> None:
        """Fill ``values`` with a region (sample plane, z, y, x, sample) of a page."""
        if page.is_final:
            name, shape = Path(page.parent.filehandle.path), self._keyframe.shaped
            dtype = self.dtype.newbyteorder(page.parent.byteorder)
            values[...] = np.memmap(name, dtype, "r", page.dataoffsets[0], shape)[tuple(region)]
            return
        self._read_segments(page, region, values)

    def _read_segments(self, page: Any, region: Sequence[slice], values: np.ndarray) -> None:
        """Decode those tiles or strips of a page that a region needs."""
        decoder = self._decoders[page.keyframe]
        lengths, sides = self._keyframe.shaped[:4], (1, *decoder.sides)
        grid = [-(-n // side) for n, side in zip(lengths, sides, strict=True)]
        needed = [
            range(part.start // side, (part.stop - 1) // side + 1)
            for part, side in zip(region[:4], sides, strict=True)
        ]
        places = {_flat_index(place, grid): place for place in itertools.product(*needed)}
        segments = decoder.decode(page, list(places))
        for (sample, *place), segment in zip(places.values(), segments, strict=True):
            source, target = [], [sample - region[0].start]
            for part, number, side, length in zip(
                region[1:4], place, sides[1:], segment.shape, strict=False
            ):
                first = number * side
                low, high = max(part.start, first), min(part.stop, first + length)
                source.append(slice(low - first, high - first))
                target.append(slice(low - part.start, high - part.start))
            values[tuple(target)] = segment[(*source, region[4])]

    def close(self) -> None:
        """Close the file."""
        self._map = None
        self._tif.close()


def _flat_index(place: Sequence[int], shape: Sequence[int]) -> int:
    return int(np.ravel_multi_index(tuple(place), tuple(shape))) if shape else 0


def _keyframe(page: tifffile.TiffPage | tifffile.TiffFrame) -> tifffile.TiffPage:
    """Return the page whose tags hold for a page."""
    assert page.keyframe is not None
    return page.keyframe


def _check_end(end: int, file: tifffile.FileHandle) -> None:
    if end > file.size:
        raise ValueError(f"its pixels need {end} bytes, but it has {file.size}")


def _series(tif: tifffile.TiffFile) -> Sequence[tifffile.TiffPageSeries]:
    """Return the images of a file."""
    # Since tifffile 2026.5.2, `series` are without axes of length 1 unless they are called for.
    return tif.series(squeeze=False) if callable(tif.series) else tif.series


def _dimensions(series: tifffile.TiffPageSeries) -> list[tuple[int, str]]:
    """Return length and letter of each axis of an image, including those of length 1."""
    if hasattr(series, "get_shape"):  # before tifffile 2026.5.2
        return list(zip(series.get_shape(False), series.get_axes(False), strict=True))
    return list(zip(series.shape, series.axes, strict=True))


def _check_chain(tif: tifffile.TiffFile) -> None:
    """Raise ValueError if the chain of pages has a cycle, which tifffile would follow forever."""
    form, file = tif.tiff, tif.filehandle
    offset, seen = tif.pages.first.offset, set[int]()
    while 0 < offset < file.size:
        if offset in seen:
            raise ValueError(f"its page {len(seen)} is followed by an earlier one")
        seen.add(offset)
        file.seek(offset)
        try:
            (n_tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
            file.seek(n_tags * form.tagsize, os.SEEK_CUR)
            (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
        except struct.error:
            return  # tifffile stops here as well


def _check_tags(tif: tifffile.TiffFile) -> None:
    """Raise ValueError if tifffile skips a damaged tag that describes axes or pixel size.

    These tags lie at the end of an OME-TIFF, which a truncated copy lacks.
    """
    form, file, first = tif.tiff, tif.filehandle, tif.pages.first
    file.seek(first.offset)
    (n_tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    for _ in range(n_tags):
        code, _ = struct.unpack(form.tagformat1, file.read(form.tagsize)[:4])
        if code in _DESCRIPTIVE and code not in first.tags:
            raise ValueError(f"its {tifffile.TIFF.TAGS[code]} is damaged or truncated")


def _check_ome(tif: tifffile.TiffFile) -> None:
    """Raise ValueError for OME metadata that are unsafe to follow."""
    text = tif.ome_metadata
    if text is None:
        return
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("its metadata define entities")  # a few can expand to gigabytes of text
    try:
        elements = list(ElementTree.fromstring(text).iter())
    except ElementTree.ParseError:
        return  # tifffile ignores them as well
    for element in elements:
        attributes = element.attrib
        name = attributes.get("FileName", "image")
        if not _is_plain(name):
            raise ValueError(f"its metadata refer to another folder, {name!r}")
        counts: list[str | float] = [
            attributes[key] for key in ("PlaneCount", "NumPlanes") if key in attributes
        ]
        sizes = [int(attributes[f"Size{axis}"]) for axis in ORDER if f"Size{axis}" in attributes]
        counts.append(math.prod(sizes) // max(tif.pages.first.size, 1))
        if "Start" in attributes and "End" in attributes:
            length = float(attributes["End"]) - float(attributes["Start"])
            counts.append(length / float(attributes.get("Step", 1)))
        for count in map(float, counts):
            if not abs(count) <= _MOST_PLANES:
                raise ValueError(f"its metadata claim {count:.3g} planes")


def other_files(path: Path) -> list[str]:
    """Return the names of the other files that belong to the image of an OME-TIFF.

    Reads only its description; empty for files that cannot be read.
    """
    try:
        status = path.stat()
    except OSError:
        return []
    return _other_files(path, status.st_mtime_ns, status.st_size)


@cache  # because folders are listed several times
def _other_files(path: Path, *_: int) -> list[str]:
    try:
        root = ElementTree.fromstring(_description(path))
    except (OSError, ValueError, KeyError, OverflowError, struct.error, ElementTree.ParseError):
        return []
    named = [each for each in root.iter() if "FileName" in each.attrib]
    # A renamed file still refers to its former name, but with its own UUID.
    names = {each.attrib["FileName"] for each in named if each.text != root.attrib.get("UUID")}
    return sorted(name for name in names - {path.name} if _is_plain(name))


def _is_plain(name: str) -> bool:
    """Return whether a file name contains no folder, on any system."""
    return name == re.split(r"[/\\]", name)[-1] and name not in ("", ".", "..")


def _description(path: Path) -> bytes:
    """Return the OME metadata of a tif file as stored, without reading anything else."""
    with path.open("rb") as file:
        order = {b"II": "<", b"MM": ">"}[file.read(2)]
        (version,) = struct.unpack(f"{order}H", file.read(2))
        count, size, offset = _FORMATS[version]

        def number(form: str) -> int:
            (value,) = struct.unpack(order + form, file.read(struct.calcsize(order + form)))
            return value

        file.seek(4 if version == 42 else 8)
        file.seek(number(offset))
        for _ in range(number(count)):
            entry = file.read(size)
            code, length, place = struct.unpack(f"{order}H2x{offset}{offset}", entry)
            if code == 270:
                file.seek(place)
                text = file.read(min(length, _LONGEST)).rstrip(b"\0")
                is_ome = text.rstrip().endswith(b"OME>") and b"<!DOCTYPE" not in text
                return text if is_ome else b""
    return b""


def _pixel_size(tif: tifffile.TiffFile, pixels: Mapping[str, Any]) -> dict[str, float]:
    """Return pixel sizes by axis, from OME, ImageJ or tif tags.

    Dots per inch are ignored, because programs write a meaningless 72 by default.
    """
    sizes = {
        axis: micrometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"{name}Unit", "µm"))
        for axis in "ZYX"
        for name in [f"PhysicalSize{axis}"]
    }
    imagej = tif.imagej_metadata or {}
    page = tif.pages.first
    unit = imagej.get("unit")
    if micrometres(1, unit) is None:
        unit = "cm" if page.resolutionunit == tifffile.RESUNIT.CENTIMETER else None
    else:
        sizes["Z"] = sizes["Z"] or micrometres(imagej.get("spacing"), unit)
    if sizes["Y"] is None and sizes["X"] is None:
        for axis, per_unit in zip("XY", page.resolution, strict=True):
            sizes[axis] = micrometres(1 / per_unit, unit) if per_unit > 0 else None
    return {axis: size for axis, size in sizes.items() if size}


def _time_step(tif: tifffile.TiffFile, pixels: Mapping[str, Any]) -> float | None:
    """Return the seconds from one time point to the next, from OME or ImageJ."""
    imagej = tif.imagej_metadata or {}
    found = seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    return found or seconds(imagej.get("finterval"), imagej.get("tunit", "s"))


def _ome_pixels(tif: tifffile.TiffFile) -> Mapping[str, Any]:
    """Return the attributes of Pixels in OME metadata; empty without OME metadata."""
    text = tif.ome_metadata
    if text is None:
        return {}
    try:
        image = tifffile.xml2dict(text)["OME"]["Image"]
        return (image[0] if isinstance(image, list | tuple) else image)["Pixels"]
    except (KeyError, TypeError, SyntaxError, IndexError):
        return {}


def _channels(pixels: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the attributes of each channel in OME metadata."""
    channels = pixels.get("Channel", ())
    channels = channels if isinstance(channels, list | tuple) else (channels,)
    return [each for each in channels if isinstance(each, Mapping)]


def _colour(value: object) -> str | None:
    """Return a colour of OME, a signed number of 32 bits, as hexadecimal digits."""
    if not isinstance(value, int) or not -(2**31) <= value < 2**31:
        return None
    return value.to_bytes(4, signed=True)[:3].hex().upper()  # without opacity
