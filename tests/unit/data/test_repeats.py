"""Files that hold several acquisitions of their field along one axis, or should."""

import numpy as np
import pytest
from refusals import refusal

from denoiseg_flow.data import prepare, sources
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.regions import Reading
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.store import open_image, open_repeats, write_array

SIZE = {"Z": 1.0, "Y": 0.5, "X": 0.5}
LENGTHS = {"T": 4, "C": 3, "Z": 5, "Y": 20, "X": 24}
HOW = {"source": "folder", "split": {"val": 0.3, "test": 0.3, "seed": 0}}


def write_stack(path, axes, **lengths):
    shape = tuple((LENGTHS | lengths)[axis] for axis in axes)
    pixels = np.random.default_rng(len(path.name)).integers(0, 200, shape).astype(np.uint16)
    sizes = {axis: SIZE[axis] for axis in axes if axis in SIZE}
    write_array(path, pixels, Metadata(axes, sizes))
    return pixels


def prepared_from(folder, **more):
    spec = HOW | {"images": str(folder / "images")} | more
    prepare.prepare(spec, None, folder / "prepared")
    return PreparedData(folder / "prepared")


@pytest.mark.parametrize(
    ("axes", "repeats", "more", "kept"),
    [
        ("TYX", "T", {}, "YX"),
        ("ZYX", "Z", {}, "YX"),
        ("CYX", "C", {}, "YX"),
        ("TCYX", "T", {"channel": "all"}, "CYX"),
        ("TZYX", "T", {"dimensions": 3}, "ZYX"),
        ("TCZYX", "T", {"dimensions": 3, "channel": 1}, "ZYX"),
        ("TZYX", "Z", {}, "YX"),
    ],
)
def test_the_first_acquisition_is_the_image(tmp_path, axes, repeats, more, kept):
    """Also of each time point, if another axis holds the repeats."""
    pixels = write_stack(tmp_path / "images/a.ome.tif", axes)
    prepared = prepared_from(tmp_path, repeats=repeats, **more)
    expected = np.moveaxis(pixels, axes.index(repeats), 0)
    if more.get("channel") == 1:
        expected = expected[:, 1]
    names = list(prepared.read_manifest()["image"])
    series = repeats == "Z" and "T" in axes
    assert names == ([f"a_t{k:03d}" for k in range(4)] if series else ["a"])
    for number, name in enumerate(names):
        one = expected[:, number] if len(names) > 1 else expected
        one = one if "C" in kept else one[:, None]
        np.testing.assert_array_equal(open_image(prepared.image(name)), one[0])
        np.testing.assert_array_equal(open_repeats(prepared.repeats(name)), one[1:])
    assert prepared.is_repeated()


def test_numbers_of_repeats_may_differ(tmp_path):
    """A single other one is stored as a second acquisition is."""
    for name, count in (("a", 2), ("b", 3), ("c", 7)):
        write_stack(tmp_path / f"images/{name}.ome.tif", "TYX", T=count)
    prepared = prepared_from(tmp_path, repeats="T")
    lengths = [len(open_repeats(prepared.repeats(name))) for name in "abc"]
    assert lengths == [1, 2, 6] and len(prepared.read_manifest()) == 3
    assert sources.has_repeats({"a": HOW | {"repeats": "T"}}, "a")


def test_colour_images_are_repeated_too(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 200, (4, 3, 20, 24)).astype(np.uint8)
    write_array(tmp_path / "images/a.tif", pixels, Metadata("TCYX", SIZE).in_colour())
    prepared = prepared_from(tmp_path, repeats="T", colour="rgb")
    np.testing.assert_array_equal(open_repeats(prepared.repeats("a")), pixels[1:])


def test_masks_and_clean_images_belong_to_the_field(tmp_path):
    """With the axes of the config, of which they lack the repeats."""
    pixels = write_stack(tmp_path / "images/a.tif", "TYX")
    labels = np.zeros((20, 24), np.uint16)
    labels[2:9, 2:9] = 4
    write_array(tmp_path / "masks/a.tif", labels)
    write_array(tmp_path / "clean/a.tif", pixels.mean(axis=0).astype(np.float32))
    more = {kind: str(tmp_path / kind) for kind in ("masks", "clean")}
    for axes in (None, "TYX"):
        row = prepared_from(tmp_path, repeats="T", axes=axes, **more).read_manifest().iloc[0]
        assert (row["annotated"], row["clean"], row["n_objects"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("axes", "repeats", "lengths", "shown"),
    [("YX", "T", {}, "YX of shape (20, 24)"), ("TYX", "T", {"T": 1}, "YX of shape (20, 24)"),
     ("ZYX", "T", {}, "ZYX of shape (5, 20, 24)")],
)  # fmt: skip
def test_a_file_with_one_acquisition(tmp_path, axes, repeats, lengths, shown):
    write_stack(tmp_path / "images/a.tif", "TYX")
    write_stack(tmp_path / "images/b.tif", axes, **lengths)
    assert refusal(prepared_from, tmp_path, repeats=repeats) == (
        f"{tmp_path / 'images/b.tif'} has axes {shown}, but 'repeats: {repeats}' needs at least "
        "two acquisitions of a field in every file; remove the file, or correct 'repeats', or "
        "'axes' if the axis has another name"
    )
    assert not (tmp_path / "prepared").exists()


def test_two_places_of_further_acquisitions():
    assert refusal(Reading.of, HOW | {"second": "second", "repeats": "T"}) == (
        "a dataset has both 'second' and 'repeats'; leave out 'second' if every file holds all "
        "acquisitions of its field, or 'repeats' if the second ones are in a folder of their own"
    )


def test_a_frame_that_was_recorded_twice(tmp_path):
    pixels = write_stack(tmp_path / "images/a.tif", "TYX")
    pixels[3] = pixels[2]
    write_array(tmp_path / "images/a.tif", pixels, Metadata("TYX"))
    path = tmp_path / "images/a.tif"
    assert refusal(prepared_from, tmp_path, repeats="T") == (
        f"the acquisition {path} (t003) has the same pixels as {path} (t002), and so the same "
        "noise; replace it by another acquisition of the field"
    )
