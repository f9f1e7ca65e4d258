"""Segment images of any size by a threshold, tile by tile."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.metadata import SPATIAL
from denoiseg_flow.data.files.tiles import boxes, pieces, within
from denoiseg_flow.data.store import open_image, read_metadata
from denoiseg_flow.methods.thresholding import (
    BINS,
    Levels,
    add_channels,
    find_foreground,
    find_levels,
    height_of_objects,
    reach,
)
from denoiseg_flow.models.model import ThresholdModel
from denoiseg_flow.models.tiled_instances import TILES, TiledInstances

PIECE = 2**22  # pixels measured at once


def segment_file(
    model: ThresholdModel, source: Path, folder: Path, tile: int | None = None
) -> None:
    """Segment one tif file and write ``labels/<name>``, uint16 or uint32.

    The threshold is that of the whole image, which is read three times: for the range of its grey
    levels, for their histogram, and for the objects. Memory is bounded by the tiles and the number
    of objects.

    Parameters
    ----------
    tile
        Largest side in pixels of the kept part of a tile; by default that of
        :data:`tiled_instances.TILES`.
    """
    image, layout = open_image(source), model.layout
    shape, segmenter = image.shape[1:], model.method.segmenter
    assert segmenter is not None
    levels = measure_levels(image, model.scales)
    instances = TiledInstances(shape, "watershed")
    sides = [min(side, tile or side) for side in TILES[len(shape)]]
    halo = reach(segmenter, len(shape), layout.z_step)
    for kept, seen in boxes(shape, sides, halo):
        grey = add_channels(image[:, *seen], model.scales)
        release(image)
        height = height_of_objects(
            find_foreground(grey, levels, segmenter, layout.z_step), layout.z_step
        )
        instances.add_height(kept, height[within(kept, seen)])
    instances.write(folder / "labels" / source.name, read_metadata(source).only(SPATIAL))


def measure_levels(image: np.ndarray, scales: Sequence[float]) -> Levels:
    """Return the levels of an image (channel, [z,] y, x), which may be memory-mapped."""

    def parts() -> Iterator[np.ndarray]:
        for place in pieces(image.shape[1:], PIECE):
            yield add_channels(image[:, *place], scales)
            release(image)

    ends = [(part.min(), part.max()) for part in parts()]
    low, high = float(min(ends)[0]), float(max(end for _, end in ends))
    counts = np.zeros(BINS, np.int64)
    if low < high:
        for part in parts():
            counts += np.histogram(part, BINS, (low, high))[0]
    return find_levels(counts, low, high)
