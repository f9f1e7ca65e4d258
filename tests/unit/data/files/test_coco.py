"""COCO json."""

import json

import numpy as np
import pytest
from refusals import refusal

from denoiseg_flow.data.files.coco import read_coco
from denoiseg_flow.data.files.outlines import paint

# Written by pycocotools 2.0.11: a ring from radius 5 to 14 around (20, 24), and a full image.
RING = r"W>;k04M2N2N2N2N2O0O2O@H08OJ06OL040L040L040L040L041J061H08`01N101N2N2N2N2N3Lc>"
FULL = "0`n1"
SHAPE = (40, 50)


def read(tmp_path, *segmentations, **more):
    document = {
        "info": {"description": "cells"},
        "images": [{"id": 3, "file_name": "a.png", "width": SHAPE[1], "height": SHAPE[0]}],
        "annotations": [
            {"id": n, "image_id": 3, "category_id": 1, "segmentation": each, **more}
            for n, each in enumerate(segmentations)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    (image,) = read_coco(tmp_path / "a.json")
    return image.outlines()


def test_compressed_runs(tmp_path):
    y, x = np.mgrid[:40, :50]
    distance = np.hypot(y - 20, x - 24)
    outlines = read(tmp_path, *({"size": SHAPE, "counts": text} for text in (RING, FULL)))
    labels, _ = paint(outlines[:1], SHAPE, {})
    np.testing.assert_array_equal(labels, (distance < 14) & (distance >= 5))
    assert paint(outlines[1:], SHAPE, {})[0].all()


def test_polygons_of_one_object_are_its_parts(tmp_path):
    """Hidden in part by another object, for example; COCO has no holes in polygons."""
    parts = [[0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 13, 10, 13, 12, 10, 12]]
    labels, counts = paint(read(tmp_path, parts), SHAPE, {})
    assert labels[:4, :4].all() and labels[10:12, 10:13].all() and labels.sum() == 22
    assert counts == (1, 0, 0, 0)


def test_crowds_are_objects(tmp_path):
    """CVAT calls all that is painted with its brush a crowd."""
    whole = {"size": SHAPE, "counts": [0, 40 * 50]}
    labels, _ = paint(read(tmp_path, whole, iscrowd=1), SHAPE, {})
    assert (labels == 1).all()


@pytest.mark.parametrize(
    "segmentation", [[], None, [[1, 2, 3, 4]], {"size": SHAPE, "counts": [2000]}]
)
def test_objects_without_pixels(tmp_path, segmentation):
    labels, counts = paint(read(tmp_path, segmentation), SHAPE, {})
    assert not labels.any() and counts.n_without_pixels == 1


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": SHAPE, "counts": [1, 2]},
        {"size": SHAPE, "counts": [3000, -1000]},
        {"size": SHAPE, "counts": [2**62, 2**62, 2**62, 2**62, 2000]},
        {"size": SHAPE, "counts": "\x7f"},
        {"size": SHAPE, "counts": "P" * 99},
        {"size": SHAPE, "counts": RING[:-2]},
        [[1, 2, 3]],
        [["a"] * 6],
    ],
)
def test_damaged_objects(tmp_path, segmentation):
    with pytest.raises((ValueError, OverflowError)):
        read(tmp_path, segmentation)


@pytest.mark.parametrize("document", [[], {"images": []}, {"type": "FeatureCollection"}])
def test_other_json(tmp_path, document):
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert "is no COCO json" in refusal(read_coco, tmp_path / "a.json")


def test_a_changed_file_is_read_again(tmp_path):
    assert len(read(tmp_path, [])) == 1
    assert len(read(tmp_path, [], [])) == 2
