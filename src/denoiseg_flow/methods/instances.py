"""Segment instances from the output of a network.

There are three ways to segment the probabilities of an image (the key ``instances`` of a recipe):

components
    Connected regions of p(foreground) > threshold, as in the reference implementation of DenoiSeg
    (Buchholz, Prakash et al. 2020). The threshold is also chosen like there: the highest of the
    best among 0.10, 0.15, ... 1.00.
watershed
    Seeds are the peaks of p(foreground) - p(border): the inner parts of objects, which are separate
    even if the objects touch and their foreground is connected. Only peaks with enough
    prominence count, so an object with an uneven interior keeps a single seed. Objects grow
    from their seeds, most certain pixels first, until they meet or reach the end of
    p(foreground) > threshold. Foreground without a seed is discarded. If several thresholds are
    equally good, the middle of the widest range is chosen as the most robust on other images.
distance
    The same, with the relative distance from the background (:func:`classes.relative_distance`),
    which the network predicts as well, in place of p(foreground) - p(border).

Regions are connected by the sides (faces) of pixels (voxels), not by their corners.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import scipy
import skimage as ski

from denoiseg_flow.methods.classes import BORDER, DISTANCE, FOREGROUND

# All pixels of a seed lie above this level of p(foreground) - p(border), or of the distance. The
# less a network has learned, the flatter is the distance that it predicts.
SEED_LEVELS = {"watershed": 0.3, "distance": 0.1}

# The peak of a seed rises by the prominence above the level of seeds and above the saddle to any
# higher peak. Heights are rounded down to multiples of STEP. With a lower prominence, noise divides
# objects; with a higher one, objects that touch remain one. PROMINENCE is the default.
PROMINENCE = 0.3
STEP = 0.05
HIGHEST = 6.0  # as much as int8 can count in steps; higher peaks count as this high


def label_type(count: int) -> type[np.unsignedinteger]:
    """Return the pixel type for ``count`` labels: uint16 if it suffices, otherwise uint32."""
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32


def label_foreground(foreground: np.ndarray) -> np.ndarray:
    """Return the connected components of the foreground.

    Parameters
    ----------
    foreground
        ([z,] y, x), bool: pixels whose foreground probability is above the threshold.

    Returns
    -------
    Labels ([z,] y, x), 0 background, in raster order; uint16 if it suffices, otherwise uint32.
    """
    labels, count = scipy.ndimage.label(foreground)
    return labels.astype(label_type(count))


def height_of(maps: np.ndarray, instances: str) -> np.ndarray:
    """Return the landscape of the watershed, high inside objects and low between and around them.

    Heights are above the level of seeds, which is 0.

    Parameters
    ----------
    maps
        See :func:`label_instances`.
    instances
        ``"watershed"`` or ``"distance"``.
    """
    height = maps[DISTANCE] if instances == "distance" else maps[FOREGROUND] - maps[BORDER]
    return height - SEED_LEVELS[instances]


def find_seeds(height: np.ndarray, prominence: float = PROMINENCE) -> np.ndarray:
    """Return a mask ([z,] y, x) of the seeds, bool; different seeds do not touch.

    A seed is the connected region around a peak, down to ``prominence`` below it, unless it
    includes a higher peak. These are the h-maxima of mathematical morphology (Soille 2003), for
    heights rounded down to multiples of ``STEP``.

    Parameters
    ----------
    height
        ([z,] y, x), see :func:`height_of`; may be minus infinity.
    prominence
        A multiple of ``STEP``.
    """
    steps = np.floor(np.clip(height, -1, HIGHEST) / STEP).astype(np.int8)
    rise = round(prominence / STEP)
    seeds = np.zeros(height.shape, bool)
    for level in range(int(steps.max(initial=0)) - rise + 1):
        regions, count = scipy.ndimage.label(steps >= level)
        peaks = np.zeros(1 + count, bool)
        peaks[regions[steps >= level + rise]] = True
        peaks[regions[steps > level + rise]] = False  # seeds of a higher level lie inside
        peaks[0] = False
        seeds |= peaks[regions]
    return seeds


def watershed_mask(foreground: np.ndarray, height: np.ndarray, threshold: float) -> np.ndarray:
    """Return a mask of pixels that objects may fill, bool; it always includes all seeds."""
    return (foreground > threshold) | (height >= 0)


def grow_seeds(height: np.ndarray, seeds: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Grow objects from their seeds by a watershed, within a mask.

    Parameters
    ----------
    height
        ([z,] y, x), see :func:`height_of`; any value except NaN outside the mask.
    seeds
        ([z,] y, x), int32: 0, or the number of the seed. Different seeds do not touch.
    mask
        ([z,] y, x), bool: pixels that may be filled, including all seeds.

    Returns
    -------
    Labels ([z,] y, x), int32, with the numbers of the seeds.
    """
    # Flooding starts at the rims of the seeds; their inner pixels would only lengthen its queue.
    inside = scipy.ndimage.binary_erosion(seeds > 0)
    grown = ski.segmentation.watershed(-height, seeds, mask=mask & ~inside)
    return np.where(inside, seeds, grown)


def label_instances(
    maps: np.ndarray,
    thresholds: Iterable[float],
    instances: str,
    prominence: float = PROMINENCE,
) -> Iterator[np.ndarray]:
    """Yield the labels ([z,] y, x) of an image at each of the thresholds.

    :class:`tiled_instances.TiledInstances` gives the same labels for images larger than memory.

    Parameters
    ----------
    maps
        (3, [z,] y, x), float32, class probabilities; for ``"distance"`` (4, [z,] y, x) with the
        relative distance.
    instances
        ``"components"``, ``"watershed"`` or ``"distance"``, see the module.
    prominence
        See :func:`find_seeds`.
    """
    foreground = maps[FOREGROUND]
    if instances == "components":
        for threshold in thresholds:
            yield label_foreground(foreground > threshold)
        return
    height = height_of(maps, instances)
    seeds, _ = scipy.ndimage.label(find_seeds(height, prominence))
    for threshold in thresholds:
        yield grow_seeds(height, seeds, watershed_mask(foreground, height, threshold))
