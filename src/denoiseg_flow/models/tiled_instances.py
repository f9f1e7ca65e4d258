"""Segment instances in images of any size, from maps added tile by tile."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from denoiseg_flow.data.files.memory_maps import release, temporary_map
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.tiles import Place, boxes, spans, within
from denoiseg_flow.data.store import BAND_ROWS, planes_of, write_bands
from denoiseg_flow.methods.classes import FOREGROUND
from denoiseg_flow.methods.instances import (
    PROMINENCE,
    find_seeds,
    grow_seeds,
    height_of,
    label_type,
    watershed_mask,
)
from denoiseg_flow.models.tiled_components import TiledComponents

# Sides in pixels of the tiles in which seeds are found and grow, in 2D (y, x) and 3D (z, y, x).
TILES = {2: (1024, 1024), 3: (64, 256, 256)}

# Width in pixels of the surroundings that a tile reads in addition. It limits the rim of an object
# around its seed and the distance of peaks in an object, but not the size of objects: seeds are
# numbered for the whole image and fill most of their objects.
MARGINS = {2: (128, 128), 3: (32, 64, 64)}


class TiledInstances:
    """Collect the maps of an image and write its labels.

    The labels are those of :func:`instances.label_instances`, numbered in raster order of the
    first pixels of components or seeds. Data that grow with the image, 4 bytes per pixel for
    components and 8 for the watershed, are in temporary files.

    Parameters
    ----------
    shape
        Shape of the whole image, ([z,] y, x).
    instances
        See :func:`instances.label_instances`.
    threshold
        Threshold of the foreground probability, for :meth:`add`.
    prominence
        See :func:`instances.find_seeds`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        instances: str,
        threshold: float = 0.0,
        prominence: float = PROMINENCE,
    ) -> None:
        self._shape = shape
        self._prominence = prominence
        self._tile, self._margin = TILES[len(shape)], MARGINS[len(shape)]
        self._threshold = threshold
        self._components = TiledComponents(shape)
        self._instances = instances
        # For a watershed: minus infinity outside the mask.
        self._height = None if instances == "components" else temporary_map(shape, np.float32)

    def add(self, place: Place, maps: np.ndarray) -> None:
        """Add the maps (3 or 4, [z,] y, x) of a tile; together, tiles cover each pixel once."""
        foreground = maps[FOREGROUND]
        if self._height is None:
            self._components.add(place, foreground > self._threshold)
            return
        height = height_of(maps, self._instances)
        mask = watershed_mask(foreground, height, self._threshold)
        self.add_height(place, np.where(mask, height, -np.inf))

    def add_height(self, place: Place, height: np.ndarray) -> None:
        """Add the landscape ([z,] y, x) of a watershed: minus infinity where no object may grow."""
        assert self._height is not None
        self._height[place] = height
        release(self._height)

    def write(self, path: Path, metadata: Metadata) -> None:
        """Write the labels as a compressed tif; uint16 if it suffices, otherwise uint32."""
        if self._height is not None:
            self._find_seeds(self._height)
        count = self._components.merge()
        dtype = label_type(count)
        write_bands(path, self._bands(dtype), self._shape, dtype, count, metadata)

    def _find_seeds(self, height: np.memmap) -> None:
        for kept, seen in boxes(self._shape, self._tile, self._margin):
            seeds = find_seeds(height[seen], self._prominence)
            release(height)
            self._components.add(kept, seeds[within(kept, seen)])

    def _bands(self, dtype: type[np.unsignedinteger]) -> Iterator[np.ndarray]:
        """Yield the labels in bands of rows, from top to bottom and plane by plane."""
        first, *others = self._shape
        for along, seen_along in spans(first, self._tile[0], self._margin[0]):
            # As wide as the image, and in 3D possibly larger than memory.
            slab = temporary_map((along.stop - along.start, *others), dtype)
            for kept, seen in boxes(others, self._tile[1:], self._margin[1:]):
                slab[:, *kept] = self._labels((along, *kept), (seen_along, *seen))
                release(slab)
            for plane in planes_of(slab):
                for top in range(0, len(plane), BAND_ROWS):
                    yield plane[top : top + BAND_ROWS]
                release(slab)

    def _labels(self, kept: Place, seen: Place) -> np.ndarray:
        if self._height is None:
            return self._components.read(kept)
        seeds, height = self._components.read(seen), self._height[seen]
        labels = grow_seeds(height, seeds, height > -np.inf)
        release(self._height)
        return labels[within(kept, seen)]
