"""Image files of other programs: their metadata, any piece of them, and refusals."""

import os
import resource
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refusal

from denoiseg_flow.data.files import reader
from denoiseg_flow.data.files.metadata import ORDER, Metadata
from denoiseg_flow.data.files.reader import open_image_file
from denoiseg_flow.data.files.units import micrometres, seconds
from denoiseg_flow.data.store import read_metadata
from denoiseg_flow.errors import InputError

STACK = np.arange(5 * 48 * 40, dtype=np.uint16).reshape(5, 48, 40)
NOISE = np.random.default_rng(0).integers(0, 2**16, (5, 48, 40), np.uint16)


def whole(path, axes=None, **options):
    """Return the metadata and all pixels of a file, having checked that they fit together."""
    with open_image_file(path, axes, **options) as image:
        pixels = image.read((slice(None),) * len(image.shape))
        assert (pixels.shape, pixels.dtype) == (image.shape, image.dtype)
        assert len(image.metadata.axes) == len(image.shape)
        return image.metadata, pixels


# --- what files say ------------------------------------------------------------------------------


def test_ome_tif(tmp_path):
    path = tmp_path / "a.ome.tif"
    pixels = np.arange(2 * 3 * 5 * 16 * 17, dtype=np.uint16).reshape(2, 3, 5, 16, 17)
    tifffile.imwrite(
        path,
        pixels,
        metadata={
            "axes": "TCZYX",
            "PhysicalSizeX": 250.0,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeZ": 0.002,
            "PhysicalSizeZUnit": "mm",
            "TimeIncrement": 1.5,
            "TimeIncrementUnit": "min",
            "Channel": {"Name": ["DAPI", "GFP", "RFP"], "Color": [65535, 16711935, -16776961]},
        },
    )
    metadata, found = whole(path)
    assert metadata == Metadata(
        "TCZYX",
        {"Z": 2, "Y": 0.5, "X": 0.25},
        ("DAPI", "GFP", "RFP"),
        ("0000FF", "00FF00", "FF0000"),
        90,
    )
    np.testing.assert_array_equal(found, pixels)


def test_ome_tif_in_another_order_with_what_is_known(tmp_path):
    """A channel without a name gets a number, and a pixel size without sense is not known."""
    path = tmp_path / "a.ome.tif"
    pixels = np.arange(5 * 2 * 16 * 17, dtype=np.uint8).reshape(5, 2, 16, 17)
    sizes = {"PhysicalSizeX": -1.0, "PhysicalSizeY": 1e30, "PhysicalSizeZ": 3.0}
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", ""]}, **sizes}
    tifffile.imwrite(path, pixels, metadata=metadata)
    metadata, found = whole(path)
    assert metadata == Metadata("CZYX", {"Z": 3}, ("DAPI", "C2"))
    np.testing.assert_array_equal(found, pixels.swapaxes(0, 1))
    assert read_metadata(path).spacing() is None


def test_imagej_hyperstack(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.arange(2 * 4 * 3 * 16 * 17, dtype=np.uint16).reshape(2, 4, 3, 16, 17)
    tifffile.imwrite(
        path,
        pixels,
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "TZCYX", "unit": "micron", "spacing": 1.5, "finterval": 20.0},
    )
    metadata, found = whole(path)
    assert metadata == Metadata("TCZYX", {"Z": 1.5, "Y": 0.5, "X": 0.25}, time_step=20)
    np.testing.assert_array_equal(found, pixels.swapaxes(1, 2))
    assert read_metadata(path).spacing() == pytest.approx((1.5, 0.5, 0.25))


def test_axes_that_tifffile_wrote_and_resolution_per_centimetre(tmp_path):
    path = tmp_path / "a.tif"
    resolution = {"resolution": (40000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata={"axes": "TYX"}, **resolution)
    metadata, found = whole(path)
    assert metadata == Metadata("TYX", pytest.approx({"Y": 0.5, "X": 0.25}))
    np.testing.assert_array_equal(found, STACK)


def test_png(tmp_path):
    Image.fromarray(STACK[0]).save(tmp_path / "a.png")
    metadata, found = whole(tmp_path / "a.png")
    assert metadata == Metadata("YX")
    np.testing.assert_array_equal(found, STACK[0])


def test_pixels_of_one_bit_are_numbers(tmp_path):
    """NumPy refuses to compute with booleans."""
    bits = NOISE[0] > 2**15
    tifffile.imwrite(tmp_path / "a.tif", bits, photometric="minisblack")
    Image.fromarray(bits).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        found = whole(tmp_path / name)[1]
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, bits)


def test_pyramid_is_its_full_resolution(tmp_path):
    path = tmp_path / "a.ome.tif"
    pixels = NOISE[:, :32, :32].repeat(4, 1).repeat(4, 2)
    with tifffile.TiffWriter(path) as tif:
        options = {"tile": (32, 32), "photometric": "minisblack", "compression": "zlib"}
        tif.write(pixels, subifds=1, metadata={"axes": "ZYX"}, **options)
        tif.write(pixels[:, ::2, ::2], subfiletype=1, **options)
    metadata, found = whole(path)
    assert metadata == Metadata("ZYX")
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(
    ("length", "unit", "expected"),
    [
        (250, "nm", 0.25),
        ("1.5", "µm", 1.5),
        (1.5, "μm", 1.5),
        (2, "\\u00B5m", 2),
        (3, "Å", 3e-4),
        (0.5, "millimeter", 500),
        (1, "pixel", None),
        (1, None, None),
        (None, "µm", None),
        (0, "µm", None),
        (-1, "µm", None),
        ("nan", "µm", None),
        (1e20, "µm", None),
    ],
)
def test_micrometres(length, unit, expected):
    assert micrometres(length, unit) == expected


def test_lengths_keep_no_errors_of_rounding():
    assert 3.25e-5 * 1e4 == 0.32499999999999996
    assert micrometres(3.25e-5, "cm") == 0.325


@pytest.mark.parametrize(
    ("time", "unit", "expected"),
    [
        (1.5, "min", 90),
        ("250", "ms", 0.25),
        (2, "hour", 7200),
        (3, "pixel", None),
        (0, "s", None),
        (-1, "s", None),
        ("inf", "s", None),
        (None, "s", None),
    ],
)
def test_seconds(time, unit, expected):
    assert seconds(time, unit) == expected


# --- what the user says --------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX", "YXC", "XZY"])
def test_axes_of_the_user(tmp_path, axes):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    metadata, found = whole(tmp_path / "a.tif", axes)
    ordered = "".join(sorted(axes, key=ORDER.index))
    assert metadata == Metadata(ordered)
    np.testing.assert_array_equal(found, STACK.transpose([axes.index(axis) for axis in ordered]))


def test_axes_of_the_user_override_those_of_the_file(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "ZYX"})
    assert whole(tmp_path / "a.tif")[0].axes == "ZYX"
    assert whole(tmp_path / "a.tif", "TYX")[0].axes == "TYX"
    assert whole(tmp_path / "a.tif", "TZCYX")[0].axes == "ZYX"  # as ImageJ counts dimensions


def test_axes_of_length_1_are_left_out_with_their_names(tmp_path):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "TCZYX", "Channel": {"Name": ["DAPI"]}, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(path, STACK[:1, None, None], metadata=metadata)
    for axes in (None, "YX", "TCZYX"):
        metadata, found = whole(path, axes)
        assert metadata == Metadata("YX")
        np.testing.assert_array_equal(found, STACK[0])
    tifffile.imwrite(tmp_path / "b.tif", STACK[:, :1])
    assert whole(tmp_path / "b.tif", "ZYX")[1].shape == (5, 1, 40)


def test_colours_are_channels_if_the_user_says_so(tmp_path):
    rgb = NOISE[:3].astype(np.uint8).transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", rgb, photometric="rgb", tile=(16, 16), compression="zlib")
    Image.fromarray(rgb).save(tmp_path / "c.png")
    for name in ("a.tif", "b.tif", "c.png"):
        assert "colour" in refusal(open_image_file, tmp_path / name)
        metadata, found = whole(tmp_path / name, "YXC")
        assert metadata == Metadata("CYX")
        np.testing.assert_array_equal(found, rgb.transpose(2, 0, 1))


@pytest.mark.parametrize("n_planes", [3, 4, 5])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_that_the_file_calls_colours(tmp_path, n_planes, compression):
    """As tifffile writes a stack of three or four planes, unless it is told otherwise."""
    path, stack = tmp_path / "a.tif", NOISE[:n_planes]
    options = {"compression": compression, "planarconfig": "separate"}
    tifffile.imwrite(path, stack, photometric="rgb" if n_planes < 5 else "minisblack", **options)
    assert refusal(open_image_file, path) == (
        f"{path} has {n_planes} planes that it calls colours; say what they are with 'axes' in the "
        "dataset's config (or --axes), such as TYX for a time series, ZYX for a z-stack or CYX for "
        "channels"
    )
    for axes in ("TYX", "ZYX", "CYX"):
        metadata, found = whole(path, axes)
        assert metadata == Metadata(axes)
        np.testing.assert_array_equal(found, stack)


def test_a_snapshot_in_colour_among_stacks(tmp_path):
    """Its colours are no pixels, whatever is said of all files of the folder."""
    rgb = NOISE[:3].astype(np.uint8).transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    assert "is a colour image" in refusal(open_image_file, tmp_path / "a.tif", "TYX")
    assert "is a mask in colour" in refusal(open_image_file, tmp_path / "a.tif", indexed=True)


def test_palette_needs_indexed(tmp_path):
    Image.fromarray(STACK[0].astype(np.uint8)).convert("P").save(tmp_path / "a.png")
    assert "colour" in refusal(open_image_file, tmp_path / "a.png")
    assert whole(tmp_path / "a.png", indexed=True)[0] == Metadata("YX")


def test_dimensions_of_unknown_meaning(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack")
    assert refusal(open_image_file, path) == (
        f"{path} has 3 axes of shape (5, 48, 40) but does not say what they are (axes QYX); "
        "write 'axes' in the dataset's config (or --axes), such as ZYX for a z-stack, TYX for a "
        "time series or CYX for channels"
    )
    with tifffile.TiffWriter(path) as tif:
        for plane in STACK:
            tif.write(plane, contiguous=False, metadata=None)
    assert "axes IYX" in refusal(open_image_file, path)


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ("YX", "has fewer letters"),
        ("TZYX", "has more letters"),
        ("ZZX", "at most once"),
        ("TZX", "Y and X always"),
        ("SYX", "each of the letters T, C, Z, Y and X"),
        ("zyx", "each of the letters T, C, Z, Y and X"),
        ("", "Y and X always"),
    ],
)
def test_wrong_axes(tmp_path, axes, reason):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    message = refusal(open_image_file, tmp_path / "a.tif", axes)
    assert reason in message and f"'axes: {axes}'" in message and "a.tif" in message


def test_several_images(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(STACK[0])
        tif.write(STACK[0, :10])
    assert "2 images" in refusal(open_image_file, tmp_path / "a.tif")


# --- pieces --------------------------------------------------------------------------------------

KINDS = {
    "contiguous": {},
    "big-endian": {"byteorder": ">"},
    "tiles": {"tile": (16, 16), "compression": "zlib"},
    "strips": {"rowsperstrip": 3, "compression": "zlib", "predictor": True},
    "plain tiles": {"tile": (16, 32)},
    "plain strips": {"rowsperstrip": 5},
    "volume tiles": {"tile": (2, 16, 16), "compression": "zlib", "volumetric": True},
    "ome": {"ome": True, "rowsperstrip": 7, "compression": "zlib"},
    "imagej": {"imagej": True},
}


def _places(length):
    """Any index or slice of an axis, those that reach beyond it and empty ones included."""
    ends = st.one_of(st.none(), st.integers(-length - 2, length + 2))
    return st.one_of(st.integers(-length, length - 1), st.builds(slice, ends, ends))


@st.composite
def _images(draw):
    kind = draw(st.sampled_from(sorted(KINDS)))
    n_leading = 1 if kind == "volume tiles" else draw(st.integers(0, 2))
    leading = "TZ" if kind == "imagej" else draw(st.permutations("TCZ"))
    axes = "".join(leading[2 - n_leading :][:n_leading]) + "YX"
    shape = [draw(st.integers(2, 4)) for _ in axes[:-2]]
    shape += [draw(st.integers(2, 40)) for _ in "YX"]
    by_axis = dict(zip(axes, shape, strict=True))
    place = [draw(_places(by_axis[axis])) for axis in sorted(axes, key=ORDER.index)]
    return kind, axes, tuple(shape), tuple(place)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(_images())
def test_pieces_are_those_of_the_whole(tmp_path_factory, drawn):
    kind, axes, shape, place = drawn
    path = tmp_path_factory.mktemp("pieces") / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 2**16, shape, np.uint16)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": axes}, **KINDS[kind])
    expected = pixels.transpose([axes.index(axis) for axis in sorted(axes, key=ORDER.index)])
    with open_image_file(path) as image:
        assert image.metadata.axes == "".join(sorted(axes, key=ORDER.index))
        assert (image.shape, image.dtype) == (expected.shape, np.uint16)
        found = image.read(place)
    np.testing.assert_array_equal(found, expected[place])
    assert found.dtype == np.uint16 and found.shape == np.shape(expected[place])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", None])
def test_pages_of_pillow(tmp_path, compression):
    """LZW is left to Pillow, as tifffile needs another package for it."""
    pages = [Image.fromarray(plane) for plane in NOISE.astype(np.uint8)]
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)
    with open_image_file(path, "ZYX") as image:
        for z in (3, 0, 4):
            np.testing.assert_array_equal(
                image.read((z, slice(5, 20), slice(None))), NOISE[z, 5:20].astype(np.uint8)
            )


def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch):
    tifffile.imwrite(
        tmp_path / "a.tif", NOISE, tile=(16, 16), compression="zlib", metadata={"axes": "ZYX"}
    )
    sizes = []
    read = tifffile.FileHandle.read
    monkeypatch.setattr(
        tifffile.FileHandle, "read", lambda self, *size: sizes.append(size) or read(self, *size)
    )
    with open_image_file(tmp_path / "a.tif") as image:
        sizes.clear()
        found = image.read((slice(1, 3), slice(20, 30), 15))
    np.testing.assert_array_equal(found, NOISE[1:3, 20:30, 15])
    assert len(sizes) == 2


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ((0, 0), ValueError),
        ((5, 0, 0), IndexError),
        ((0, 0, -41), IndexError),
        ((slice(None, None, 2), 0, 0), ValueError),
    ],
)
def test_place_that_does_not_fit(tmp_path, place, error):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    with open_image_file(tmp_path / "a.tif", "ZYX") as image, pytest.raises(error):
        image.read(place)


# --- bad files -----------------------------------------------------------------------------------


def test_missing_files(tmp_path):
    for name in ("a.tif", "a.png", "a.zarr"):
        message = refusal(open_image_file, tmp_path / name)
        assert name in message and "does not exist" in message
    assert "not a file" in refusal(open_image_file, tmp_path)


def test_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0])
    path.chmod(0)
    if os.access(path, os.R_OK):  # of a superuser

        def forbidden(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setitem(reader.READERS, ".tif", forbidden)
    assert refusal(open_image_file, path) == (
        f"permission denied: {path}; check the file permissions"
    )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_cut_off_files(tmp_path, kind):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, NOISE, photometric="minisblack", metadata={"axes": "ZYX"}, **KINDS[kind])
    content = path.read_bytes()
    for kept in (0, 4, 100, len(content) // 2, len(content) - 1000):
        path.write_bytes(content[:kept])
        message = refusal(open_image_file, path)
        assert str(path) in message and "damaged or incomplete" in message


def _promise(path, code, value):
    """Change the value of a tag in the first page of a little-endian tif file."""
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages.first.tags[code]
        offset, kind = tag.valueoffset, {3: "<H", 4: "<I"}[int(tag.dtype)]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack(kind, value))


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, {257: 60000}),
        ({}, {256: 60000, 257: 60000}),
        ({"rowsperstrip": 8}, {257: 60000}),
        ({"tile": (16, 16), "compression": "zlib"}, {257: 60000}),
        ({"compression": "zlib"}, {256: 60000, 257: 60000, 278: 60000}),
    ],
    ids=["higher", "larger", "strips", "tiles", "one strip"],
)
def test_promise_of_more_than_there_is(tmp_path, monkeypatch, options, changes):
    """Nothing of that size is allocated or mapped."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, NOISE[0], metadata=None, **options)
    for code, value in changes.items():
        _promise(path, code, value)

    def forbidden(*_, **__):
        raise AssertionError("made an array")

    monkeypatch.setattr(np, "memmap", forbidden)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", forbidden)
    message = refusal(open_image_file, path)
    assert str(path) in message and "damaged or incomplete" in message


def test_promise_of_more_planes_than_there_are(tmp_path):
    for name, options in (("a.ome.tif", {}), ("b.tif", {"imagej": True})):
        path = tmp_path / name
        tifffile.imwrite(path, NOISE[:4], metadata={"axes": "ZYX"}, **options)
        content = path.read_bytes()
        for old, new in ((b'SizeZ="4"', b'SizeZ="9"'), (b"images=4", b"images=9"),
                         (b"slices=4", b"slices=9")):  # fmt: skip
            content = content.replace(old, new)
        path.write_bytes(content)
        assert "damaged or incomplete" in refusal(open_image_file, path)


def test_damaged_tile_is_found_when_it_is_read(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, NOISE[0], tile=(16, 16), compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[1]
    content = bytearray(path.read_bytes())
    content[offset : offset + 50] = bytes(50)
    path.write_bytes(content)
    with open_image_file(path) as image:
        np.testing.assert_array_equal(image.read((slice(16), slice(16))), NOISE[0, :16, :16])
        assert "a.tif" in refusal(image.read, (slice(16), slice(10, 20)))


@pytest.mark.parametrize("kept", [0, 5, 100, 1500])
def test_damaged_png(tmp_path, kept):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE[0]).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    message = refusal(open_image_file, path)
    assert "a.png" in message and "damaged or incomplete" in message


def test_random_damage_is_refused_or_read(tmp_path):
    """Whatever bytes of the header are wrong, there is an image or a sentence."""
    path = tmp_path / "a.tif"
    rng = np.random.default_rng(1)
    for options in ({}, {"tile": (16, 16), "compression": "zlib"}, {"imagej": True}):
        tifffile.imwrite(path, NOISE, metadata={"axes": "ZYX"}, photometric="minisblack", **options)
        content = path.read_bytes()
        with tifffile.TiffFile(path) as tif:
            header = [*range(8), *range(tif.pages.first.offset, tif.pages.first.offset + 250)]
        for _ in range(40):
            damaged = bytearray(content)
            place = int(rng.choice(header))
            damaged[place] = int(rng.integers(256))
            path.write_bytes(damaged)
            try:
                with open_image_file(path) as image:
                    image.read(tuple(slice(0, 2) for _ in image.shape))
            except InputError as error:
                assert "a.tif" in str(error) and "\n" not in str(error)


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}"><Image
ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="40" SizeY="48"
SizeC="1" SizeZ="2" SizeT="1">{planes}</Pixels></Image></OME>"""
PLANE = '<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{z}.ome.tif">urn:uuid:{z}'


def test_ome_tif_in_several_files(tmp_path):
    """Of which one may be lost."""
    planes = "".join(f"{PLANE.format(z=z)}</UUID></TiffData>" for z in (0, 1))
    for z in (0, 1):
        description = OME.format(own=z, planes=planes)
        tifffile.imwrite(
            tmp_path / f"{z}.ome.tif", NOISE[z], description=description, metadata=None
        )
    metadata, found = whole(tmp_path / "0.ome.tif")
    assert metadata == Metadata("ZYX")
    np.testing.assert_array_equal(found, NOISE[:2])
    (tmp_path / "1.ome.tif").unlink()
    assert "it lacks 1 of its 2 planes" in refusal(open_image_file, tmp_path / "0.ome.tif")


# --- hostile files -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["BMP", "GIF", "EPS", "PPM"])
def test_what_is_only_called_png_or_tif(tmp_path, monkeypatch, kind):
    """Pillow would read them all, and start Ghostscript for EPS."""

    def forbidden(*_, **__):
        raise AssertionError("started another program")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    for name in ("a.png", "a.tif"):
        Image.fromarray(NOISE[0].astype(np.uint8)).save(tmp_path / name, format=kind)
        assert "damaged or incomplete" in refusal(open_image_file, tmp_path / name)


def test_png_bomb(tmp_path):
    """13000 x 13000 pixels in 60 bytes: no array of that size is made."""
    path = tmp_path / "a.png"
    Image.fromarray(NOISE[0].astype(np.uint8)).save(path)
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", 13000, 13000, 16, 0, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(header))
    path.write_bytes(content[:12] + header + check + content[33:])
    assert "cannot hold 13000 x 13000 pixels" in refusal(open_image_file, path)


def test_png_with_an_endless_chunk(tmp_path):
    """Its content is said to have 4 GiB; Pillow would reserve them."""
    path = tmp_path / "a.png"
    Image.fromarray(NOISE[0].astype(np.uint8)).save(path)
    content = path.read_bytes()
    place = content.index(b"IDAT") - 4
    path.write_bytes(content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, limits[1]))
    try:
        assert not isinstance(cause_of_refusal(path), MemoryError)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def cause_of_refusal(path):
    """Return the error behind a refusal; None, if the file is read after all."""
    try:
        with open_image_file(path):
            return None
    except InputError as error:
        return error.__cause__


@pytest.mark.parametrize("back", [0, 1])
def test_pages_in_a_circle(tmp_path, back):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for plane in NOISE[:3]:
            tif.write(plane, contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as tif:
        offsets = [page.offset for page in tif.pages]
    content = path.read_bytes()
    last = struct.pack("<I", offsets[2])
    assert content.count(last) == 1
    path.write_bytes(content.replace(last, struct.pack("<I", offsets[back])))
    assert "its page 2 is followed by an earlier one" in refusal(open_image_file, path)


@pytest.mark.parametrize("form", [{"ome": True}, {"imagej": True}])
def test_a_file_that_is_cut_off_anywhere(tmp_path, form):
    """It is refused, unless all pixels and the description are left, without which no axis is."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, NOISE[:2, :5, :5], metadata={"axes": "ZYX"}, **form)
    whole, n_refused = path.read_bytes(), 0
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        try:
            with open_image_file(path) as image:
                assert image.metadata.axes == "ZYX", length
                assert np.array_equal(image.read((slice(None),) * 3), NOISE[:2, :5, :5]), length
        except InputError as error:
            assert "damaged or incomplete" in str(error)
            n_refused += 1
    assert n_refused > 0.9 * len(whole)


def ome_file(path, description):
    tifffile.imwrite(path, NOISE[0], description=description, metadata=None)
    return path


def test_entities_in_metadata(tmp_path):
    """A billion laughs."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    text = f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY l0 "ha">{laughs}]><OME>&l9;</OME>'
    path = ome_file(tmp_path / "a.ome.tif", text)
    assert "its metadata define entities" in refusal(open_image_file, path)


@pytest.mark.parametrize(
    "name", ["../b.ome.tif", "/etc/passwd", "a\\..\\b.tif", "..", "&#46;&#46;/b.tif"]
)
def test_metadata_that_lead_to_another_folder(tmp_path, name):
    planes = PLANE.format(z=1).replace("1.ome.tif", name) + "</UUID></TiffData>"
    path = ome_file(tmp_path / "a.ome.tif", OME.format(own=0, planes=planes))
    assert "refer to another folder" in refusal(open_image_file, path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('SizeZ="2"', 'SizeZ="9000000000"'),
        ('SizeX="40"', 'SizeX="400000000000"'),
        ('PlaneCount="1"', 'PlaneCount="9000000000"'),
        ('PlaneCount="1"', 'NumPlanes="9_000_000_000"'),
        ("</Image>", '</Image><A><AlongZ Start="0" End="1e12"/></A>'),
        ("</Image>", '</Image><A><AlongZ Start="0" End="1" Step="1e-12"/></A>'),
        ("</Image>", '</Image><A><AlongZ Start="0" End="nan"/></A>'),
    ],
)
def test_metadata_that_promise_absurd_numbers(tmp_path, old, new):
    planes = '<TiffData FirstZ="0" IFD="0" PlaneCount="1"/>'
    path = ome_file(tmp_path / "a.ome.tif", OME.format(own=0, planes=planes).replace(old, new))
    assert "its metadata claim" in refusal(open_image_file, path)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_pixels_that_are_no_grey_levels(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", NOISE[0].astype(dtype))
    assert f"{np.dtype(dtype)} pixels" in refusal(open_image_file, tmp_path / "a.tif")
