"""The numbers that are stored in a tif file, however they are stored."""

import io
import os
import struct
import zlib
from itertools import accumulate

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refusal

from denoiseg_flow.data.files import tif_segments
from denoiseg_flow.data.files.reader import open_image_file, read_image
from denoiseg_flow.data.files.tif_segments import SegmentDecoder

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 2**16, (40, 48), np.uint16)

# Name, number, and how Pillow calls those that zlib does not do.
COMPRESSIONS = {
    "none": (1, None),
    "LZW": (5, "tiff_lzw"),
    "deflate": (8, None),
    "old deflate": (32946, None),
    "PackBits": (32773, "packbits"),
    "LZMA": (34925, "lzma"),
    "zstd": (50000, "zstd"),
    "CCITT RLE": (2, "tiff_ccitt"),
    "CCITT T.4": (3, "group3"),
    "CCITT T.6": (4, "group4"),
}
PIXELS = {  # bits of a pixel, and SampleFormat
    "bool": (1, 1),
    "2 bits": (2, 1),
    "4 bits": (4, 1),
    "uint8": (8, 1),
    "12 bits": (12, 1),
    "uint16": (16, 1),
    "int16": (16, 2),
    "uint32": (32, 1),
    "float32": (32, 3),
    "float64": (64, 3),
}
PLAIN = {256: [8], 257: [8], 258: [8], 259: [1], 262: [1], 277: [1], 278: [8]}
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def stored_bytes(values, bits, order):
    """Return the rows (rows, bytes) of an array (rows, numbers) as a tif file has them."""
    if bits % 8 == 0:
        return values.astype(values.dtype.newbyteorder(order)).view(np.uint8)
    each = values[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint16) & 1
    return np.packbits(each.reshape(len(values), -1).astype(np.uint8), axis=1)


def differences(values, samples):
    """Predictor 2."""
    numbers = values.view(f"u{values.itemsize}").reshape(len(values), -1, samples)
    found = np.diff(numbers, axis=1, prepend=numbers[:, :1] * 0)
    return found.reshape(len(values), -1).view(values.dtype)


def float_differences(values, samples):
    """Predictor 3, as bytes."""
    apart = values.astype(values.dtype.newbyteorder(">")).view(np.uint8)
    apart = apart.reshape(len(values), -1, values.itemsize).swapaxes(1, 2)
    apart = apart.reshape(len(values), -1, samples)
    return np.diff(apart, axis=1, prepend=apart[:, :1] * 0).reshape(len(values), -1)


def compressed(rows, kind, width):
    """Compress rows of bytes; those of CCITT have ``width`` pixels of 1 bit."""
    code, name = COMPRESSIONS[kind]
    if code == 1:
        return rows.tobytes()
    if name is None:
        return zlib.compress(rows.tobytes())
    if code in (2, 3, 4):
        rows = np.unpackbits(rows, axis=1)[:, :width].astype(bool)
    return pillow_strip(rows, name)


def pillow_strip(pixels, compression, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, "TIFF", compression=compression, strip_size=2**20, **options
    )
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as tif:
        (offset,), (count,) = tif.pages.first.dataoffsets, tif.pages.first.databytecounts
    return buffer.getvalue()[offset : offset + count]


def tif_bytes(segments, tags, order):
    """A tif file of one page; ``tags`` have short numbers, or long ones above 65535."""
    offsets = list(accumulate(map(len, segments), initial=8))
    start = offsets[-1] + offsets[-1] % 2
    tags = tags | {273: offsets[:-1], 279: [len(data) for data in segments]}
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    content = (content + b"".join(segments)).ljust(start, b"\0")
    entries, values = struct.pack(f"{order}H", len(tags)), b""
    for code, numbers in sorted(tags.items()):
        kind, letter = (4, "I") if code in (273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        entries += struct.pack(f"{order}HHI", code, kind, len(numbers))
        if len(packed) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(values)
            packed, values = struct.pack(f"{order}I", place), values + packed
        entries += packed.ljust(4, b"\0")
    return content + entries + bytes(4) + values


@st.composite
def _files(draw):
    """Draw pixels (y, x, sample), and a tif file that stores them."""
    kind = draw(st.sampled_from(sorted(PIXELS)))
    bits, sample_format = PIXELS[kind]
    compressions = [c for c in COMPRESSIONS if bits == 1 or not c.startswith("CCITT")]
    compression = draw(st.sampled_from(compressions))
    code, _ = COMPRESSIONS[compression]
    samples = 1 if code in (2, 3, 4) else draw(st.sampled_from([1, 3]))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    shape = (height, width, samples)
    numbers = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 2**bits, shape, np.uint64)
    if draw(st.booleans()):
        numbers //= 2 ** (bits // 2)  # so that there is something to compress
    letter = {1: "u", 2: "i", 3: "f"}[sample_format]
    itemsize = -(-bits // 8)
    pixels = numbers.astype(f"u{itemsize}").view(f"{letter}{itemsize}")
    if letter == "f":
        pixels = numbers.astype(pixels.dtype) / 7
    predictors = [1]
    if bits % 8 == 0 and code != 1:
        predictors += [2, 3] if letter == "f" else [2]
    predictor = draw(st.sampled_from(predictors))
    order = draw(st.sampled_from("<>"))
    tiled = draw(st.booleans()) and code not in (2, 3, 4)
    separate = samples > 1 and draw(st.booleans())
    fill_order = draw(st.sampled_from([1, 2]))
    if tiled:
        rows, columns = draw(st.sampled_from([(16, 16), (32, 16), (16, 48)]))
        cut = {322: [columns], 323: [rows]}
    else:
        rows, columns = draw(st.integers(1, height)), width
        cut = {278: [rows]}
    segments = []
    for part in np.split(pixels, samples, axis=2) if separate else [pixels]:
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                piece = part[top : top + rows, left : left + columns]
                if tiled:
                    missing = (rows - piece.shape[0], columns - piece.shape[1])
                    piece = np.pad(piece, [(0, missing[0]), (0, missing[1]), (0, 0)])
                n_samples, flat = piece.shape[2], piece.reshape(len(piece), -1)
                if predictor == 3:
                    content = float_differences(flat, n_samples)
                else:
                    flat = differences(flat, n_samples) if predictor == 2 else flat
                    content = stored_bytes(flat, bits, order)
                data = compressed(np.ascontiguousarray(content), compression, columns)
                segments.append(data.translate(REVERSED) if fill_order == 2 else data)
    tags = {
        256: [width],
        257: [height],
        258: [bits] * samples,
        259: [code],
        262: [draw(st.sampled_from([0, 1, 2] if samples == 3 else [0, 1]))],
        266: [fill_order],
        274: [draw(st.integers(1, 8))],
        277: [samples],
        284: [2 if separate else 1],
        317: [predictor],
        339: [sample_format] * samples,
    }
    content = tif_bytes(segments, tags | cut, order)
    return pixels, separate, content, tags


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(_files(), st.data())
def test_stored_numbers_are_read_whatever_the_tags(tmp_path_factory, drawn, data):
    pixels, separate, content, tags = drawn
    path = tmp_path_factory.mktemp("tif") / "a.tif"
    path.write_bytes(content)
    expected, axes = np.squeeze(pixels, 2) if pixels.shape[2] == 1 else pixels, "YX"
    if expected.ndim == 3:
        axes, expected = "CYX" if separate else "YXC", expected.transpose(2, 0, 1)
    with open_image_file(path, axes) as file:
        assert (file.dtype, file.shape) == (expected.dtype, expected.shape), tags
        found = file.read([slice(None)] * expected.ndim)
        top = data.draw(st.integers(0, expected.shape[-2] - 1))
        rows = file.read([*[slice(None)] * (expected.ndim - 2), slice(top, top + 9), slice(3, 11)])
    np.testing.assert_array_equal(found, expected, str(tags))
    np.testing.assert_array_equal(rows, expected[..., top : top + 9, 3:11], str(tags))


@pytest.mark.parametrize("photometric", [1, 2, 6])
def test_jpeg(tmp_path, photometric):
    """Grey and in colour, in strips with tables apart from the pixels, as libtiff writes them."""
    smooth = np.add.outer(np.arange(32), 2 * np.arange(48))
    pixels = smooth if photometric == 1 else np.stack([smooth, 150 - smooth, smooth // 2], -1)
    image = Image.fromarray(pixels.astype(np.uint8))
    image = image.convert("YCbCr") if photometric == 6 else image
    tags = {278: 16, 274: 6}
    image.save(tmp_path / "a.tif", compression="jpeg", quality=95, tiffinfo=tags)
    found = read_image(tmp_path / "a.tif", "YX" if photometric == 1 else "YXC")
    found = found if photometric == 1 else found.transpose(1, 2, 0)
    assert np.abs(found.astype(int) - pixels).max() < 6


def lzw_file(path, pixels, **options):
    Image.fromarray(pixels).save(path, compression="tiff_lzw", **options)
    return path


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}"><Image
ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="48" SizeY="40"
SizeC="1" SizeZ="3" SizeT="1">{planes}</Pixels></Image></OME>"""
UUID = '<UUID FileName="{z}.ome.tif">{z}</UUID>'
PLANE = f'<TiffData FirstZ="{{z}}" IFD="0" PlaneCount="1">{UUID}</TiffData>'


def test_each_page_of_a_set_is_read_from_its_own_file(tmp_path):
    """As it is compressed there, and without leaving that file open."""
    planes = "".join(PLANE.format(z=z) for z in range(3))
    pixels = np.stack([NOISE // (z + 1) for z in range(3)])
    for z, options in enumerate(({}, {"byteorder": ">", "compression": "zlib"}, {})):
        description = OME.format(own=z, planes=planes)
        path = tmp_path / f"{z}.ome.tif"
        if z:
            tifffile.imwrite(path, pixels[z], description=description, metadata=None, **options)
        else:
            lzw_file(path, pixels[z], tiffinfo={270: description})
    for z in range(3):
        n_open = len(os.listdir("/proc/self/fd"))
        with open_image_file(tmp_path / f"{z}.ome.tif") as file:
            np.testing.assert_array_equal(file.read([slice(None)] * 3), pixels)
            assert len(os.listdir("/proc/self/fd")) == n_open + 1


def test_sizes_above_the_limit_of_pillow(tmp_path, monkeypatch):
    lzw_file(tmp_path / "a.tif", NOISE)
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("a.tif", "a.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name), NOISE)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_large_strip_is_decoded_once(tmp_path, monkeypatch):
    """For all the bands of rows that are read of it, but smaller ones are not kept in memory."""
    path = lzw_file(tmp_path / "a.tif", NOISE)
    n_decoded = []
    read = SegmentDecoder._read
    monkeypatch.setattr(SegmentDecoder, "_read", lambda *given: n_decoded.append(1) or read(*given))
    for limit, expected in ((tif_segments._GROUP, 4), (1000, 1)):
        monkeypatch.setattr(tif_segments, "_GROUP", limit)
        n_decoded.clear()
        with open_image_file(path) as file:
            bands = [file.read([slice(top, top + 10), slice(None)]) for top in range(0, 40, 10)]
        np.testing.assert_array_equal(np.concatenate(bands), NOISE)
        assert len(n_decoded) == expected


def test_damaged_segment(tmp_path):
    path = lzw_file(tmp_path / "a.tif", NOISE)
    content = bytearray(path.read_bytes())
    content[1000:2000] = bytes(1000)
    path.write_bytes(content)
    assert "seems damaged" in refusal(read_image, path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({259: [34712]}, "is compressed by JPEG2000"),
        ({259: [34887]}, "is compressed by LERC"),
        ({259: [50002]}, "is compressed by JPEGXL"),
        ({259: [6]}, "is compressed by OJPEG"),
        ({259: [60000]}, "is compressed by method 60000"),
        ({259: [5], 317: [34892]}, "is compressed by LZW with predictor HORIZONTALX2"),
        ({258: [24], 259: [5]}, "has pixels of 24 bits"),
        ({258: [24]}, "has pixels of 24 bits"),
    ],
)
def test_what_cannot_be_decoded_is_called_by_its_name(tmp_path, monkeypatch, changes, reason):
    """It is not damaged; where imagecodecs does not help either, it is not asked for."""
    monkeypatch.setattr(tif_segments, "_is_for_tifffile", lambda page: False)
    monkeypatch.setattr(tif_segments, "find_spec", lambda name: None)
    path = tmp_path / "a.tif"
    path.write_bytes(tif_bytes([bytes(8 * 8 * 3)], PLAIN | changes, "<"))
    message = refusal(open_image_file, path)
    assert message == (
        f"{path} {reason}, for which imagecodecs is missing; run 'pip install imagecodecs', or "
        "export it with LZW, deflate or no compression"
    )
    monkeypatch.setattr(tif_segments, "find_spec", lambda name: True)
    assert "which no installed package can read; export it" in refusal(open_image_file, path)


def test_a_codec_that_is_only_promised(monkeypatch):
    """As tifffile promises zstd to every Python, and LZMA to one that was built without."""

    def missing(_):
        raise ModuleNotFoundError("No module named 'compression'")

    page = tifffile.TiffFile(io.BytesIO(tif_bytes([b"x"], PLAIN | {259: [50000]}, "<"))).pages[0]
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", {50000: missing})
    assert not tif_segments._is_for_tifffile(page)
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", {50000: bytes})
    assert tif_segments._is_for_tifffile(page)
