"""Outlines become pixels, and the files of other programs become outlines: there and back."""

import json
from itertools import groupby

import numpy as np
import pytest
import roifile
import skimage as ski
from hypothesis import given, settings
from hypothesis import strategies as st

from denoiseg_flow.data.files.coco import read_coco
from denoiseg_flow.data.files.geojson import read_geojson
from denoiseg_flow.data.files.imagej_rois import read_imagej_rois
from denoiseg_flow.data.files.outlines import Outline, paint, ring

SHAPE = (23, 31)


@st.composite
def label_maps(draw):
    """Blobs that touch, with holes, in several pieces, and up to the borders of the image."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    smooth = ski.filters.gaussian(rng.random(SHAPE), draw(st.sampled_from([0.5, 1.0, 2.0])))
    levels = np.quantile(smooth, np.sort(rng.random(draw(st.integers(1, 5)))))
    return ski.segmentation.relabel_sequential(np.digitize(smooth, levels))[0].astype(np.int32)


def rings_of(inside):
    """Contours of an object around the centres of its pixels, from the corner of the image."""
    contours = ski.measure.find_contours(np.pad(inside, 1).astype(float), 0.5)
    return [contour[:, ::-1] - 0.5 for contour in contours]


def painted(outlines, shape=SHAPE, **numbers):
    return paint(outlines, shape, numbers)


# --- pixels --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 12), spread=st.sampled_from([20, 60]))
def test_pixels_whose_centres_are_inside(seed, n, spread):
    """The same as scikit-image, in which pixels have their centre at whole numbers."""
    corners = np.random.default_rng(seed).normal((15, 11), spread, (n, 2))
    expected = np.zeros(SHAPE, np.int32)
    expected[ski.draw.polygon(corners[:, 1] - 0.5, corners[:, 0] - 0.5, SHAPE)] = 1
    np.testing.assert_array_equal(painted([Outline([[ring(corners)]])])[0], expected)


def test_polygons_that_share_an_edge_share_no_pixel():
    """Even if the edge runs through the centres of pixels."""
    whole = [(0.5, 0.5), (9.5, 0.5), (9.5, 9.5), (0.5, 9.5)]
    for middle in ([(5.5, 0.5), (5.5, 9.5)], [(0.5, 0.5), (9.5, 9.5)]):
        first = Outline([[ring([middle[0], *whole[1:3], middle[1]])]])
        second = Outline([[ring([middle[0], middle[1], whole[3], whole[0]])]])
        labels, counts = painted([first, second], (12, 12))
        assert counts[1:] == (0, 0, 0)
        np.testing.assert_array_equal(labels > 0, painted([Outline([[ring(whole)]])], (12, 12))[0])
    assert (labels > 0).sum() == 81


def test_one_pixel():
    labels, _ = painted([Outline([[ring([(3, 2), (4, 2), (4, 3), (3, 3)])]])])
    assert np.argwhere(labels).tolist() == [[2, 3]]


@pytest.mark.parametrize("many", [3, 100_000])
def test_large_polygons_are_filled_at_once(many):
    angles = np.linspace(0, 2 * np.pi, many, endpoint=False)
    corners = 500 + 700 * np.column_stack([np.cos(angles), np.sin(angles)])
    labels, _ = painted([Outline([[ring(corners)]])], (1000, 1000))
    y, x = np.mgrid[:1000, :1000] + 0.5
    disk = np.hypot(x - 500, y - 500) < 700
    if many > 3:
        np.testing.assert_array_equal(labels > 0, disk)
    else:
        assert not labels[~disk].any() and labels.any()


def test_later_objects_cover_earlier_ones_and_that_is_counted():
    def square(left, right):
        return Outline([[ring([(left, 0), (right, 0), (right, 5), (left, 5)])]])

    labels, counts = painted([square(0, 6), square(4, 9), square(5, 8), square(5, 9)])
    assert labels[0, :10].tolist() == [1, 1, 1, 1, 2, 4, 4, 4, 4, 0]
    assert counts == (4, 0, 2, 1)


def test_parts_of_one_object_may_overlap():
    square = ring([(0, 0), (4, 0), (4, 4), (0, 4)])
    labels, counts = painted([Outline([[square], [square + 2]])])
    assert (labels == 1).sum() == 28 and counts == (1, 0, 0, 0)


def test_objects_without_pixels_are_counted():
    outlines = [
        Outline(),
        Outline([[ring([(-9, -9), (-5, -9), (-5, -5)])]]),
        Outline([[ring([(40, 2), (50, 2), (50, 5)])]]),
        Outline([[ring([(3.6, 2), (3.9, 2), (3.9, 5), (3.6, 5)])]]),
        Outline([[ring([(3, 2), (4, 2), (4, 3), (3, 3)])]]),
    ]
    labels, counts = painted(outlines)
    assert np.unique(labels).tolist() == [0, 5] and counts == (5, 4, 0, 0)


@pytest.mark.parametrize(
    "corners", [[1, 2, 3], [[1], [2], [3]], [[0, 0], [0, np.nan], [1, 1]], [[0, 0], [1e300, 0]]]
)
def test_corners_that_are_no_places(corners):
    with pytest.raises(ValueError, match="no pairs of coordinates"):
        ring(corners)


# --- there and back ------------------------------------------------------------------------------


def feature(rings):
    """A feature of QuPath."""
    closed = [np.vstack([each, each[:1]]).tolist() for each in rings]
    return {
        "type": "Feature",
        "id": "9f0f3a0e-5d8a-4cde-8f7c-0a1b2c3d4e5f",
        "geometry": {"type": "Polygon", "coordinates": closed},
        "properties": {"objectType": "annotation", "classification": {"name": "Nucleus"}},
    }


@settings(max_examples=30, deadline=None)
@given(label_maps())
def test_contours_in_geojson(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("geojson") / "a.geojson"
    features = [feature(rings_of(labels == n)) for n in range(1, labels.max() + 1)]
    for document in ({"type": "FeatureCollection", "features": features}, features):
        path.write_text(json.dumps(document))
        found, counts = painted(read_geojson(path))
        np.testing.assert_array_equal(found, labels)
        assert counts == (labels.max(), 0, 0, 0)


def composite(rings):
    """A ROI of several rings, as ImageJ stores what its wand finds with holes."""
    path = []
    for each in rings:
        for place, corner in enumerate(each):
            path.append([float(place > 0), *corner])
        path.append([4.0])
    numbers = np.concatenate(path).astype(np.float32)
    roi = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, shape_roi_size=len(numbers))
    roi.multi_coordinates = numbers
    return roi


@settings(max_examples=30, deadline=None)
@given(label_maps(), st.booleans())
def test_contours_in_rois(tmp_path_factory, labels, whole):
    """Whole corners, as ImageJ has them without sub-pixel resolution, change the border only."""
    path = tmp_path_factory.mktemp("rois") / "RoiSet.zip"
    rois = []
    for number in range(1, labels.max() + 1):
        rings = rings_of(labels == number)
        if whole:
            rings = [np.round(each).astype(int) for each in rings]
        one = len(rings) == 1
        rois.append(roifile.ImagejRoi.frompoints(rings[0]) if one else composite(rings))
        rois[-1].name = f"{number:04d}"
    roifile.roiwrite(path, rois)
    outlines = read_imagej_rois(path, {})
    assert len(outlines) == labels.max()
    for number, outline in enumerate(outlines, start=1):
        found, inside = painted([outline])[0] > 0, labels == number
        if not whole:
            np.testing.assert_array_equal(found, inside)
        border = ski.segmentation.find_boundaries(np.pad(inside, 1))[1:-1, 1:-1]
        assert not ((found != inside) & ~border).any()


def runs_of(inside):
    """Runs of pixels down the columns, from the background."""
    runs = [len(list(group)) for _, group in groupby(inside.T.ravel().tolist())]
    return runs if not inside[0, 0] else [0, *runs]


@settings(max_examples=30, deadline=None)
@given(label_maps())
def test_runs_in_coco(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("coco") / "annotations.json"
    segmentations = [
        {"size": list(SHAPE), "counts": runs_of(labels == n)} for n in range(1, labels.max() + 1)
    ]
    document = {
        "images": [{"id": 7, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1]}],
        "annotations": [
            {"id": n, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": each}
            for n, each in enumerate(segmentations)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    path.write_text(json.dumps(document))
    (image,) = read_coco(path)
    assert (image.file_name, image.shape) == ("a.png", SHAPE)
    found, counts = painted(image.outlines())
    np.testing.assert_array_equal(found, labels)
    assert counts == (labels.max(), 0, 0, 0)
