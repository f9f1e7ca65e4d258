"""Annotations of other programs, from the folders of a user to prepared labels."""

import json
import logging

import numpy as np
import pytest
import roifile
import tifffile
from PIL import Image
from refusals import refusal as refusal_of

from denoiseg_flow.data import folders, manifest, prepare
from denoiseg_flow.data.store import open_labels
from denoiseg_flow.jobs import checksums

SHAPE = (24, 32)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[2:9, 3:12], LABELS[2:9, 12:20], LABELS[15:20, 5:15] = 1, 2, 3
BOXES = [(3, 2, 12, 9), (12, 2, 20, 9), (5, 15, 15, 20)]  # left, top, right, bottom


@pytest.fixture
def user(tmp_path):
    """Four images, and an empty folder for masks."""
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, SHAPE, np.uint8)
        tifffile.imwrite(tmp_path / "images" / f"img{number}.tif", pixels)
    return tmp_path


def spec(user, masks="masks", **more):
    paths = {"images": str(user / "images"), "masks": str(user / masks)}
    return {"source": "folder", "split": {}, **paths, **more}


def labels_of(user, **more):
    """Prepare the dataset; return the labels of its images, by name."""
    folder = user / "prepared"
    prepare.prepare(spec(user, **more), None, folder)
    table = manifest.read(folder / "manifest.tsv")
    return {
        name: np.asarray(open_labels(folder / "masks" / f"{name}.tif"))
        for name in table.loc[table["annotated"] == 1, "image"]
    }


def warnings_of(user):
    return {each.topic: each.sentence for each in prepare.about_files(user / "prepared")}


def refusal(user, **more):
    return refusal_of(prepare.prepare, spec(user, **more), None, user / "prepared")


def corners(box):
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def features(boxes=BOXES, **plane):
    return [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*corners(box), corners(box)[0]]]}
            | ({"plane": {"c": -1, **plane}} if plane else {}),
            "properties": {"objectType": "annotation"},
        }
        for box in boxes
    ]


def save_geojson(path, boxes=BOXES, **plane):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features(boxes, **plane)}))


def save_rois(path, boxes=BOXES, **options):
    rois = [roifile.ImagejRoi.frompoints(corners(box), **options) for box in boxes]
    roifile.roiwrite(path, rois, mode="w")


def save_coco(path, names, boxes=BOXES, shape=SHAPE):
    """Outlines of several images; a name without objects is that of an image without."""
    images = [
        {"id": n, "file_name": name, "height": shape[0], "width": shape[1]}
        for n, name in enumerate(names)
    ]
    annotations = [
        {"id": 99, "image_id": image["id"], "segmentation": [np.ravel(corners(box)).tolist()]}
        for image in images
        for box in (boxes if "empty" not in image["file_name"] else [])
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))


def save_cellpose(path):
    np.save(path, {"masks": LABELS.astype(np.uint16), "filename": "img.tif", "flows": []})


def save_palette(path):
    image = Image.fromarray(LABELS).convert("P")
    image.putdata(LABELS.ravel().tolist())
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    image.save(path)


# --- which image ---------------------------------------------------------------------------------

WRITERS = {
    "img0.npy": lambda path: np.save(path, LABELS),
    "img0_seg.npy": save_cellpose,
    "img0_cp_masks.png": lambda path: Image.fromarray(LABELS).save(path),
    "img0_cp_masks.tif": lambda path: tifffile.imwrite(path, LABELS),
    "img0-labels.png": save_palette,
    "img0.bmp": save_palette,
    "img0_mask.pgm": lambda path: Image.fromarray(LABELS).save(path),
    "img0.geojson": save_geojson,
    "img0.tif.geojson": save_geojson,
    "img0.json": save_geojson,
    "img0.zip": save_rois,
    "img0_RoiSet.zip": save_rois,
    "img0.tif_rois.zip": save_rois,
}


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_other_programs(user, name):
    WRITERS[name](user / "masks" / name)
    found = labels_of(user)
    assert list(found) == ["img0"]
    np.testing.assert_array_equal(found["img0"], LABELS)
    assert warnings_of(user) == {}


def test_one_roi(user):
    save_rois(user / "masks/img3.zip", BOXES[:1])
    roifile.ImagejRoi.frompoints(corners(BOXES[0])).tofile(user / "masks/img0.roi")
    found = labels_of(user)
    np.testing.assert_array_equal(found["img0"], found["img3"])


@pytest.mark.parametrize("name", ["img0_seg.npy", "img0_cp_masks.png", "img0.geojson"])
def test_annotations_beside_the_images(user, name):
    """Where Cellpose stores them."""
    WRITERS[name](user / "images" / name)
    found = labels_of(user, masks="images")
    assert list(found) == ["img0"] and warnings_of(user) == {}
    np.testing.assert_array_equal(found["img0"], LABELS)
    assert len(manifest.read(user / "prepared/manifest.tsv")) == 4


def test_the_folder_of_images_by_another_path(user):
    """Images that are their own clean truth, too."""
    WRITERS["img0_cp_masks.png"](user / "images/img0_cp_masks.png")
    (user / "link").symlink_to(user / "images")
    assert list(labels_of(user, masks="link", clean=str(user / "images"))) == ["img0"]
    (user / "images/img0_cp_masks.png").unlink()
    assert "no file in it annotates another" in refusal(user, masks="link")


def test_an_image_whose_name_ends_like_that_of_a_mask(user):
    """Its own mask has all of its name."""
    (user / "images/img1.tif").rename(user / "images/img0_seg.tif")
    save_cellpose(user / "masks/img0_seg.npy")
    Image.fromarray(LABELS).save(user / "masks/img0_mask.png")
    found = folders.find(user / "images", user / "masks")
    masks = [each.mask and each.mask.name for each in found]
    assert masks == ["img0_mask.png", "img0_seg.npy", None, None]


def test_masks_among_the_images(user):
    """They are not predicted, and a study without a folder of masks says what they look like."""
    images = user / "images"
    names = list(folders.find_images([images]))
    WRITERS["img0_cp_masks.png"](images / "img0_cp_masks.png")
    assert list(folders.find_images([images])) == names
    assert [*folders.find_images([images / "img0_cp_masks.png"])] == ["img0_cp_masks"]
    (found,) = folders.about_files([images])
    assert found.severity == "warning"
    assert found.sentence == (
        f"1 file in {images} (img0_cp_masks.png), which annotate others to go by their names, are "
        "not predicted. Rename them, or give their paths, if they are images."
    )
    sources = folders.find(images)
    assert len(sources) == len(names) + 1
    (found,) = folders.about_files([images], sources=sources)
    assert found.sentence.endswith("name the folder under 'masks', too.")
    assert folders.about_files([images], (), images, folders.find(images, images)) == []


@pytest.mark.parametrize("other", ["img0_seg.npy", "img0.geojson", "img0.png"])
def test_two_annotations_of_one_image(user, other):
    tifffile.imwrite(user / "masks/img0.tif", LABELS)
    WRITERS.get(other, WRITERS["img0_cp_masks.png"])(user / "masks" / other)
    message = refusal(user)
    assert "both annotate image img0" in message
    assert "img0.tif" in message and other in message


@pytest.mark.parametrize("name", ["img9_seg.npy", "img9.zip", "img9.geojson", "RoiSet.zip"])
def test_annotations_of_no_image(user, name):
    save_geojson(user / "masks/img0.geojson")
    (user / "masks" / name).touch()
    assert f"{name} has no image of the same name" in refusal(user)


def test_json_of_no_image(user):
    """Other json is left out beside masks; alone, it may be that of all images."""
    save_coco(user / "masks/annotations.json", ["img0.tif"])
    message = refusal(user)
    assert f"'masks: {user}/masks/annotations.json' if it is a COCO json" in message
    save_geojson(user / "masks/img1.geojson")
    assert list(labels_of(user)) == ["img1"]
    assert "annotations.json" in warnings_of(user)["files left out"]


def test_jpeg_masks_are_left_out(user):
    save_geojson(user / "masks/img0.geojson")
    Image.fromarray(LABELS).save(user / "masks/img1.jpg")
    assert list(labels_of(user)) == ["img0"]
    said = warnings_of(user)["files left out"]
    assert "(img1.jpg)" in said and ".jpg" not in said.split("Accepted")[1]
    (user / "masks/img0.geojson").unlink()
    assert "has no masks, only .jpg files" in refusal(user)


# --- which pixels --------------------------------------------------------------------------------


def test_overlaps_are_warned_of(user, caplog):
    caplog.set_level(logging.INFO)
    for number in range(4):
        save_geojson(user / f"masks/img{number}.geojson")
    save_geojson(user / "masks/img2.geojson", [*BOXES, (0, 0, 13, 10)])
    found = labels_of(user)["img2"]
    assert np.unique(found).tolist() == [0, 2, 3, 4]
    said = warnings_of(user)["overlapping outlines"]
    assert "1 image (img2)" in said and "1 of them lack some pixels, 1 all of them" in said
    assert said in caplog.text


def test_outlines_outside_are_warned_of(user):
    save_rois(user / "masks/img0.zip", [*BOXES, (90, 90, 99, 99)])
    np.testing.assert_array_equal(labels_of(user)["img0"], LABELS)
    assert "1 outline of 1 image (img0)" in warnings_of(user)["outlines without pixels"]


def test_all_outlines_outside(user):
    """Drawn in micrometres, or in another image."""
    save_geojson(user / "masks/img0.geojson", [(90, 90, 99, 99)])
    message = refusal(user)
    assert "no object of" in message and "img0.geojson" in message and "img0.tif" in message


def test_no_outlines_are_no_objects(user):
    save_geojson(user / "masks/img0.geojson", [])
    assert not labels_of(user)["img0"].any()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("img0.geojson", b'{"type": "FeatureCollection"'),
        ("img0.geojson", b'{"type": "Polygon", "coordinates": [[[0, 1], [2], [3, 4]]]}'),
        ("img0.geojson", b'{"type": "Polygon", "coordinates": [[[0, 1], [2, NaN], [3, 4]]]}'),
        ("img0.json", b"\xff\xfe"),
        ("img0.json", b"[" * 100_000),
        ("img0.zip", b"PK"),
        ("img0.zip", b"PK\5\6" + bytes(18)),
        ("img0.roi", b"Iout" + bytes(20)),
        ("img0.roi", b""),
        ("img0_seg.npy", b"\x93NUMPY\1\0"),
    ],
)
def test_damaged_files(user, name, content):
    (user / "masks" / name).write_bytes(content)
    message = refusal(user)
    assert message.startswith(f"cannot read {user}/masks/{name}, it seems damaged")


# --- COCO ----------------------------------------------------------------------------------------


def test_one_file_for_all_images(user):
    """Images without objects in it are not annotated: many programs list those, too."""
    (user / "images/img3.tif").rename(user / "images/empty.tif")
    save_coco(user / "coco.json", ["images/img0.png", "img2.tif", "empty.tif"])
    found = labels_of(user, masks="coco.json")
    assert list(found) == ["img0", "img2"] and warnings_of(user) == {}
    for each in found.values():
        np.testing.assert_array_equal(each, LABELS)


def test_paths_tell_images_of_one_name_apart(user):
    for number, subset in enumerate(("train", "train", "val", "test")):
        (user / "images" / subset).mkdir(exist_ok=True)
        path = user / f"images/img{number}.tif"
        path.rename(user / "images" / subset / f"{number if number < 1 else 'same'}.tif")
    save_coco(user / "coco.json", ["train/same.png", "test\\same.png", "0.png"])
    found = labels_of(user, masks="coco.json", split={"subset": "folder"})
    assert list(found) == ["test_same", "train_0", "train_same"]


def test_images_that_are_not_there(user):
    save_coco(user / "coco.json", ["img0.png", "img7.png"])
    assert list(labels_of(user, masks="coco.json")) == ["img0"]
    assert "objects of 1 image" in (said := warnings_of(user)["images not found"])
    assert "(img7.png)" in said
    save_coco(user / "coco.json", ["img7.png"])
    assert "has objects of none of the images" in refusal(user, masks="coco.json")


def test_coco_that_does_not_fit(user):
    save_coco(user / "coco.json", ["img0.png"], shape=(48, 64))
    message = refusal(user, masks="coco.json")
    assert "48 x 64 pixels" in message and "img0.tif has 24 x 32" in message
    save_coco(user / "coco.json", ["img0.png", "a/img0.tif"])
    assert "lists image img0.tif twice" in refusal(user, masks="coco.json")
    (user / "coco.json").write_text("{}")
    assert "is no COCO json" in refusal(user, masks="coco.json")
    (user / "coco.json").write_text("{")
    assert "seems damaged" in refusal(user, masks="coco.json")
    assert "does not exist" in refusal(user, masks="none.json")


def test_coco_in_an_archive(user):
    save_coco(user / "coco.json", ["img0.tif"])
    (user / "raw/study").mkdir(parents=True)
    for name in ("images", "coco.json"):
        (user / name).rename(user / "raw/study" / name)
    checksums.write(user / "raw")
    source = {"source": "remote", "format": "folder", "images": "images", "masks": "coco.json"}
    prepare.prepare(source, user / "raw", user / "prepared")
    found = open_labels(user / "prepared/masks/img0.tif")
    np.testing.assert_array_equal(found, LABELS)


# --- stacks --------------------------------------------------------------------------------------


@pytest.fixture
def stacks(user):
    """Time series of three planes, in place of the images."""
    for path in (user / "images").iterdir():
        pixels = np.stack([tifffile.imread(path)] * 3)
        tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "TYX"})
    return user


def test_outlines_of_time_points(stacks):
    save_rois(stacks / "masks/img0.zip", BOXES, t=1)
    save_geojson(stacks / "masks/img1.geojson", BOXES, z=0, t=2)
    found = labels_of(stacks)
    for name, labels in found.items():
        drawn = name in ("img0_t001", "img1_t002")
        np.testing.assert_array_equal(labels, LABELS * drawn)
    assert len(found) == 6


def test_outlines_that_do_not_say_their_plane(stacks):
    save_rois(stacks / "masks/img0.zip")
    message = refusal(stacks)
    assert "object 1 of" in message and "which of the 3 time points" in message
    save_rois(stacks / "masks/img0.zip", t=3)
    assert "is on time point 4, but" in refusal(stacks)


@pytest.mark.parametrize("ending", ["npy", "tif"])
def test_labels_of_time_points(stacks, ending):
    """They have the axes of the image, which an npy file or a plain tif does not say."""
    labels = np.stack([LABELS, LABELS * 0, LABELS])
    if ending == "npy":
        np.save(stacks / "masks/img0.npy", labels)
    else:
        tifffile.imwrite(stacks / "masks/img0.tif", labels, photometric="minisblack")
    found = labels_of(stacks)
    np.testing.assert_array_equal(found["img0_t002"], LABELS)
    assert not found["img0_t001"].any()


def test_outlines_of_volumes(stacks):
    save_rois(stacks / "masks/img0.zip", z=1)
    message = refusal(stacks, axes="ZYX", dimensions=3, pixel_size=[2, 1, 1])
    assert "is read as a volume" in message and "'dimensions: 2'" in message
    save_rois(stacks / "masks/img0.zip", z=1)
    found = labels_of(stacks, axes="ZYX", dimensions=2)
    np.testing.assert_array_equal(found["img0_z001"], LABELS)


# --- lossy images --------------------------------------------------------------------------------


def test_jpeg_images_are_warned_of(user, caplog):
    for number in (0, 2):
        path = user / f"images/img{number}.tif"
        Image.fromarray(tifffile.imread(path)).save(path.with_suffix(".jpg"))
        path.unlink()
    save_geojson(user / "masks/img0.geojson")
    labels_of(user)
    said = warnings_of(user)["JPEG images"]
    assert "2 images in JPEG (img0.jpg, img2.jpg)" in said and "changes the noise" in said
    assert said in caplog.text
    (found,) = folders.about_files([user / "images/img0.jpg"])
    assert found.severity == "warning" and "img0.jpg" in found.sentence
