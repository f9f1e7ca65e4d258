"""Plates of OME-Zarr."""

import json
from pathlib import PurePosixPath

import numpy as np
import pytest
from plates import FORMATS, write_plate
from refusals import refusal

from denoiseg_flow.data.files.plates import fields_of, is_plate, place_of
from denoiseg_flow.data.files.reader import read_image

PIXELS = np.arange(60, dtype=np.uint16).reshape(6, 10)
PLACES = ("A/1/0", "A/1/1", "B/12/0")


@pytest.fixture(params=FORMATS)
def plate(tmp_path, request):
    fields = {place: PIXELS + number for number, place in enumerate(PLACES)}
    return write_plate(tmp_path / "p.zarr", fields, request.param)


def change(folder, change_metadata):
    """Apply a function to the metadata of a folder."""
    file = folder / ".zattrs" if (folder / ".zattrs").exists() else folder / "zarr.json"
    content = json.loads(file.read_text())
    change_metadata(content.get("attributes", {}).get("ome", content))
    file.write_text(json.dumps(content))


def test_fields_are_images(plate):
    assert is_plate(plate)
    fields = fields_of(plate)
    assert list(fields) == ["A1_f0", "A1_f1", "B12_f0"]
    for number, path in enumerate(fields.values()):
        assert not is_plate(path)
        np.testing.assert_array_equal(read_image(path), PIXELS + number)


def test_pixels_are_not_read(plate):
    for place in PLACES:
        for file in (plate / place).rglob("*"):
            if file.is_file():
                file.unlink()
    assert len(fields_of(plate)) == 3


def test_what_is_no_plate(tmp_path, plate):
    assert not is_plate(tmp_path) and not is_plate(tmp_path / "none.zarr")
    for folder in (plate / "A", plate / "A/1"):
        assert not is_plate(folder)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("i/p.ome.zarr/A/1/0", ("i/p.ome.zarr", "A1", "0")),
        ("p.zarr/A/01/f2", ("p.zarr", "A01", "f2")),
        ("p.zarr/A/1", None),
        ("p/A/1/0", None),
        ("a.tif", None),
    ],
)
def test_place(place, found):
    expected = found and (PurePosixPath(found[0]), *found[1:])
    assert place_of(PurePosixPath(place)) == expected


@pytest.mark.parametrize(
    ("folder", "change_metadata", "reason"),
    [
        ("", lambda m: m.update(plate=3), "not subscriptable"),
        ("", lambda m: m["plate"].pop("wells"), "no 'wells'"),
        ("", lambda m: m["plate"].update(wells=[]), "it has no fields"),
        ("", lambda m: m["plate"]["wells"][0].update(path="../../etc"), "path '../../etc'"),
        ("", lambda m: m["plate"]["wells"][0].update(path="/A"), "path '/A'"),
        ("", lambda m: m["plate"]["wells"][0].update(path="A/.."), "path 'A/..'"),
        ("", lambda m: m["plate"]["wells"][0].update(path="A/7"), "7 has none"),
        ("A/1", lambda m: m.pop("well"), "no 'well'"),
        ("A/1", lambda m: m["well"].update(images=None), "not iterable"),
        ("A/1", lambda m: m["well"]["images"][0].update(path="={}"), "path '={}'"),
        ("A/1", lambda m: m["well"]["images"][0].update(path="1"), "two fields would be named A1"),
        ("A/1", lambda m: m["well"]["images"][0].update(path="7"), "field A/1/7 is not there"),
    ],
)
def test_damaged_metadata(plate, folder, change_metadata, reason):
    change(plate / folder, change_metadata)
    message = refusal(fields_of, plate)
    assert message.startswith(f"cannot read the plate {plate}, its metadata seem damaged")
    assert reason in message


def test_metadata_cut_off(plate):
    (file,) = (plate / name for name in (".zattrs", "zarr.json") if (plate / name).exists())
    text = file.read_text()
    file.write_text(text[: text.index('"plate"') + 20])
    assert is_plate(plate)
    assert "seem damaged or incomplete" in refusal(fields_of, plate)


def test_metadata_of_all_images_in_those_of_the_plate(tmp_path):
    """As in consolidated metadata of zarr 3."""
    plate = write_plate(tmp_path / "p.zarr", {"A/1/0": PIXELS}, "0.5")
    content = json.loads((plate / "zarr.json").read_text())
    content["consolidated_metadata"] = {"metadata": {"A/1/0": {"multiscales": []}}}
    (plate / "zarr.json").write_text(json.dumps(content))
    assert list(fields_of(plate)) == ["A1_f0"] and is_plate(plate)
