"""Colour images of any format are read and written as three channels, or refused."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from refusals import refusal

from denoiseg_flow.data import prepare
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.ome_zarr import create_ome_zarr
from denoiseg_flow.data.files.reader import open_image_file, read_image
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.store import (
    create_image,
    open_image,
    open_picture,
    read_metadata,
    write_image,
)

RGB = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
CHANNELS = RGB.transpose(2, 0, 1)
OPAQUE = np.dstack([RGB, np.full((40, 50), 255, np.uint8)])
SMOOTH = np.dstack([np.add.outer(np.arange(48), np.arange(48))] * 3).astype(np.uint8)
SMOOTH[..., 1] //= 2


def write_zarr(path, pixels):
    with create_ome_zarr(path, pixels.shape, pixels.dtype, Metadata("CYX")) as array:
        array[:] = pixels


WRITERS = {
    "interleaved.tif": lambda path: tifffile.imwrite(path, RGB, photometric="rgb"),
    "tiled.tif": lambda path: tifffile.imwrite(
        path, RGB, photometric="rgb", tile=(16, 16), compression="zlib"
    ),
    "planar.tif": lambda path: tifffile.imwrite(
        path, CHANNELS, photometric="rgb", planarconfig="separate"
    ),
    "image.ome.tif": lambda path: tifffile.imwrite(
        path, RGB, photometric="rgb", metadata={"axes": "YXS"}
    ),
    "pillow.tif": lambda path: Image.fromarray(RGB).save(path, compression="tiff_lzw"),
    "alpha.tif": lambda path: tifffile.imwrite(
        path, OPAQUE, photometric="rgb", extrasamples=["unassalpha"]
    ),
    "image.png": lambda path: Image.fromarray(RGB).save(path),
    "image.bmp": lambda path: Image.fromarray(RGB).save(path),
    "alpha.png": lambda path: Image.fromarray(OPAQUE).save(path),
    "image.zarr": lambda path: write_zarr(path, CHANNELS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_three_colours_of_any_file_are_channels(tmp_path, name):
    WRITERS[name](tmp_path / name)
    with open_image_file(tmp_path / name, colour=True) as file:
        assert file.metadata == Metadata("CYX", file.metadata.pixel_size).in_colour()
        assert file.has_alpha == ("alpha" in name) and not file.is_transparent()
        np.testing.assert_array_equal(file.read([slice(None)] * 3), CHANNELS)
        np.testing.assert_array_equal(file.read([1, slice(3, 30), 7]), RGB[3:30, 7, 1])


def test_the_colours_of_jpeg_are_converted(tmp_path):
    Image.fromarray(SMOOTH).convert("YCbCr").save(tmp_path / "a.tif", compression="jpeg")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.YCBCR
    read = read_image(tmp_path / "a.tif", colour=True).transpose(1, 2, 0)
    assert np.abs(read.astype(int) - SMOOTH).max() < 8


def test_time_points_in_colour(tmp_path):
    series = np.stack([RGB, RGB[::-1]])
    tifffile.imwrite(tmp_path / "a.ome.tif", series, photometric="rgb", metadata={"axes": "TYXS"})
    with open_image_file(tmp_path / "a.ome.tif", colour=True) as file:
        assert file.metadata.axes == "TCYX"
        np.testing.assert_array_equal(file.read([1, *[slice(None)] * 3]), CHANNELS[:, ::-1])


def test_a_transparent_pixel_is_found(tmp_path):
    for dtype, opaque in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1)):
        pixels = np.full((40, 50, 4), opaque, dtype)
        for value in (opaque, 0):
            pixels[39, 49, 3] = value
            tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
            with open_image_file(tmp_path / "a.tif", colour=True) as file:
                assert file.is_transparent() == (value != opaque)


@pytest.mark.parametrize(
    "name, write, sentence",
    [
        (
            "grey.png",
            lambda path: Image.fromarray(RGB[..., 0]).save(path),
            "is not a colour image, but has axes YX of shape (40, 50); remove it, or leave out "
            "'colour' of the dataset if all its images are grey",
        ),
        (
            "two.tif",
            lambda path: tifffile.imwrite(
                path, CHANNELS[:2], imagej=True, metadata={"axes": "CYX"}
            ),
            "is not a colour image, but has axes CYX of shape (2, 40, 50); remove it, or leave out "
            "'colour' of the dataset if all its images are grey",
        ),
        (
            "print.tif",
            lambda path: tifffile.imwrite(path, OPAQUE, photometric="separated"),
            "has 4 colours that are not red, green and blue (but such as those of print, or grey "
            "with transparency); convert it to RGB",
        ),
        (
            "grey_alpha.png",
            lambda path: Image.fromarray(RGB[..., :2], "LA").save(path),
            "has 2 colours that are not red, green and blue (but such as those of print, or grey "
            "with transparency); convert it to RGB",
        ),
        (
            "indexed.png",
            lambda path: Image.fromarray(RGB).quantize(16).save(path),
            "is a colour image (or has transparency); write 'colour: rgb' in the dataset's config "
            "to learn from colours (RGB, not indexed), or convert it to grey, one channel per "
            "file, in ImageJ by Image > Type > 8-bit or 16-bit",
        ),
    ],
)
def test_what_is_no_rgb_image(tmp_path, name, write, sentence):
    write(tmp_path / name)
    message = refusal(open_image_file, tmp_path / name, colour=True)
    assert message == f"{tmp_path / name} {sentence}"


def test_png_files_of_16_bits_would_lose_half_of_them(tmp_path):
    path, rows = tmp_path / "a.png", RGB.astype(">u2").reshape(40, -1)
    header = struct.pack(">IIBBBBB", 50, 40, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        content += struct.pack(">I", len(data)) + name + data + checksum
    path.write_bytes(content)
    assert np.asarray(Image.open(path)).dtype == np.uint8  # what Pillow makes of it
    assert refusal(open_image_file, path, colour=True) == (
        f"{path} has 16 bits for each colour, of which only 8 could be read; export it as tif"
    )


@pytest.mark.parametrize("axes", ["CYX", "CZYX"])
def test_images_of_the_workflow_keep_their_colours(tmp_path, axes):
    """Also for other programs: three samples per pixel, called RGB."""
    shape = (3, 5, 6) if axes == "CYX" else (3, 4, 5, 6)
    pixels = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    metadata = Metadata(axes, dict.fromkeys(axes[1:], 0.5)).in_colour()
    write_image(tmp_path / "a.tif", pixels, metadata)
    created = create_image(tmp_path / "b.tif", shape, metadata)
    created[:] = pixels
    del created
    for path in (tmp_path / "a.tif", tmp_path / "b.tif"):
        assert isinstance(open_image(path), np.memmap)
        np.testing.assert_array_equal(open_image(path), pixels)
        assert read_metadata(path) == metadata
        with tifffile.TiffFile(path) as tif:
            assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
            assert tif.series[0].axes == f"{axes[1:]}S"
    middle = pixels if axes == "CYX" else pixels[:, 2]
    np.testing.assert_array_equal(open_picture(tmp_path / "a.tif"), middle.transpose(1, 2, 0))


# --- Datasets ----------------------------------------------------------------------------------


def prepared_from(folder, **more):
    spec = {"source": "folder", "images": str(folder / "images"), "colour": "rgb", "split": {}}
    prepare.prepare(spec | more, None, folder / "prepared")
    return PreparedData(folder / "prepared")


def fill(folder, **pictures):
    for name, pixels in pictures.items():
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{name}.png")


def test_a_dataset_in_colour(tmp_path):
    mask = np.zeros((40, 50), np.uint8)
    mask[3:9, 3:9] = 1
    fill(tmp_path / "images", a=RGB, b=OPAQUE)
    fill(tmp_path / "masks", a=mask)
    fill(tmp_path / "second", a=RGB[::-1], b=OPAQUE[::-1])
    more = {kind: str(tmp_path / kind) for kind in ("masks", "second")}
    prepared = prepared_from(tmp_path, **more)
    for name in "ab":
        np.testing.assert_array_equal(open_image(prepared.image(name)), CHANNELS)
        np.testing.assert_array_equal(open_image(prepared.repeats(name)), CHANNELS[:, ::-1])
        assert open_image(prepared.image(name)).dtype == np.uint8
    (note,) = prepare.about_files(prepared.folder)
    assert note.severity == "note" and note.images == ("b",)
    assert "the alpha channel of 1 colour image" in note.sentence


def test_transparent_images_are_refused(tmp_path):
    seen_through = OPAQUE.copy()
    seen_through[0, 0, 3] = 254
    fill(tmp_path / "images", a=RGB, b=seen_through)
    assert refusal(prepared_from, tmp_path) == (
        f"{tmp_path / 'images/b.png'} has transparent pixels; export it without transparency "
        "(alpha channel), on a background of one colour"
    )


def test_one_channel_of_a_colour_image_is_a_contradiction(tmp_path):
    fill(tmp_path / "images", a=RGB)
    message = refusal(prepared_from, tmp_path, channel=1)
    assert "is read in colour, but channel 1 is asked for; leave out 'channel'" in message


def test_a_grey_image_among_colours(tmp_path):
    fill(tmp_path / "images", a=RGB, b=RGB[..., 0])
    assert f"{tmp_path / 'images/b.png'} is not a colour image" in refusal(prepared_from, tmp_path)
