"""Instance labels of images of any size, from probabilities that arrive tile by tile."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from denoiseg_flow.data.images import write_strips
from denoiseg_flow.data.memory_maps import release, temporary_map
from denoiseg_flow.instances import (
    find_seeds,
    grow_seeds,
    height_above_border,
    label_type,
    watershed_mask,
)
from denoiseg_flow.labels import FOREGROUND
from denoiseg_flow.tiled_components import TiledComponents
from denoiseg_flow.tiles import spans, within

# Side of the tiles, in pixels, in which seeds are found and objects grow from them.
TILE = 1024

# How far, in pixels, a tile sees beyond its edges meanwhile. It limits the rim that an object may
# have around its seed and how far the peaks in an object may lie apart, not the object: seeds are
# numbered for the whole image, and fill most of their objects.
MARGIN = 128


class TiledInstances:
    """Collect the probabilities of an image and write its labels.

    The labels are those of :func:`instances.label_instances`, numbered in raster order of the
    first pixels of components or seeds. What grows with the image, 4 bytes per pixel for
    components and 8 for the watershed, lies in temporary files.

    Parameters
    ----------
    shape
        (y, x) of the whole image.
    instances
        ``"components"`` or ``"watershed"``.
    threshold
        Of the probability of the foreground.
    """

    def __init__(self, shape: tuple[int, int], instances: str, threshold: float) -> None:
        self._shape = shape
        self._threshold = threshold
        self._components = TiledComponents(shape)
        # For the watershed: p(foreground) - p(border), and minus infinity outside of the mask.
        self._height = temporary_map(shape, np.float32) if instances == "watershed" else None

    def add(self, place: tuple[slice, slice], probabilities: np.ndarray) -> None:
        """Add the probabilities (3, y, x) of a tile; together, tiles cover each pixel once."""
        foreground = probabilities[FOREGROUND]
        if self._height is None:
            self._components.add(place, foreground > self._threshold)
            return
        height = height_above_border(probabilities)
        mask = watershed_mask(foreground, height, self._threshold)
        self._height[place] = np.where(mask, height, -np.inf)
        release(self._height)

    def write(self, path: Path, pixel_size: tuple[float, float] | None) -> None:
        """Write the labels as a compressed tif, uint16 while they fit, else uint32."""
        if self._height is not None:
            self._find_seeds()
        dtype = label_type(self._components.merge())
        write_strips(path, self._bands(dtype), self._shape, dtype, pixel_size)

    def _find_seeds(self) -> None:
        for rows, seen_rows in spans(self._shape[0], TILE, MARGIN):
            for columns, seen_columns in spans(self._shape[1], TILE, MARGIN):
                seeds = find_seeds(self._height[seen_rows, seen_columns])
                release(self._height)
                kept = within(rows, seen_rows), within(columns, seen_columns)
                self._components.add((rows, columns), seeds[kept])

    def _bands(self, dtype: type[np.unsignedinteger]) -> Iterator[np.ndarray]:
        """Yield the labels from top to bottom, in pieces as wide as the image."""
        height, width = self._shape
        for rows, seen_rows in spans(height, TILE, MARGIN):
            band = np.empty((rows.stop - rows.start, width), dtype)
            for columns, seen_columns in spans(width, TILE, MARGIN):
                if self._height is None:
                    band[:, columns] = self._components.read((rows, columns))
                    continue
                seen = self._grow((seen_rows, seen_columns))
                band[:, columns] = seen[within(rows, seen_rows), within(columns, seen_columns)]
            yield band

    def _grow(self, place: tuple[slice, slice]) -> np.ndarray:
        seeds, height = self._components.read(place), self._height[place]
        labels = grow_seeds(height, seeds, height > -np.inf)
        release(self._height)
        return labels
