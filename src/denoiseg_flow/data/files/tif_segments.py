"""Decode the strips and tiles of tif files to exactly the stored values.

tifffile decodes nearly everything if the optional package imagecodecs is installed. Otherwise the
libtiff inside Pillow decodes LZW, CCITT, JPEG and zstd. Pillow rotates and inverts images according
to their tags. It therefore gets only the segments (strips or tiles), in a temporary tif file in
memory that states nothing but their compression.
"""

import io
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import accumulate, groupby, islice

import numpy as np
import tifffile
from PIL import Image

from denoiseg_flow.data.files.pillow import open_with_pillow

# Pillow's names of compressions that encode bytes, and of those that encode pixels.
_OF_BYTES = {
    5: "tiff_lzw",
    8: "tiff_adobe_deflate",
    32773: "packbits",
    32946: "tiff_deflate",
    34925: "lzma",
    50000: "zstd",
}
_OF_PIXELS = {2: "tiff_ccitt", 3: "group3", 4: "group4", 7: "jpeg"}
# Largest compression ratio: that of the algorithm for deflate, LZW and PackBits, a generous limit
# for others.
_EXPANSION = {1: 1, 5: 4096, 8: 1100, 32946: 1100, 32773: 128}
_MOST_EXPANSION = 2**16
JPEG = {6, 7, 34892, 33007}
_SHORT = {258, 530}  # tags with several 16-bit numbers
_GROUP = 2**22  # bytes of segments decompressed together
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_Page = tifffile.TiffPage | tifffile.TiffFrame


def check_expansion(compression: int, n_compressed: int, n_bytes: int) -> None:
    """Raise ValueError if the compressed bytes are too few to hold the pixels."""
    if n_compressed * _EXPANSION.get(compression, _MOST_EXPANSION) < n_bytes:
        raise ValueError(f"{n_compressed} bytes cannot hold {n_bytes} bytes of pixels")


class MissingCodec(Exception):
    """No installed package can decode the pixels; the message names their format and the fix."""


class SegmentDecoder:
    """Decode the segments of a page, and of other pages with the same layout.

    Attributes
    ----------
    sides
        Shape (z, y, x) of a segment; the last strip of a plane may have fewer rows.

    Raises
    ------
    MissingCodec
        If no installed package can decode the segments.
    """

    def __init__(self, page: tifffile.TiffPage) -> None:
        self._page = page
        self._dtype = np.dtype(page.dtype)
        self._is_jpeg = int(page.compression) in JPEG
        self._pixel_bytes = page.shaped[-1] * self._dtype.itemsize
        self._last: tuple[_Page, int, np.ndarray] | None = None
        self.sides = (1, page.rowsperstrip, page.imagewidth)
        if page.is_tiled:
            self.sides = (page.tiledepth, page.tilelength, page.tilewidth)
        self._by_tifffile = _is_for_tifffile(page)
        if not self._by_tifffile and not _is_for_pillow(page):
            raise MissingCodec(_missing(page))

    def decode(self, page: _Page, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield segments of a page as arrays (z, y, x, sample), with few in memory at a time."""
        if len(numbers) > 1 or math.prod(self.sides) * self._pixel_bytes <= _GROUP:
            yield from self._read(page, numbers)
            return
        # Keep the last one: a page may be one large strip that is read band by band.
        if self._last is None or self._last[:2] != (page, numbers[0]):
            self._last = None
            self._last = page, numbers[0], next(self._read(page, numbers))
        yield self._last[2]

    def _read(self, page: _Page, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        file = page.parent.filehandle
        was_closed = file.closed  # tifffile keeps few files of a set open
        if was_closed:
            file.open()

        def read(number: int) -> bytes:
            file.seek(page.dataoffsets[number])
            return file.read(page.databytecounts[number])

        try:
            yield from self._decode(numbers, read, page.jpegtables if self._is_jpeg else None)
        finally:
            if was_closed:
                file.close()

    def _decode(
        self, numbers: Iterable[int], read: Callable[[int], bytes], tables: bytes | None
    ) -> Iterator[np.ndarray]:
        if self._by_tifffile:
            more = {}
            if self._is_jpeg:
                more = {"jpegtables": tables, "jpegheader": self._page.jpegheader}
            for number in numbers:
                values = self._page.decode(read(number), number, **more)[0]
                assert values is not None
                yield values
            return
        depth, _, width = self.sides
        for rows, alike in groupby(numbers, self._rows):
            n_bytes = depth * rows * width * self._pixel_bytes
            while group := list(islice(alike, max(1, _GROUP // n_bytes))):
                values = self._by_pillow(list(map(read, group)), depth * rows, tables)
                yield from values.reshape(len(group), depth, rows, width, -1)

    def _rows(self, number: int) -> int:
        length = self.sides[1]
        if self._page.is_tiled:
            return length
        top = number % -(-self._page.imagelength // length) * length
        return min(length, self._page.imagelength - top)

    def _by_pillow(self, segments: list[bytes], rows: int, tables: bytes | None) -> np.ndarray:
        """Return the pixels (row, ...) of several segments with ``rows`` rows each."""
        page, width = self._page, self.sides[2]
        bits, samples, dtype = page.bitspersample, page.shaped[-1], self._dtype
        compression = int(page.compression)
        row = -(-width * samples * bits // 8)  # bytes
        for data in segments:
            check_expansion(compression, len(data), rows * row)
        if page.fillorder == 2 and not self._is_jpeg:
            segments = [data.translate(_REVERSED) for data in segments]
        if compression in _OF_PIXELS:
            return _decompress(segments, rows, width, _tags_of_pixels(page, tables))
        if compression == 1:
            content = b"".join(data[: rows * row] for data in segments)
            stored = np.frombuffer(content, np.uint8).reshape(-1, row)
        else:
            stored = _decompress(segments, rows, row, {259: [compression]})
        if bits % 8:
            return _unpack(stored, bits, width * samples, dtype)
        if page.predictor == 3:
            return _undo_float_differences(stored, samples, dtype)
        values = stored.view(dtype.newbyteorder(page.parent.byteorder)).astype(dtype, copy=False)
        return _undo_differences(values, samples) if page.predictor == 2 else values


def _is_for_tifffile(page: tifffile.TiffPage) -> bool:
    """Return whether tifffile can decode a page, with or without imagecodecs."""
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression](b"")
    except (KeyError, ImportError):
        return False
    except Exception:  # no data to decode, so the codec exists
        pass
    if find_spec("imagecodecs"):
        return page.predictor in tifffile.TIFF.UNPREDICTORS
    whole = not isinstance(page.bitspersample, int) or page.bitspersample in (1, 8, 16, 32, 64, 128)
    return whole and page.predictor in (1, 2)


def _is_for_pillow(page: tifffile.TiffPage) -> bool:
    """Return whether Pillow can decode a page."""
    bits, compression, kind = page.bitspersample, int(page.compression), np.dtype(page.dtype).kind
    if compression != 1 and not _libtiff_knows(compression):
        return False
    if compression == 7:
        return bits == 8 and (page.shaped[-1] == 1 or page.photometric in (2, 6))
    if compression in _OF_PIXELS:
        return bits == 1
    if bits in (8, 16, 32, 64):
        return page.predictor in (1, 2) or (page.predictor == 3 and kind == "f")
    return isinstance(bits, int) and bits < 16 and kind in "bu" and page.predictor == 1


@cache
def _libtiff_knows(compression: int) -> bool:
    """Return whether the libtiff inside Pillow supports a compression."""
    name = (_OF_BYTES | _OF_PIXELS).get(compression)
    try:
        picture = Image.new("1" if compression in (2, 3, 4) else "L", (8, 8))
        picture.save(io.BytesIO(), "TIFF", compression=name)
    except (OSError, KeyError, ValueError, RuntimeError):
        return False
    return name is not None


def _missing(page: tifffile.TiffPage) -> str:
    """Return the message for a page that no installed package can decode."""
    compression = page.compression
    what = f"is compressed by {getattr(compression, 'name', f'method {compression}')}"
    if page.predictor != 1:
        what += f" with predictor {getattr(page.predictor, 'name', page.predictor)}"
    elif compression == 1 or _libtiff_knows(int(compression)):
        what = f"has pixels of {page.bitspersample} bits"
    way_out = "export it with LZW, deflate or no compression"
    if find_spec("imagecodecs"):
        return f"{what}, which no installed package can read; {way_out}"
    return f"{what}, for which imagecodecs is missing; run 'pip install imagecodecs', or {way_out}"


def _tags_of_pixels(page: tifffile.TiffPage, tables: bytes | None) -> dict[int, list[int] | bytes]:
    """Return the tags needed to decompress a page of CCITT or JPEG."""
    tags: dict[int, list[int] | bytes] = {259: [int(page.compression)]}
    if page.compression != 7:
        return tags | {258: [1], 292: [page.tags.valueof(292, 0)]}
    if tables:
        tags[347] = tables
    samples = page.shaped[-1]
    if samples > 1:
        tags |= {258: [8] * samples, 262: [int(page.photometric)], 277: [samples]}
        tags |= {530: list(page.subsampling)} if page.subsampling else {}
    return tags


def _decompress(
    segments: Sequence[bytes], rows: int, width: int, tags: Mapping[int, list[int] | bytes]
) -> np.ndarray:
    """Return the pixels of several segments, one below the other, as an array (row, x[, sample]).

    By default each segment is a strip of grey 8-bit pixels; ``tags`` override this.
    """
    ends = list(accumulate(map(len, segments), initial=8))
    directory = ends[-1] + ends[-1] % 2
    tags = (
        {
            256: [width],
            257: [rows * len(segments)],
            258: [8],
            262: [1],  # zero is black
            273: ends[:-1],
            277: [1],
            278: [rows],
            279: [len(data) for data in segments],
        }
        | dict(tags)
    )
    entries, values = struct.pack("<H", len(tags)), b""
    for code, value in sorted(tags.items()):
        if isinstance(value, bytes):
            kind, packed = 7, value
        else:
            kind, letter = (3, "H") if code in _SHORT else (4, "I")
            packed = struct.pack(f"<{len(value)}{letter}", *value)
        entries += struct.pack("<HHI", code, kind, len(value))
        if len(packed) > 4:
            entries += struct.pack("<I", directory + 2 + 12 * len(tags) + 4 + len(values))
            values += packed + bytes(len(packed) % 2)
        else:
            entries += packed.ljust(4, b"\0")
    header = b"II*\0" + struct.pack("<I", directory)
    content = b"".join([header, *segments, bytes(ends[-1] % 2), entries, bytes(4), values])
    try:
        with open_with_pillow(content, "TIFF") as image:
            return np.asarray(image)
    except OSError as error:
        raise ValueError("its compressed pixels are damaged") from error


def _unpack(stored: np.ndarray, bits: int, n_values: int, dtype: np.dtype) -> np.ndarray:
    """Unpack numbers of fewer than 16 bits from each row of bytes, some rows at a time."""
    values = np.empty((len(stored), n_values), dtype)
    step = max(1, 2**20 // n_values)
    for top in range(0, len(stored), step):
        each = np.unpackbits(stored[top : top + step], axis=1, count=n_values * bits)
        each = each.reshape(-1, n_values, bits)
        values[top : top + step] = each @ (1 << np.arange(bits - 1, -1, -1, dtype=np.uint16))
    return values


def _undo_differences(values: np.ndarray, samples: int) -> np.ndarray:
    """Undo the predictor HORIZONTAL: samples are stored as differences."""
    whole = values.view(f"u{values.itemsize}").reshape(len(values), -1, samples)
    return np.cumsum(whole, axis=1, dtype=whole.dtype).view(values.dtype)


def _undo_float_differences(stored: np.ndarray, samples: int, dtype: np.dtype) -> np.ndarray:
    """Undo the predictor FLOATINGPOINT (Adobe, TIFF Technical Note 3).

    A row stores the first bytes of all numbers, then their second bytes, and so on, each as its
    difference from the byte of the previous pixel.
    """
    apart = stored.reshape(len(stored), -1, samples)
    apart = np.cumsum(apart, axis=1, dtype=np.uint8).reshape(len(stored), dtype.itemsize, -1)
    together = np.ascontiguousarray(apart.swapaxes(1, 2))
    return together.view(dtype.newbyteorder(">"))[..., 0].astype(dtype)
