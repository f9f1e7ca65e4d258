"""GeoJSON as QuPath and others write it."""

import json

import numpy as np
import pytest
from refusals import refusal

from denoiseg_flow.data.files.geojson import read_geojson
from denoiseg_flow.data.files.outlines import paint

SQUARE = [[2, 2], [10, 2], [10, 10], [2, 10], [2, 2]]
HOLE = [[4, 4], [8, 4], [8, 8], [4, 8], [4, 4]]
ELSEWHERE = [[14, 2], [18, 2], [18, 6], [14, 6], [14, 2]]


def read(tmp_path, document):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(document), encoding="utf-8-sig")
    return read_geojson(path)


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def polygon(*rings, **more):
    return {"type": "Polygon", "coordinates": list(rings), **more}


def test_holes_and_parts(tmp_path):
    parts = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [ELSEWHERE]]}
    for geometry in (
        parts,
        {"type": "GeometryCollection", "geometries": [polygon(SQUARE, HOLE), polygon(ELSEWHERE)]},
    ):
        outlines = read(tmp_path, {"type": "FeatureCollection", "features": [feature(geometry)]})
        labels, counts = paint(outlines, (20, 20), {})
        expected = np.zeros((20, 20))
        expected[2:10, 2:10], expected[4:8, 4:8], expected[2:6, 14:18] = 1, 0, 1
        np.testing.assert_array_equal(labels, expected)
        assert counts == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "document",
    [
        polygon(SQUARE),
        feature(polygon(SQUARE)),
        [feature(polygon(SQUARE))],
        [polygon([[x, y, 7.0] for x, y in SQUARE])],
        {"type": "FeatureCollection", "features": [feature(polygon(SQUARE))], "bbox": [0, 0, 9, 9]},
    ],
)
def test_forms_of_a_file(tmp_path, document):
    labels, _ = paint(read(tmp_path, document), (20, 20), {})
    assert labels.sum() == 64


def test_the_outline_of_a_cell_not_its_nucleus(tmp_path):
    cell = feature(polygon(SQUARE), objectType="cell") | {"nucleusGeometry": polygon(HOLE)}
    labels, _ = paint(read(tmp_path, [cell]), (20, 20), {})
    assert labels.sum() == 64


def test_objects_without_area_keep_their_number(tmp_path):
    point = {"type": "Point", "coordinates": [3, 3]}
    empty = [feature(point), feature(None), feature(polygon()), feature(polygon(SQUARE[:2]))]
    labels, counts = paint(read(tmp_path, [*empty, feature(polygon(SQUARE))]), (20, 20), {})
    assert np.unique(labels).tolist() == [0, 5] and counts.n_without_pixels == 4
    assert read(tmp_path, {"type": "FeatureCollection", "features": []}) == []


def test_planes_of_qupath(tmp_path):
    """It leaves out the plane of objects in the first one."""
    second = feature(polygon(SQUARE, plane={"c": -1, "z": 2, "t": 0}))
    outlines = read(tmp_path, [feature(polygon(SQUARE)), second])
    assert [outline.plane for outline in outlines] == [{"Z": 0, "T": 0}, {"Z": 2, "T": 0}]
    assert read(tmp_path, [feature(polygon(SQUARE))])[0].plane == {}


@pytest.mark.parametrize(
    "document", [{"shapes": []}, {"images": [], "annotations": []}, 3, "a", [[1]], {"type": "x"}]
)
def test_other_json(tmp_path, document):
    message = refusal(read, tmp_path, document)
    assert "is no GeoJSON" in message and "'masks'" in message
