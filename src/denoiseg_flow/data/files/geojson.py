"""Objects in GeoJSON files, as QuPath writes them: polygons in pixels."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from denoiseg_flow.data.files.outlines import Outline, Ring, ring
from denoiseg_flow.errors import InputError

_GEOMETRIES = (
    "Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString", "MultiLineString",
    "GeometryCollection",
)  # fmt: skip


def read_geojson(path: Path) -> list[Outline]:
    """Read the geometries of a file, each of which is one object.

    Parameters
    ----------
    path
        A feature, a collection or list of features, or a geometry. Of cells of QuPath, the outline
        of the cell is read, not that of its nucleus.

    Returns
    -------
    list of Outline
        Geometries that are no areas, such as points, have no polygons. If QuPath states the plane
        of one object, those without one are in the first plane.

    Raises
    ------
    InputError
        If the file is json, but no GeoJSON.
    """
    outlines = []
    for geometry in _geometries(json.loads(path.read_bytes())):
        if not isinstance(geometry, dict) or geometry.get("type") not in _GEOMETRIES:
            raise InputError(
                f"{path} is no GeoJSON; export the objects as GeoJSON, or, if it is the COCO json "
                "of a dataset, write its path as 'masks' of the dataset"
            )
        plane = geometry.get("plane", {})
        stated = {axis: int(plane[axis.lower()]) for axis in "ZT" if axis.lower() in plane}
        outlines.append(Outline(_polygons(geometry), plane=stated))
    if any(outline.plane for outline in outlines):
        outlines = [replace(each, plane={"Z": 0, "T": 0, **each.plane}) for each in outlines]
    return outlines


def _geometries(document: Any) -> Iterator[Any]:
    """Yield the geometry of each feature."""
    if isinstance(document, list):
        for each in document:
            yield from _geometries(each)
    elif isinstance(document, dict) and document.get("type") == "FeatureCollection":
        yield from _geometries(document["features"])
    elif isinstance(document, dict) and document.get("type") == "Feature":
        yield document["geometry"] or {"type": "GeometryCollection", "geometries": []}
    else:
        yield document


def _polygons(geometry: dict[str, Any]) -> list[list[Ring]]:
    """Return the polygons of a geometry: the outer ring of each, then its holes."""
    if geometry["type"] == "GeometryCollection":
        return [polygon for each in geometry["geometries"] for polygon in _polygons(each)]
    if geometry["type"] not in ("Polygon", "MultiPolygon"):
        return []
    several = geometry["type"] == "MultiPolygon"
    found = geometry["coordinates"] if several else [geometry["coordinates"]]
    return [list(map(ring, rings)) for rings in found if rings and len(rings[0]) > 2]
