"""Measure position, size, intensity and shape of the objects in a label image of any size."""

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import scipy
import skimage as ski

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.tiles import Place, Readable, box_shape, pieces

# Properties of scikit-image's regionprops_table and their column names. Intensities are those of
# the input image; lengths are in pixels, for volumes in widths of a pixel.
_ANYWHERE = {
    "intensity_mean": "intensity_mean",
    "intensity_std": "intensity_std",
    "intensity_min": "intensity_min",
    "intensity_max": "intensity_max",
    "equivalent_diameter_area": "equivalent_diameter",
    "axis_major_length": "major_axis",
    "axis_minor_length": "minor_axis",
}
PLANE_PROPERTIES = {
    **{"label": "label", "centroid-0": "y", "centroid-1": "x", "area": "area"},
    **_ANYWHERE,
    **{"orientation": "orientation", "perimeter": "perimeter"},
    **{"eccentricity": "eccentricity", "solidity": "solidity"},
}
VOLUME_PROPERTIES = {
    **{"label": "label", "centroid-0": "z", "centroid-1": "y", "centroid-2": "x", "area": "volume"},
    **_ANYWHERE,
    "solidity": "solidity",
}

PIECE = 2**22  # pixels searched for objects at once
TILES = {2: (1024, 1024), 3: (64, 256, 256)}  # objects that begin in one tile are measured at once


def measure_objects(
    name: str, labels: Readable, image: Readable, metadata: Metadata
) -> Iterator[pd.DataFrame]:
    """Yield tables with one row per object, tile by tile; together they list all objects.

    Memory is bounded by the number of objects and the largest bounding box of the objects that
    begin in one tile, not by the image. The first table is always yielded, even if it is empty.

    Parameters
    ----------
    name
        Value of the column ``image``.
    labels, image
        ([z,] y, x); intensities are measured in ``image``.
    metadata
        Metadata of the image. Without a pixel size, the column ``area_um2`` (2D) or ``volume_um3``
        (3D) is empty.
    """
    groups = _by_tile(_find_boxes(labels), TILES[len(labels.shape)])
    nothing = np.zeros((1,) * len(labels.shape), np.int32)
    yield _measure(name, nothing, nothing, (0,) * nothing.ndim, metadata)
    for wanted, place in groups:
        values = labels[place]
        # Objects that begin in another tile are measured with that tile.
        kept = np.where(np.isin(values, wanted), values, 0)
        corner = tuple(along.start for along in place)
        yield _measure(name, kept, image[place], corner, metadata)


def _measure(
    name: str,
    labels: np.ndarray,
    image: np.ndarray,
    corner: tuple[int, ...],
    metadata: Metadata,
) -> pd.DataFrame:
    """Measure the objects in a region of an image that begins at ``corner``."""
    planes = labels.ndim == 2
    names = PLANE_PROPERTIES if planes else VOLUME_PROPERTIES
    spacing = (1.0, 1.0) if planes else (metadata.plane_step(), 1.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an object of two pixels has no convex hull
        table = ski.measure.regionprops_table(
            labels, image, properties=tuple(_wanted(names)), spacing=spacing
        )
    objects = pd.DataFrame(table).rename(columns=names)[list(names.values())]
    for axis, start, step in zip(metadata.spatial_axes.lower(), corner, spacing, strict=True):
        objects[axis] = objects[axis] / step + start
    size, column = ("area", "area_um2") if planes else ("volume", "volume_um3")
    objects[size] = (objects[size] / np.prod(spacing)).round().astype(np.int64)
    pixel = metadata.spacing()
    unit = np.nan if pixel is None else np.prod(pixel)
    objects.insert(list(objects).index(size) + 1, column, objects[size] * unit)
    objects.insert(0, "image", name)
    return objects


def _wanted(names: Mapping[str, str]) -> list[str]:
    """Return the properties that regionprops_table needs for these columns."""
    return list(dict.fromkeys(key.partition("-")[0] for key in names))


def _find_boxes(labels: Readable) -> np.ndarray:
    """Return the bounding box of each label, (label, axis, 2), int64: start and stop.

    The box of a label that does not occur stops before it starts.
    """
    boxes = _no_boxes(0, len(labels.shape))
    for place in pieces(labels.shape, PIECE):
        values, compact = np.unique(labels[place], return_inverse=True)
        compact = compact.reshape(box_shape(place)).astype(np.int32)
        has_background = int(values[0] == 0)
        values = values[has_background:]
        if not len(values):
            continue
        found = scipy.ndimage.find_objects(compact + 1 - has_background)
        ends = np.array([[(along.start, along.stop) for along in box] for box in found])
        ends += np.array([along.start for along in place])[:, None]
        missing = int(values[-1]) + 1 - len(boxes)
        if missing > 0:
            boxes = np.concatenate([boxes, _no_boxes(missing, boxes.shape[1])])
        boxes[values, :, 0] = np.minimum(boxes[values, :, 0], ends[:, :, 0])
        boxes[values, :, 1] = np.maximum(boxes[values, :, 1], ends[:, :, 1])
    return boxes


def _no_boxes(count: int, n_axes: int) -> np.ndarray:
    return np.tile(np.array([np.iinfo(np.int64).max, -1]), (count, n_axes, 1))


def _by_tile(boxes: np.ndarray, tile: tuple[int, ...]) -> Iterator[tuple[np.ndarray, Place]]:
    """Yield the labels of the objects that begin in each tile, and their common bounding box."""
    labels = np.flatnonzero(boxes[:, 0, 1] >= 0)
    if not len(labels):
        return
    begun = boxes[labels, :, 0] // tile
    order = np.lexsort(begun.T[::-1])
    firsts = np.flatnonzero(np.any(np.diff(begun[order], axis=0), axis=1)) + 1
    for wanted in np.split(labels[order], firsts):
        starts, stops = boxes[wanted, :, 0].min(axis=0), boxes[wanted, :, 1].max(axis=0)
        yield wanted, tuple(map(slice, starts.tolist(), stops.tolist()))
