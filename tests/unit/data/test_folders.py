"""Pairing files by name."""

import os
from functools import partial

import numpy as np
import pytest
import tifffile
from plates import write_plate

from denoiseg_flow.data import folders
from denoiseg_flow.deployment.ledger import state
from denoiseg_flow.errors import InputError


@pytest.fixture
def make(tmp_path):
    """Make empty files, by path relative to the test's folder, and return that folder."""

    def _make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return _make


def refusal(*arguments):
    with pytest.raises(InputError) as caught:
        folders.find(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pairs_by_name_whatever_the_ending(make):
    root = make(
        "i/b.TIF", "i/a.ome.tif", "i/c.png", "i/.hidden.tif", "i/notes.txt", "m/a.png", "m/c.tiff"
    )
    found = folders.find(root / "i", root / "m")
    assert [source.name for source in found] == ["a", "b", "c"]
    assert [source.mask and source.mask.name for source in found] == ["a.png", None, "c.tiff"]
    assert found[0].image.name == "a.ome.tif" and found[0].clean is None


def test_folders_named_like_zarr_stores_are_images(make):
    root = make(
        "i/a.ome.zarr/.zgroup", "i/b.ZARR/zarr.json", "i/c.tif", "i/d.zarr", "i/e.tif/x.tif"
    )
    found = folders.find(root / "i")
    assert [source.name for source in found] == ["a", "b", "c"]
    assert found[0].image == root / "i/a.ome.zarr"
    given = [root / "i/b.ZARR", root / "i/e.tif", root / "i/c.tif"]
    assert list(folders.find_images(given)) == ["b", "x", "c"]
    with pytest.raises(InputError, match=r"d\.zarr is not an image; .*\.ome\.zarr.*\.zarr"):
        folders.find_images([root / "i/d.zarr"])


def test_clean_may_be_the_images_themselves(make):
    root = make("i/a.tif")
    (source,) = folders.find(root / "i", None, root / "i")
    assert source.clean == source.image and source.mask is None


def test_refuses_missing_empty_and_unusable_folders(make):
    root = make("i/a.tif", "oib/a.oib", "empty/sub/a.tif")
    assert "does not exist" in refusal(root / "none")
    assert "is not a folder" in refusal(root / "i" / "a.tif")
    message = refusal(root / "empty")
    assert "has no images" in message and ".ome.tif" in message and "'images'" in message
    assert ".oib" in refusal(root / "oib")
    message = refusal(root / "i", root / "oib")
    assert "'masks'" in message and str(root / "oib") in message


def test_refuses_two_files_of_one_name(make):
    root = make("i/a.tif", "i/a.png")
    message = refusal(root / "i")
    assert "a.tif" in message and "a.png" in message


def test_refuses_masks_and_clean_images_without_image(make):
    root = make("i/a.tif", "m/a.tif", "m/b.tif", "m/c.tif")
    message = refusal(root / "i", root / "m")
    assert "b.tif" in message and "1 more" in message and "'masks'" in message
    assert "'clean'" in refusal(root / "i", None, root / "m")


def test_odd_names_are_names(make):
    """Whatever a shell, Snakemake, Python or a browser would make of them."""
    odd = ["a b", "it's", 'say "hi"', "-rf", "--help", "$(touch x)", "; touch x", "{input}", "%s",
           "<img src=x onerror=alert(1)>", "é", "細胞", "+DMSO (2)", "-20 °C", "a*b?[c]",
           "~"]  # fmt: skip
    folder = make(*(f"images/{name}.tif" for name in odd))
    assert [source.name for source in folders.find(folder / "images")] == sorted(odd)
    assert set(folders.find_images([folder / "images"])) == set(odd)


def test_accents_are_the_same_however_they_are_written(make):
    """macOS parts them from their letters, and so do archives that were made there."""
    folder = make("images/e\u0301.tif", "masks/\u00e9.png")
    (source,) = folders.find(folder / "images", folder / "masks")
    assert source.name == "\u00e9" and source.mask is not None
    make("images/\u00e9.tif")
    assert "differ only in their ending" in refusal(folder / "images")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[2Jb", "a\u202eb", "a\udcffb"])
def test_names_that_cannot_be_printed(make, name):
    folder = make(f"images/{name}.tif")
    message = refusal(folder / "images")
    assert "unprintable characters" in message and message.isascii()


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "+HYPERLINK(A1)", "-1+cmd|'c'!A0", "=é"])
def test_names_that_a_spreadsheet_would_compute(make, name):
    assert "formula" in refusal(make(f"images/{name}.tif") / "images")


# --- what is not read, or not by itself -----------------------------------------------------------

OME = """<?xml version="1.0" encoding="UTF-8"?><OME
xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}"><Image ID="Image:0"><Pixels
ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeC="1" SizeZ="{count}"
SizeT="1">{planes}</Pixels></Image></OME>"""
BINARY_ONLY = '<OME UUID="{own}"><BinaryOnly MetadataFile="{first}" UUID="{first}"/></OME>'


def write_plane(path, description):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), description=description, metadata=None)


def write_set(folder, names, **options):
    """Write an OME-TIFF in several files, all of which describe the whole image."""
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{name}</UUID>'
        "</TiffData>"
        for z, name in enumerate(names)
    )
    for name in names:
        description = OME.format(own=name, planes=planes, count=len(names))
        tifffile.imwrite(
            folder / name, np.zeros((8, 8), np.uint8), description=description, metadata=None,
            **options,
        )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"bigtiff": True, "byteorder": ">"}])
def test_a_set_of_files_is_one_image(make, options):
    root = make("i/b.png", "m/one_z0.png")
    one, other = ([f"{name}_z{z}.ome.tif" for z in range(3)] for name in ("one", "two"))
    write_set(root / "i", one, **options)
    write_set(root / "i", [name.replace(".ome", "") for name in other], **options)
    assert list(folders.find_images([root / "i"])) == ["b", "one_z0", "two_z0"]
    assert [source.name for source in folders.find(root / "i", root / "m")] == [
        "b", "one_z0", "two_z0",
    ]  # fmt: skip
    assert list(folders.find_images([root / "i" / name for name in one[1:]])) == ["one_z1"]
    first, second = folders.about_files([root / "i"])
    assert first.severity == "note" and first.sentence == (
        f"Read together: {root}/i/one_z0.ome.tif and 2 files (one_z1.ome.tif, one_z2.ome.tif), an "
        "OME-TIFF in several files."
    )
    assert "two_z0.tif" in second.sentence
    make("m/one_z2.png")
    message = refusal(root / "i", root / "m")
    assert "one_z2.png belongs to one part" in message and "one_z0.ome.tif" in message


@pytest.mark.parametrize("name", ["../b.tif", "/etc/passwd", "..", ".", "", "a\\b.tif", "x" * 999])
def test_names_that_lead_elsewhere(make, name):
    """The file is refused when it is opened."""
    root = make("i/b.png")
    uuid = f'<UUID FileName="{name}">other</UUID>'
    planes = f'<TiffData IFD="0" PlaneCount="1">{uuid}</TiffData>'
    write_plane(root / "i" / "a.ome.tif", OME.format(own="own", planes=planes, count=1))
    assert list(folders.find_images([root / "i"])) == ["a", "b"]
    state(root / "i" / "a.ome.tif")


def test_a_set_has_changed_with_any_of_its_files(make):
    root = make("i/b.png")
    names = [f"{z}.ome.tif" for z in range(3)]
    write_set(root / "i", names)
    before = state(root / "i" / names[0])
    os.utime(root / "i" / names[2], ns=(0, before[1] + 10**9))
    assert state(root / "i" / names[0]) == (before[0], before[1] + 10**9)


def test_a_part_that_only_points_at_the_whole(make):
    root = make("m/c.tif")
    write_set(root / "m", ["c.tif", "a.tif", "b.tif"])
    for name in ("a.tif", "b.tif"):
        write_plane(root / "m" / name, BINARY_ONLY.format(own=name, first="c.tif"))
    assert list(folders.find_images([root / "m"])) == ["c"]


def test_a_file_that_was_renamed_is_no_part_of_its_namesake(make):
    """Programs write the same name and another identity again and again."""
    root = make("i/x.png")
    for name in ("day1.ome.tif", "export.ome.tif"):
        uuid = f'<UUID FileName="export.ome.tif">{name}</UUID>'
        planes = f'<TiffData IFD="0" PlaneCount="1">{uuid}</TiffData>'
        write_plane(root / "i" / name, OME.format(own=name, planes=planes, count=1))
    assert list(folders.find_images([root / "i"])) == ["day1", "export", "x"]
    assert folders.about_files([root / "i"]) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"II",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0+" + b"\xff" * 40,
        b"II*\0\x08\0\0\0\x01\0\x0e\x01\x02\0" + b"\xff" * 8,
    ],
)
def test_damaged_files_are_no_sets(make, content):
    root = make("i/a.tif")
    (root / "i/a.tif").write_bytes(content)
    assert list(folders.find_images([root / "i"])) == ["a"]


def test_other_files_beside_images_are_counted_and_named(make):
    root = make("i/a.tif", "i/b.oib", "i/c.gif", "i/sub/d.tif", "i/.hidden", "i/Thumbs.db")
    make("i/masks/a.png", "i/masks/b.jpg", "clean/a.tif", "clean/notes.txt")
    given = [root / "i", root / "clean"]
    images, clean, masks = folders.about_files(given, masks=root / "i/masks")
    assert images.severity == masks.severity == "warning" and clean.severity == "note"
    assert images.sentence.startswith(
        f"Not read: 2 files and 1 folder in {root}/i (b.oib, c.gif, sub). Accepted endings are .ome"
    )
    assert "1 file in" in masks.sentence and "(b.jpg)" in masks.sentence
    make(*(f"many/{n}.oib" for n in range(5)), "many/a.tif")
    (many,) = folders.about_files([root / "many"])
    assert "(0.oib, 1.oib, 2.oib and 2 more)" in many.sentence
    assert folders.about_files([root / "i/a.tif"]) == []


# --- subfolders ----------------------------------------------------------------------------------


def test_subfolders_are_read_if_they_stand_for_something(make):
    root = make(
        "i/train/p1/a.tif", "i/train/p2/a.tif", "i/test/p3/b.png", "i/.cache/x.tif",
        "i/notes.txt", "m/train/p1/a.png", "m/test/readme.md",
    )  # fmt: skip
    found = folders.find(root / "i", subfolders=["subset", "group"])
    assert [each.name for each in found] == ["test_p3_b", "train_p1_a", "train_p2_a"]
    assert [each.file for each in found] == ["test/p3/b.png", "train/p1/a.tif", "train/p2/a.tif"]
    make("m/test/p3/.hidden")
    found = folders.find(root / "i", root / "m", root / "i", ["subset", "group"])
    assert [each.mask and each.mask.name for each in found] == [None, "a.png", None]
    assert all(each.clean == each.image for each in found)
    found = folders.about_files([root / "i"], ["subset", "group"], root / "m")
    assert [each.sentence.split(". ")[0] for each in found] == [
        f"Not read: 1 file in {root}/i (notes.txt)",
        f"Not read: 1 file in {root}/m/test (readme.md)",
    ]


def test_masks_inside_the_folder_of_images_are_no_group(make):
    root = make("i/p1/a.tif", "i/p2/a.tif", "i/masks/p1/a.tif")
    found = folders.find(root / "i", root / "i/masks", subfolders=["group"])
    assert [(each.name, each.mask is not None) for each in found] == [
        ("p1_a", True), ("p2_a", False),
    ]  # fmt: skip
    assert folders.about_files([root / "i"], ["group"], root / "i/masks") == []


@pytest.mark.parametrize(
    ("files", "kind", "sentence"),
    [
        (
            ["i/a.tif", "i/train/b.tif"],
            "subset",
            "{}/i/a.tif is in no subfolder of {}/i ('subset: ",
        ),
        (["i/a.tif"], "group", "{}/i/a.tif is in no subfolder of {}/i ('group: folder' of the spl"),
        (
            ["i/valid/a.tif"],
            "subset",
            "folder {}/i/valid is named like no subset ('subset: folder'",
        ),
        (["i/notes.txt"], "group", "folder {}/i has no subfolders ('group: folder' of the split);"),
        (
            ["i/p/x/a.tif"],
            "group",
            "folder {}/i/p (config key 'images') has no images; accepted en",
        ),
        (
            ["i/p{1}/a.tif"],
            "group",
            "the name of folder {}/i/p{{1}} has one of {{, }}, < and >, wh",
        ),
        (
            ["i/a_b/c.tif", "i/a/b_c.tif"],
            "group",
            "{}/i/a/b_c.tif and {}/i/a_b/c.tif would both be",
        ),
        (["i/a/c.tif", "i/a/c.png"], "group", "{}/i/a/c.png and c.tif differ only in their ending"),
    ],
)
def test_images_and_subfolders_that_do_not_belong(make, files, kind, sentence):
    root = make(*files)
    message = refusal(root / "i", None, None, [kind])
    assert message.startswith(sentence.format(root, root))


def test_masks_without_an_image_in_the_same_subfolder(make):
    root = make("i/p/a.tif", "m/q/a.tif", "n/p/b.tif")
    for masks, inside in (("m", "q"), ("n", "p")):
        message = refusal(root / "i", root / masks, None, ["group"])
        assert f"has no image of the same name in {root}/i/{inside}" in message


# --- plates --------------------------------------------------------------------------------------


def test_fields_of_a_plate(make):
    """Each field may be given, and all of a well, in one folder."""
    root = make("p.zarr/.zattrs", "p.zarr/A/1/.zattrs", "p.zarr/A/2/.zattrs", "m/0.tif")
    for field in ("A/1/0", "A/1/1", "A/2/0"):
        make(f"p.zarr/{field}/.zattrs")
        (root / "p.zarr" / field / ".zattrs").write_text('{"multiscales": []}')
    assert list(folders.find_images([root / "p.zarr/A/1", root / "p.zarr/A/2/0"])) == [
        "p_A_1_0", "p_A_1_1", "p_A_2_0",
    ]  # fmt: skip
    first, second = folders.find(root / "p.zarr/A/1", root / "m")
    assert (first.name, second.name) == ("0", "1") and first.mask and not second.mask
    assert folders.about_files([root / "p.zarr/A/1"]) == []


@pytest.fixture
def plates(tmp_path):
    """Two plates, each with two fields of one well and one of another."""
    for name in ("p.zarr", "q.ome.zarr"):
        fields = {place: np.eye(8, dtype="u1") for place in ("A/1/0", "A/1/1", "B/2/0")}
        write_plate(tmp_path / "i" / name, fields)
    return tmp_path / "i"


def test_fields_of_all_wells(make, plates):
    root = make("m/B2_f0.tif", "m/A1_f1.png")
    found = folders.find(plates / "p.zarr", root / "m")
    assert [each.name for each in found] == ["A1_f0", "A1_f1", "B2_f0"]
    assert [each.image for each in found][2] == plates / "p.zarr/B/2/0"
    assert [each.file for each in found][2] == "p.zarr/B/2/0"
    assert [each.mask for each in found] == [None, root / "m/A1_f1.png", root / "m/B2_f0.tif"]
    assert folders.find_images([plates / "p.zarr"]) == {each.name: each.image for each in found}
    assert folders.about_files([plates / "p.zarr", root / "m"]) == []


def test_several_plates(make, plates):
    names = [f"{plate}_{field}" for plate in "pq" for field in ("A1_f0", "A1_f1", "B2_f0")]
    found = folders.find(plates)
    assert [each.name for each in found] == names
    assert found[-1].file == "q.ome.zarr/B/2/0"
    assert list(folders.find_images([plates])) == names
    assert list(folders.find_images(sorted(plates.iterdir()))) == names
    assert folders.about_files([plates]) == []


def test_plates_in_subfolders(make, plates):
    for subset, plate in (("train", "p.zarr"), ("test", "q.ome.zarr")):
        (plates / subset).mkdir()
        (plates / plate).rename(plates / subset / plate)
    found = folders.find(plates, None, None, ["subset"])
    assert found[0].name == "test_q_A1_f0" and found[0].file == "test/q.ome.zarr/A/1/0"
    assert "p.zarr is a plate, which has no subfolders ('group: folder' of the split)" in refusal(
        plates / "train/p.zarr", None, None, ["group"]
    )


def test_masks_of_other_fields(make, plates):
    root = make("m/A1_f7.tif")
    assert refusal(plates / "p.zarr", root / "m") == (
        f"{root}/m/A1_f7.tif has no image of the same name in {plates}/p.zarr; correct config key "
        "'masks', or rename or remove the file"
    )
    other = write_plate(root / "o.zarr", {"C/3/0": np.eye(8, dtype="u1")})
    message = refusal(plates / "p.zarr", other)
    assert message.startswith(f"{other}/C/3/0 has no image of the same name in {plates}/p.zarr;")


def test_every_image_has_a_second_acquisition(make):
    root = make("i/a.tif", "i/b.ome.tif", "s/a.png", "s/b.tif", "o/a.tif", "m/a.tif", "m/b.tif")
    find = partial(folders.find, root / "i")
    assert [each.second for each in find(second=root / "s")] == [root / "s/a.png", root / "s/b.tif"]
    assert {each.second for each in find(root / "m")} == {None}
    assert refusal(root / "i", None, None, (), root / "o") == (
        f"{root}/i/b.ome.tif has no second acquisition of the same name in {root}/o (config key "
        "'second'); add it, or remove the image"
    )
    assert refusal(root / "o", None, None, (), root / "s").startswith(
        f"{root}/s/b.tif has no image of the same name in {root}/o; correct config key 'second'"
    )
    assert refusal(root / "i", None, None, (), root / "s/../i") == (
        f"config key 'second' names the folder of images itself ({root}/i); name the folder of the "
        "second acquisitions, whose noise is another"
    )
    make("i/c.tif", "i/d.tif")
    assert "c.tif (and 1 more) has no second" in refusal(root / "i", None, None, (), root / "s")
