"""Images in the formats that Pillow reads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refusal

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import open_image_file, read_image

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)


@pytest.mark.parametrize("ending", ["bmp", "pgm", "png"])
def test_grey_levels_are_as_saved(tmp_path, ending):
    Image.fromarray(GREY).save(tmp_path / f"a.{ending}")
    found = read_image(tmp_path / f"a.{ending}")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, GREY)


@pytest.mark.parametrize("ending", ["jpg", "JPEG"])
def test_jpeg(tmp_path, ending):
    """The best quality changes grey levels by a rounding error."""
    Image.fromarray(GREY).save(tmp_path / f"a.{ending}", quality=100)
    with open_image_file(tmp_path / f"a.{ending}") as file:
        assert file.metadata == Metadata("YX") and file.dtype == np.uint8
        found = file.read([slice(None)] * 2)
    assert np.abs(found - GREY.astype(int)).max() <= 2


def test_pgm_of_16_bits(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a.pgm")
    assert read_image(tmp_path / "a.pgm").dtype == np.uint16
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm"), deep)


@settings(max_examples=40, deadline=None)
@given(largest=st.integers(1, 65535), text=st.booleans())
def test_pgm_of_another_range_is_not_scaled(tmp_path_factory, largest, text):
    """A camera of 12 bits states 4095 as the largest value, which Pillow would take for 65535."""
    pixels = np.random.default_rng(0).integers(0, largest + 1, (6, 7))
    stored = pixels.astype("u1" if largest < 256 else ">u2").tobytes()
    written = " ".join(map(str, pixels.ravel())).encode()
    path = tmp_path_factory.mktemp("pgm") / "a.pgm"
    header = f"P{2 if text else 5}\n# camera\n7 6\n{largest}\n"
    path.write_bytes(header.encode() + (written if text else stored))
    np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize("ending", ["jpg", "bmp", "pgm"])
def test_colours_are_refused(tmp_path, ending):
    form = {"pgm": "PPM"}.get(ending)
    Image.fromarray(np.dstack([GREY, GREY.T[:20].repeat(2, 1)[:, :30], GREY])).save(
        tmp_path / f"a.{ending}", form
    )
    assert "is a colour image" in refusal(read_image, tmp_path / f"a.{ending}")


@pytest.mark.parametrize("ending", ["bmp", "png"])
def test_indices_of_a_palette_are_labels(tmp_path, ending):
    """Programs paint label images in colours, and store the label as the index of the colour."""
    image = Image.fromarray(GREY).convert("P")
    image.putdata((GREY % 7).ravel().tolist())
    image.putpalette(np.random.default_rng(0).permutation(768).astype(np.uint8).tolist())
    image.save(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{ending}", indexed=True), GREY % 7)
    assert "colour" in refusal(read_image, tmp_path / f"a.{ending}")


@pytest.mark.parametrize(
    ("ending", "place", "number"),
    [("jpg", b"\xff\xc0\0\x0b\x08", b"\xff\xfe\xff\xfe"), ("bmp", b"(\0\0\0", b"\0\0\1\0" * 2)],
)
def test_sizes_that_a_file_cannot_hold(tmp_path, ending, place, number):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(GREY).save(path)
    content = path.read_bytes()
    start = content.index(place) + len(place)
    path.write_bytes(content[:start] + number + content[start + len(number) :])
    assert "it cannot hold 65" in refusal(read_image, path)


def test_pgm_that_is_too_short(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 60000 60000 255\n123")
    assert "cannot hold 60000 x 60000" in refusal(read_image, tmp_path / "a.pgm")


def test_another_format_under_the_name(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.jpg", "GIF")
    assert "seems damaged" in refusal(read_image, tmp_path / "a.jpg")


def test_flat_jpegs_are_no_forgery(tmp_path):
    """The best compression: progressive, with tables of its own."""
    flat = Image.fromarray(np.zeros((1000, 1000), np.uint8))
    flat.save(tmp_path / "a.jpg", quality=1, optimize=True, progressive=True)
    assert read_image(tmp_path / "a.jpg").shape == (1000, 1000)
