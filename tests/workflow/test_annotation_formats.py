"""Annotations of other programs in a study: planned, checked, and prepared again if they change."""

import json

import numpy as np
import pytest
import skimage as ski
from PIL import Image
from snakemake_call import call_here, dry_run

from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.simulated import simulator

STUDY = (
    "datasets={cellpose: {source: folder, images: cellpose, masks: cellpose}, "
    "coco: {source: folder, images: sim/images, masks: coco.json}}",
    "grid={datasets: [cellpose, coco], noises: [n0], methods: [denoiseg]}",
)
KINDS = ("masks", "images")
CHECKS = ("results/checks/cellpose_n0.json", "results/checks/coco_n0.json")


def outline(inside):
    """The outer contour of an object, as numbers x, y, x, y, ... from the corner of the image."""
    (contour, *_) = ski.measure.find_contours(np.pad(inside, 1).astype(float), 0.5)
    return (contour[:, ::-1] - 0.5).ravel().tolist()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Images in JPEG beside files of Cellpose, and the same in tif with a COCO json."""
    folder = tmp_path_factory.mktemp("annotations")
    simulator.write(folder / "sim", n_images=8, size=64, n_nuclei=[3, 6], seed=0)
    (folder / "cellpose").mkdir()
    images, annotations = [], []
    for number, path in enumerate(sorted((folder / "sim/images").iterdir())):
        labels, image = (read_image(folder / "sim" / kind / path.name) for kind in KINDS)
        grey = (255 * (image / image.max())).astype(np.uint8)
        Image.fromarray(grey).save(folder / "cellpose" / f"{path.stem}.jpg", quality=95)
        np.save(folder / "cellpose" / f"{path.stem}_seg.npy", {"masks": labels, "flows": [grey]})
        images.append({"id": number, "file_name": path.name, "height": 64, "width": 64})
        annotations += [
            {"image_id": number, "segmentation": [outline(labels == label)]}
            for label in range(1, labels.max() + 1)
        ]
    document = {"images": images, "annotations": annotations, "categories": []}
    (folder / "coco.json").write_text(json.dumps(document))
    call = call_here(folder, "--cores", "2", *CHECKS, "--config", *STUDY)
    assert call.status == 0, call.screen
    return folder


@pytest.mark.parametrize("name", ["cellpose", "coco"])
def test_labels_are_those_that_were_saved(study, name):
    masks = sorted((study / "results/data" / name / "prepared/masks").iterdir())
    assert len(masks) == 8
    for path in masks:
        labels = read_image(study / "sim/masks" / path.name)
        np.testing.assert_array_equal(read_image(path), labels)


def test_checks_and_log_warn_of_jpeg(study):
    jpeg, tif = (json.loads((study / path).read_text()) for path in CHECKS)
    (warning,) = (each["sentence"] for each in jpeg if each["topic"] == "JPEG images")
    assert "8 images in JPEG (sim_0000.jpg, sim_0001.jpg" in warning
    assert warning in (study / "results/logs/cellpose/prepare.log").read_text()
    assert not any("JPEG" in each["sentence"] for each in tif)


def test_a_changed_coco_json_is_read_again(study):
    """And nothing else is."""
    path = study / "coco.json"
    document = json.loads(path.read_text())
    document["annotations"].pop()
    path.write_text(json.dumps(document))
    call = dry_run(study, *CHECKS, "--config", *STUDY)
    assert call.status == 0, call.screen
    assert call.jobs["prepare"] == 1 and call.jobs["check"] == 1
