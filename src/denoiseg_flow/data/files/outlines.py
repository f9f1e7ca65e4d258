"""Objects that are outlined by polygons or stored as runs of pixels, and the labels they paint.

Coordinates are pixels from the upper left corner of the image, so the centre of the first pixel is
at (0.5, 0.5), as in ImageJ, QuPath and COCO. A pixel belongs to a polygon if its centre is inside.
A centre on an edge is inside if the polygon lies to its right or, on a horizontal edge, below it:
polygons that share an edge neither overlap nor leave a gap.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from denoiseg_flow.data.files.tiles import Place

_FARTHEST = 2**31  # pixels from the image
_CROSSINGS = 2**20  # computed at once
Ring = np.ndarray
"""Corners of a closed line, shape (corner, 2): x and y."""


@dataclass(frozen=True)
class Outline:
    """One object.

    Attributes
    ----------
    polygons
        Its polygons, each a list of rings; a pixel is inside if an odd number of them surround it.
        Empty if the object is stored as runs, or has no area.
    runs
        Numbers of pixels outside and inside, alternately, down the columns of an image; and the
        height and width of that image.
    plane
        Number, from 0, of its time point (T) and z-slice (Z), as far as stated.
    """

    polygons: Sequence[Sequence[Ring]] = ()
    runs: tuple[np.ndarray, tuple[int, int]] | None = None
    plane: Mapping[str, int] = field(default_factory=dict)

    def pieces(self, shape: tuple[int, int]) -> Iterator[tuple[Place, np.ndarray]]:
        """Yield boxes in an image of this shape, and which of their pixels are inside (y, x)."""
        if self.runs:
            yield from _decode(*self.runs)
        for rings in self.polygons:
            yield from _fill(rings, shape)


class Painted(NamedTuple):
    """How many objects were painted into an image, and of how many something is missing."""

    n_objects: int
    n_without_pixels: int
    """Objects without the centre of a pixel: outside of the image, too thin, or without area."""
    n_overlapped: int
    """Objects that later ones cover in part."""
    n_hidden: int
    """Objects that later ones cover completely."""


def ring(corners: object) -> Ring:
    """Return corners, shape (corner, 2 or more), as an array of x and y.

    Raises
    ------
    ValueError
        If they are no coordinates.
    """
    array = np.asarray(corners, np.float64)
    if array.ndim != 2 or array.shape[1] < 2 or not (np.abs(array) < _FARTHEST).all():
        raise ValueError("a polygon has corners that are no pairs of coordinates")
    return array[:, :2]


def paint(
    outlines: Sequence[Outline], shape: tuple[int, int], numbers: Mapping[str, int]
) -> tuple[np.ndarray, Painted]:
    """Paint the objects of one plane in the order of their file, later ones over earlier ones.

    Parameters
    ----------
    outlines
        All objects of the file. Those that state no plane are in all of them.
    shape
        Height and width of the image.
    numbers
        Time point and z-slice of the plane, if the file of the image has several.

    Returns
    -------
    numpy.ndarray, Painted
        Labels (y, x): the place of each object in the file, from 1.
    """
    labels = np.zeros(shape, np.int32)
    here = [
        (number, outline)
        for number, outline in enumerate(outlines, start=1)
        if all(numbers.get(axis) == place for axis, place in outline.plane.items())
    ]
    painted = np.zeros(len(outlines) + 1, np.int64)
    for number, outline in here:
        for place, inside in outline.pieces(shape):
            box = labels[place]
            painted[number] += np.count_nonzero(inside & (box != number))
            box[inside] = number
    left = np.bincount(labels.ravel(), minlength=len(painted))
    left[0] = 0
    hidden = (left == 0) & (painted > 0)
    return labels, Painted(
        len(here),
        sum(not painted[number] for number, _ in here),
        int(((left < painted) & ~hidden).sum()),
        int(hidden.sum()),
    )


def _fill(rings: Sequence[Ring], shape: tuple[int, int]) -> Iterator[tuple[Place, np.ndarray]]:
    """Yield the box of one polygon, if it has pixels, and which of them are inside."""
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(each, -1, axis=0) for each in rings])
    low, high = np.minimum(starts, ends).min(axis=0), np.maximum(starts, ends).max(axis=0)
    left, top = _first_centres(low, shape)
    right, bottom = _first_centres(high, shape)
    if left >= right or top >= bottom:
        return
    # Inside and outside change, along a row, where the row of centres crosses an edge.
    changes = np.zeros((bottom - top, right - left + 1), np.uint8)
    for rows, columns in _crossings(starts, ends, shape):
        np.bitwise_xor.at(changes, (rows - top, np.clip(columns, left, right) - left), 1)
    inside = np.bitwise_xor.accumulate(changes, axis=1)[:, :-1].astype(bool)
    yield (slice(top, bottom), slice(left, right)), inside


def _first_centres(corner: np.ndarray, shape: tuple[int, int]) -> tuple[int, int]:
    """Return column and row of the first pixels whose centre is not before a corner (x, y)."""
    column, row = np.clip(np.ceil(corner - 0.5), 0, shape[::-1]).astype(int)
    return int(column), int(row)


def _crossings(
    starts: np.ndarray, ends: np.ndarray, shape: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield where rows of centres cross edges: the rows, and the first columns beyond."""
    height, width = shape
    y = np.stack([starts[:, 1], ends[:, 1]])
    first, last = np.clip(np.ceil(np.sort(y, axis=0) - 0.5), 0, height).astype(np.int64)
    n_rows = last - first
    n_before = np.cumsum(n_rows)
    groups = np.searchsorted(n_before, np.arange(0, n_before[-1], _CROSSINGS), side="right")
    for begin, end in zip(groups, [*groups[1:], len(starts)], strict=True):
        edges = np.repeat(np.arange(begin, end), n_rows[begin:end])
        rows = (
            np.arange(len(edges))
            + (first - n_before + n_rows)[edges]
            - (n_before[begin] - n_rows[begin])
        )
        (x0, y0), (x1, y1) = starts[edges].T, ends[edges].T
        x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        yield rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)


def _decode(runs: np.ndarray, shape: tuple[int, int]) -> Iterator[tuple[Place, np.ndarray]]:
    """Yield the columns that runs cover, if there are some, and which pixels are inside."""
    height, _ = shape
    changes = np.cumsum(runs)
    changes = changes[: len(changes) // 2 * 2].reshape(-1, 2)  # begin and end of each run inside
    changes = changes[changes[:, 0] < changes[:, 1]]
    if not len(changes):
        return
    left, right = changes[0, 0] // height, -(-changes[-1, 1] // height)
    flips = np.zeros((right - left) * height + 1, np.uint8)
    np.bitwise_xor.at(flips, changes.ravel() - left * height, 1)
    inside = np.bitwise_xor.accumulate(flips)[:-1].reshape(right - left, height).T.astype(bool)
    yield (slice(0, height), slice(int(left), int(right))), inside
