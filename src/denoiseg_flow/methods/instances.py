"""Instance labels from class probabilities, and the choice of the threshold between them.

Two ways lead from the probabilities of an image to its instances (the key ``instances`` of a
recipe):

components
    Connected regions of p(foreground) > threshold. As in the reference implementation of DenoiSeg
    (Buchholz, Prakash et al. 2020), and so is the choice of the threshold: among 0.10, 0.15, ...
    1.00, the highest of the best.
watershed
    Seeds are the peaks of p(foreground) - p(border): the inner parts of objects, apart even where
    two objects touch and their foreground is connected. A peak counts if one must descend by
    more than ``PROMINENCE`` from it to reach a higher one, so that an object whose inside is uneven
    keeps a single seed. From there the objects grow, the most certain pixels first, until they meet
    each other or the end of p(foreground) > threshold. Foreground without a seed is dropped. Where
    several thresholds are equally good, the one in the middle of the widest range is chosen: it
    is the least likely to fail on other images.

Regions are connected by the sides of pixels, not by their corners. In volumes, they are regions of
voxels.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import scipy
import skimage as ski

from denoiseg_flow.methods.classes import BORDER, FOREGROUND

# Seeds of the watershed, in units of p(foreground) - p(border): pixels of seeds lie above this
# level, their peaks rise by the prominence above it and above the saddles to higher peaks, and
# heights are rounded down to steps.
SEED_LEVEL = 0.3
PROMINENCE = 0.3
STEP = 0.05


def label_type(count: int) -> type[np.unsignedinteger]:
    """Return the pixel type of ``count`` labels: uint16 while they fit, else uint32."""
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32


def label_foreground(foreground: np.ndarray) -> np.ndarray:
    """Return the connected components of the foreground.

    Parameters
    ----------
    foreground
        ([z,] y, x), bool: where the probability of the foreground class is above the threshold.

    Returns
    -------
    Labels ([z,] y, x), 0 background, in raster order; uint16 while they fit, else uint32.
    """
    labels, count = scipy.ndimage.label(foreground)
    return labels.astype(label_type(count))


def height_above_border(probabilities: np.ndarray) -> np.ndarray:
    """Return p(foreground) - p(border), the landscape of the watershed, of (3, [z,] y, x).

    It is high inside of objects, and low between them and around them.
    """
    return probabilities[FOREGROUND] - probabilities[BORDER]


def find_seeds(height: np.ndarray) -> np.ndarray:
    """Return the pixels ([z,] y, x) of the seeds, bool; different seeds do not touch.

    A seed is what stays connected around a peak down to ``PROMINENCE`` below it, if no higher peak
    is part of it by then: the h-maxima of mathematical morphology (Soille 2003), of heights that
    are rounded down to a multiple of ``STEP``.

    Parameters
    ----------
    height
        ([z,] y, x), see :func:`height_above_border`; may be minus infinity.
    """
    steps = np.floor((np.maximum(height, -1) - SEED_LEVEL) / STEP).astype(np.int8)
    rise = round(PROMINENCE / STEP)
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
    """Return where objects may grow, bool: no threshold is so high that it cuts seeds."""
    return (foreground > threshold) | (height >= SEED_LEVEL)


def grow_seeds(height: np.ndarray, seeds: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Grow objects from their seeds, highest pixels first, until they meet or the mask ends.

    Parameters
    ----------
    height
        ([z,] y, x), see :func:`height_above_border`; anything but NaN outside of the mask.
    seeds
        ([z,] y, x), int32: 0, or the number of the seed. Different seeds do not touch.
    mask
        ([z,] y, x), bool: what may be filled, the seeds included.

    Returns
    -------
    Labels ([z,] y, x), int32, with the numbers of the seeds.
    """
    # Flooding begins at the rims. What lies inside of a seed would only make its queue longer.
    inside = scipy.ndimage.binary_erosion(seeds > 0)
    grown = ski.segmentation.watershed(-height, seeds, mask=mask & ~inside)
    return np.where(inside, seeds, grown)


def label_instances(
    probabilities: np.ndarray, thresholds: Iterable[float], instances: str
) -> Iterator[np.ndarray]:
    """Yield the labels ([z,] y, x) of an image in memory at each of the thresholds.

    Large images are labelled to the same effect by :class:`tiled_instances.TiledInstances`.

    Parameters
    ----------
    probabilities
        (3, [z,] y, x), float32.
    instances
        ``"components"`` or ``"watershed"``, see the module.
    """
    foreground = probabilities[FOREGROUND]
    if instances == "components":
        for threshold in thresholds:
            yield label_foreground(foreground > threshold)
        return
    height = height_above_border(probabilities)
    seeds, _ = scipy.ndimage.label(find_seeds(height))
    for threshold in thresholds:
        yield grow_seeds(height, seeds, watershed_mask(foreground, height, threshold))
