"""Reading and refusing images: every refusal is one sentence that names the file."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from refusals import refusal

from denoiseg_flow.data import store, validation
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.store import read_metadata

PLANE = (np.arange(48 * 40) % 251).reshape(48, 40).astype(np.uint8)
TWO_SQUARES = np.zeros((20, 20), np.uint8)
TWO_SQUARES[2:6, 2:6] = TWO_SQUARES[10:14, 10:14] = 1


def accepted(path):
    """What the workflow makes of the image in a file."""
    image = read_image(path)
    return image.astype(validation.check_image(image, str(path)))


def labels_in(path):
    """What the workflow makes of the mask in a file."""
    return validation.check_mask(read_image(path, indexed=True), str(path))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.tif", "a"),
        ("a.b.TIFF", "a.b"),
        ("x/a.ome.tif", "a"),
        ("a.OME.TIF", "a"),
        ("1.png", "1"),
        ("a.ome.zarr", "a"),
        ("b.Zarr", "b"),
    ],
)
def test_stem(name, expected):
    assert store.stem(name) == expected
    assert store.is_image(name)


@pytest.mark.parametrize("name", ["a.gif", "a.npy", "a.tif.txt", "tif", ".a.tif", "._a.png"])
def test_is_no_image(name):
    assert not store.is_image(name)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.uint32, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
        elements={"allow_nan": False, "allow_infinity": False},
    ).filter(lambda plane: plane.min() != plane.max()),
    st.booleans(),
)
def test_round_trip_keeps_values_and_type(tmp_path_factory, plane, labels):
    path = tmp_path_factory.mktemp("images") / "sub" / "a.tif"
    if labels:
        store.write_labels(path, plane)
    else:
        store.write_image(path, plane[None])
    back = accepted(path)
    assert back.dtype == plane.dtype
    np.testing.assert_array_equal(back, plane)
    np.testing.assert_array_equal(store.open_image(path), plane[None])
    np.testing.assert_array_equal(store.open_labels(path), plane)


def test_images_are_memory_mapped_and_labels_compressed(tmp_path):
    store.write_image(tmp_path / "a.tif", PLANE[None])
    assert isinstance(store.open_image(tmp_path / "a.tif"), np.memmap)
    store.write_labels(tmp_path / "z.tif", PLANE)
    assert (tmp_path / "z.tif").stat().st_size < (tmp_path / "a.tif").stat().st_size
    np.testing.assert_array_equal(store.open_image(tmp_path / "z.tif"), PLANE[None])


@pytest.mark.parametrize("axes", ["YX", "ZYX", "CYX", "CZYX"])
def test_only_in_memory_a_single_channel_has_an_axis(tmp_path, axes):
    """Whether an image is written at once or piece by piece; z-slices are no channels."""
    sizes = {"C": 2, "Z": 3, "Y": 20, "X": 24}
    in_file = tuple(sizes[axis] for axis in axes)
    in_memory = in_file if "C" in axes else (1, *in_file)
    image = np.arange(np.prod(in_file), dtype=np.float32).reshape(in_memory)
    store.write_image(tmp_path / "a.tif", image, Metadata(axes))
    store.create_image(tmp_path / "b.tif", in_memory, Metadata(axes))[:] = image
    for path in (tmp_path / "a.tif", tmp_path / "b.tif"):
        np.testing.assert_array_equal(store.open_image(path), image)
        np.testing.assert_array_equal(read_image(path), image.reshape(in_file))
        assert read_metadata(path).axes == axes


def test_an_image_has_the_channels_that_its_metadata_name(tmp_path):
    with pytest.raises(ValueError):
        store.write_image(tmp_path / "a.tif", np.stack([PLANE, PLANE]), Metadata("YX"))
    assert not (tmp_path / "a.tif").exists()


@pytest.mark.parametrize(
    ("dtype", "shift", "expected"),
    [
        (np.int16, 0, np.uint16),
        (np.int16, -9, np.float32),
        (np.int64, 0, np.uint32),
        (np.int32, -9, np.float32),
        (np.float64, 0, np.float32),
        (">u2", 0, np.uint16),
    ],
)
def test_other_pixel_types_keep_their_values(tmp_path, dtype, shift, expected):
    plane = (PLANE.astype(np.int64) + shift).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", plane)
    back = accepted(tmp_path / "a.tif")
    assert back.dtype == np.dtype(expected)
    np.testing.assert_array_equal(back, plane)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_tif(tmp_path, compression, dtype):
    Image.fromarray(PLANE.astype(dtype)).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(accepted(tmp_path / "a.tif"), PLANE)


def test_png_and_ome(tmp_path):
    Image.fromarray(PLANE.astype(np.uint16) * 200).save(tmp_path / "a.png")
    assert accepted(tmp_path / "a.png").max() == 250 * 200
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE[None, None], metadata={"axes": "ZCYX"})
    np.testing.assert_array_equal(accepted(tmp_path / "a.ome.tif"), PLANE)


def test_refuses_colour(tmp_path):
    rgb = np.repeat(PLANE[..., None], 3, axis=2)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    Image.fromarray(rgb).save(tmp_path / "b.png")
    Image.fromarray(PLANE).convert("LA").save(tmp_path / "c.png")
    Image.fromarray(PLANE).convert("P").save(tmp_path / "d.png")
    for name in ("a.tif", "b.png", "c.png", "d.png"):
        message = refusal(accepted, tmp_path / name)
        assert name in message and "colour" in message
    assert labels_in(tmp_path / "d.png").shape == PLANE.shape


def test_refuses_stacks_and_several_images(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([PLANE, PLANE, PLANE]), photometric="minisblack")
    message = refusal(accepted, tmp_path / "a.tif")
    assert "a.tif" in message and "'axes'" in message and "(3, 48, 40)" in message
    with tifffile.TiffWriter(tmp_path / "b.tif") as tif:
        tif.write(PLANE)
        tif.write(PLANE[:10])
    assert "2 images" in refusal(accepted, tmp_path / "b.tif")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite(tmp_path, bad):
    plane = PLANE.astype(np.float32)
    plane[3, 4] = bad
    tifffile.imwrite(tmp_path / "a.tif", plane)
    message = refusal(accepted, tmp_path / "a.tif")
    assert "a.tif" in message and "1 NaN or infinite" in message


def test_refuses_constant_empty_and_too_large_values(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((5, 5), 7, np.uint8))
    assert "constant" in refusal(accepted, tmp_path / "a.tif")
    assert "no pixels" in refusal(validation.check_image, np.zeros((0, 4)), "b.tif")
    assert "float32" in refusal(validation.check_image, np.array([[0.0, 1e300]]), "b.tif")
    assert "float32" in refusal(validation.check_image, np.array([[-(2**40), 1]]), "b.tif")


@pytest.mark.parametrize("keep", [0, 5, 100, 900])
@pytest.mark.parametrize("name", ["uncompressed.tif", "deflated.tif", "lzw.tif", "a.png"])
def test_refuses_damaged_files(tmp_path, keep, name):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 255, (60, 50), np.uint8)
    if name == "uncompressed.tif":
        store.write_image(path, noise[None])
    elif name == "deflated.tif":
        store.write_labels(path, noise)
    else:
        Image.fromarray(noise).save(path, **({"compression": "tiff_lzw"} if "lzw" in name else {}))
    path.write_bytes(path.read_bytes()[:keep])
    for function in (accepted, labels_in, store.open_image):
        message = refusal(function, path)
        assert str(path) in message and "damaged" in message


def test_refuses_missing_file_and_folder(tmp_path):
    assert "does not exist" in refusal(accepted, tmp_path / "a.tif")
    assert "not a file" in refusal(accepted, tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_masks_become_int32(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "m.tif", PLANE.astype(dtype))
    mask = labels_in(tmp_path / "m.tif")
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask, PLANE)


def test_mask_of_zeros_and_ignored_pixels_are_allowed():
    assert not validation.check_mask(np.zeros((4, 4), np.uint8), "m.tif").any()
    assert validation.check_mask(np.array([[-1, 0, 3]]), "m.tif").tolist() == [[-1, 0, 3]]


def test_refuses_masks_that_hold_no_labels():
    message = refusal(validation.check_mask, np.array([[0, 0.5], [1, 2]]), "m.tif")
    assert "m.tif" in message and "nearest-neighbour" in message
    assert "NaN" in refusal(validation.check_mask, np.array([[0, np.nan]]), "m.tif")
    assert "32 bits" in refusal(validation.check_mask, np.array([[0, 2**32 - 1]]), "m.tif")


@pytest.mark.parametrize("value", [1, 255])
def test_binary_mask_warns_or_is_split(caplog, value):
    mask = TWO_SQUARES * np.uint8(value)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(validation.check_mask(mask, "m.tif"), mask)
    assert "m.tif" in caplog.text and "binary_masks: connected_components" in caplog.text
    split = validation.check_mask(mask, "m.tif", binary_masks="connected_components")
    assert sorted(np.unique(split)) == [0, 1, 2]
    np.testing.assert_array_equal(split > 0, mask > 0)


def test_no_warning_for_one_object_or_for_labels(caplog):
    one = TWO_SQUARES.copy()
    one[10:] = 0
    labels = TWO_SQUARES.copy()
    labels[10:] *= 2
    with caplog.at_level(logging.WARNING):
        validation.check_mask(one, "m.tif")
        result = validation.check_mask(labels, "m.tif", binary_masks="connected_components")
    assert not caplog.text
    np.testing.assert_array_equal(result, labels)


def test_numbers_of_background_and_of_pixels_to_ignore():
    """As a program writes scribbles: 0 unpainted, 1 background, objects from 2 on."""
    painted = np.array([[0, 1, 2], [3, 0, -5]], np.int16)
    mask = validation.check_mask(painted, "m.tif", background_label=1, ignore_label=0)
    assert mask.tolist() == [[-1, 0, 2], [3, -1, -5]]
    assert validation.check_mask(painted, "m.tif", ignore_label=3).tolist() == [
        [0, 1, 2],
        [-1, 0, -5],
    ]


def test_one_scribbled_object_among_unpainted_pixels_is_no_binary_mask(caplog):
    painted = np.zeros((9, 9), np.uint8)
    painted[1], painted[3, :2], painted[3, 5:] = 1, 2, 2
    with caplog.at_level(logging.WARNING):
        validation.check_mask(painted, "m.tif", background_label=1, ignore_label=0)
    assert not caplog.text


@pytest.mark.parametrize("mask, values", [([[-1, -2]], {}), ([[0, 0]], {"ignore_label": 0})])
def test_refuses_masks_that_annotate_nothing(mask, values):
    message = refusal(validation.check_mask, np.array(mask), "m.tif", **values)
    assert message == (
        "mask m.tif annotates no pixel, because all are to be ignored; annotate some, or remove "
        "the file if its image is not annotated"
    )


def test_pair_of_different_shapes():
    message = refusal(
        validation.check_pair, np.zeros((4, 5)), np.zeros((5, 4)), "a.tif", "m.tif", "mask"
    )
    assert all(part in message for part in ("a.tif", "m.tif", "4 x 5", "5 x 4"))
    validation.check_pair(np.zeros((4, 5)), np.zeros((4, 5)), "a.tif", "m.tif", "mask")


def test_pixel_size(tmp_path):
    path = tmp_path / "a.tif"
    store.write_array(path, PLANE, Metadata("YX", {"Y": 0.5, "X": 0.25}))
    assert read_metadata(path).spacing() == pytest.approx((0.5, 0.25))
    store.write_array(path, PLANE)
    assert read_metadata(path).spacing() is None
    tifffile.imwrite(path, PLANE, imagej=True, resolution=(4, 2), metadata={"unit": "um"})
    assert read_metadata(path).spacing() == pytest.approx((0.5, 0.25))
    tifffile.imwrite(
        tmp_path / "b.ome.tif",
        PLANE,
        metadata={"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5},
    )
    assert read_metadata(tmp_path / "b.ome.tif").spacing() == pytest.approx((0.5, 0.25))
    tifffile.imwrite(path, PLANE, resolution=(72, 72), resolutionunit="INCH")
    assert read_metadata(path).spacing() is None


# --- for ImageJ ---------------------------------------------------------------------------------

STACK = Metadata(
    "TCZYX",
    {"Z": 2.0, "Y": 0.5, "X": 0.25},
    ("DAPI", "GFP"),
    ("00FFFF", "FF8000"),
    time_step=5.0,
)


def for_imagej(path):
    """The descriptions of a file, what ImageJ reads from the last, and pixels per unit along x."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        descriptions = [tag.value for tag in page.tags.getall("ImageDescription")]
        unit = page.resolutionunit.name, page.resolution[0]
        return [text[:6] for text in descriptions], tif.imagej_metadata, unit


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "CYX", "CZYX", "TCYX", "TZYX", "TCZYX"])
def test_description_for_imagej(tmp_path, axes):
    """The last in a file; channels follow z-slices, and OME says the same of the same pixels."""
    lengths = {"T": 3, "C": 2, "Z": 4, "Y": 20, "X": 24}
    metadata = STACK.only(axes)
    pixels = np.arange(np.prod([lengths[axis] for axis in axes]), dtype=np.uint16)
    pixels = pixels.reshape([lengths[axis] for axis in axes])
    store.write_array(tmp_path / "a.tif", pixels, metadata)
    store.create_array(tmp_path / "b.tif", pixels.shape, metadata, np.uint16)[...] = pixels
    for path in (tmp_path / "a.tif", tmp_path / "b.tif"):
        kinds, found, resolution = for_imagej(path)
        assert kinds == ["<?xml ", "ImageJ"] and resolution == ("NONE", 4)
        for axis, name in {"C": "channels", "Z": "slices", "T": "frames"}.items():
            assert found.get(name) == (lengths[axis] if axis in axes else None)
        assert found["unit"] == "um" and found.get("spacing") == (2.0 if "Z" in axes else None)
        assert found.get("finterval") == (5.0 if "T" in axes else None)
        if "C" in axes:
            assert found["mode"] == "composite"
            assert found["Labels"] == ["DAPI", "GFP"] * (found["images"] // 2)
            assert [lut[:, 255].tolist() for lut in found["LUTs"]] == [[0, 255, 255], [255, 128, 0]]
        np.testing.assert_array_equal(read_image(path), pixels)
        assert read_metadata(path) == metadata
        with tifffile.TiffFile(path) as tif:
            assert tif.series[0].axes == "".join(axis for axis in "TZCYX" if axis in axes)


def test_imagej_shows_the_range_of_all_labels(tmp_path):
    """By default it would show that of the first plane."""
    labels = np.zeros((3, 20, 24), np.uint16)
    labels[2] = 300
    store.write_labels(tmp_path / "a.tif", labels)
    store.write_bands(tmp_path / "b.tif", labels, labels.shape, np.uint16, 300)
    store.write_labels(tmp_path / "empty.tif", labels[0])
    for name, highest in {"a": 300, "b": 300, "empty": 1}.items():
        found = for_imagej(tmp_path / f"{name}.tif")[1]
        assert (found["min"], found["max"]) == (0, highest)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_description_of_colours_for_imagej(tmp_path, dtype):
    """It would not open stacks of 16 bits for each colour with a description of its own."""
    metadata = STACK.only("TCYX").in_colour()
    store.write_array(tmp_path / "a.tif", np.zeros((2, 3, 20, 24), dtype), metadata)
    kinds, found, resolution = for_imagej(tmp_path / "a.tif")
    if dtype == np.uint8:
        assert kinds == ["<?xml ", "ImageJ"] and resolution == ("NONE", 4)
        assert (found["frames"], found["unit"], found["finterval"]) == (2, "um", 5.0)
    else:
        assert kinds == ["<?xml "] and resolution == ("CENTIMETER", 40_000)
    assert read_metadata(tmp_path / "a.tif") == metadata


# --- piece by piece -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize(
    "shape", [(1, 1), (64, 5), (256, 300), (600, 31), (1025, 1300), (3, 70, 40), (2, 1200, 1100)]
)
def test_bands_are_the_image(tmp_path, monkeypatch, shape, dtype):
    """In strips or, if it is large, in tiles, of which other programs make the same image."""
    monkeypatch.setattr(store, "LARGE", 1024)
    path = tmp_path / "sub" / "a.tif"
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    planes = image.reshape(-1, *shape[-2:])
    rows = store.BAND_ROWS
    bands = (plane[top : top + rows] for plane in planes for top in range(0, shape[-2], rows))
    metadata = Metadata("ZYX"[-len(shape) :], {"Y": 0.5, "X": 0.25})
    store.write_bands(path, bands, shape, dtype, int(image.max()), metadata)
    found = store.open_labels(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)
    assert read_metadata(path) == replace(metadata, pixel_size=pytest.approx({"Y": 0.5, "X": 0.25}))
    with Image.open(path) as opened:  # which reads uint32 as int32
        np.testing.assert_array_equal(np.asarray(opened).astype(dtype), planes[0])
    with tifffile.TiffFile(path) as tif:
        assert tif.pages.first.is_tiled == (min(shape[-2:]) > store.LARGE)


def test_bands_are_compressed_one_at_a_time(tmp_path):
    """When a piece is asked for, those before it are in the file."""
    sizes = []
    path = tmp_path / "a.tif"

    def pieces():
        for _ in range(5):
            sizes.append(path.stat().st_size if path.exists() else 0)
            yield np.random.default_rng(0).integers(0, 2**16, (256, 2000), np.uint16)

    store.write_bands(path, pieces(), (1280, 2000), np.uint16, 2**16 - 1)
    assert min(np.diff(sizes[1:])) > 100_000
