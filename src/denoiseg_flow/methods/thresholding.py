"""Segment bright objects by a threshold of the grey levels, without annotation or training.

In colour images, objects are dark: stained, on the bright ground of transmitted light.

otsu
    One threshold for the whole image: the one that maximises the variance between the two classes
    of pixels (Otsu 1979).
local_threshold
    A pixel belongs to an object if it is brighter than the mean of its surroundings (a Gaussian of
    ``SURROUNDINGS`` pixels), and lies at least ``FLOOR`` of the way from the mean of Otsu's
    background to that of Otsu's objects.

Any image has a threshold of Otsu: in an image of noise alone, it divides the noise into halves.
So the two classes must be ``SEPARATION`` standard deviations of the background apart. For Gaussian
noise of any strength this distance is 2.65, and 3.46 for grey levels that are evenly distributed,
as in an empty image with uneven light. If the classes are closer, objects are what exceeds the
median by ``SEPARATION + 1`` standard deviations, measured below the median: nothing in an image of
noise, and otherwise the objects that are too few to have a class of their own.

Touching objects are divided by a watershed of the distance to the background (Malpica et al. 1997).
Distances are compared by their ratio, so that small and large objects are treated alike: a peak of
the distance starts an object of its own if it is at least ``RADIUS`` pixels high and exceeds the
saddle to any higher peak by a factor of ``NECK``. Objects that are thinner than twice ``RADIUS``
are discarded.

The constants were chosen on validation images of the Data Science Bowl 2018, without noise and with
Gaussian noise of 20 grey levels, smoothed by the calibrated Gaussian filter.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from denoiseg_flow.methods.instances import PROMINENCE

SEPARATION = 4.0
FLOOR = 0.4
SURROUNDINGS = 25.0
RADIUS, NECK = 3.0, 1.3
FARTHEST = 64  # distances to the background, in pixels, count up to this one
BINS = 2**16  # of the histogram of an image
_TRUNCATED = 3.0  # radius of the Gaussian of the surroundings, in its standard deviations


@dataclass(frozen=True)
class Levels:
    """Grey levels of an image that divide it into background and objects.

    Attributes
    ----------
    threshold
        Pixels above it belong to objects; infinite without any object.
    floor
        The same for ``local_threshold``, together with the surroundings of the pixel.
    """

    threshold: float
    floor: float


NO_OBJECTS = Levels(math.inf, math.inf)


def add_channels(image: np.ndarray, scales: Iterable[float]) -> NDArray[np.float64]:
    """Return the image ([z,] y, x) to be thresholded: the sum of the channels over their scales.

    Parameters
    ----------
    image
        (channel, [z,] y, x).
    scales
        For each channel, the standard deviation of its grey levels in the images of the study;
        negative if objects are darker than the background.
    """
    pairs = zip(image, scales, strict=True)
    return np.sum([channel.astype(np.float64) / scale for channel, scale in pairs], axis=0)


def find_levels(counts: np.ndarray, low: float, high: float) -> Levels:
    """Return the levels of an image by its histogram.

    Parameters
    ----------
    counts
        Number of pixels in each bin; the bins divide the range evenly.
    low, high
        Range of the grey levels of the image.
    """
    if not low < high:
        return NO_OBJECTS
    centres = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)
    below, sums, squares = (np.cumsum(counts * centres**power) for power in (0, 1, 2))
    total, whole = below[-1], sums[-1]
    inside = np.flatnonzero((below > 0) & (below < total))
    means = sums[inside] / below[inside]
    others = (whole - sums[inside]) / (total - below[inside])
    variances = below[inside] * (total - below[inside]) * (others - means) ** 2
    best = np.flatnonzero(variances == variances.max())
    place = best[(len(best) - 1) // 2]  # in the middle of a gap without grey levels
    split, mean, other = inside[place], means[place], others[place]
    deviation = math.sqrt(max(squares[split] / below[split] - mean**2, 0))
    if other - mean >= SEPARATION * deviation:
        threshold = low + (split + 1) * (high - low) / len(counts)
        return Levels(threshold, mean + FLOOR * (other - mean))
    middle = int(np.searchsorted(below, total / 2))
    median = centres[middle]
    spread = np.average((centres[: middle + 1] - median) ** 2, weights=counts[: middle + 1])
    faint = median + (SEPARATION + 1) * math.sqrt(spread)
    return Levels(faint, faint)


def find_foreground(
    image: np.ndarray, levels: Levels, segmenter: str, z_step: float = 1.0
) -> NDArray[np.bool_]:
    """Return the mask ([z,] y, x) of the objects.

    Parameters
    ----------
    image
        ([z,] y, x), see :func:`add_channels`.
    segmenter
        ``"otsu"`` or ``"local_threshold"``.
    z_step
        Distance of z-slices in widths of a pixel.
    """
    if segmenter == "otsu":
        return image > levels.threshold
    sigma = [SURROUNDINGS / step for step in _steps(image.ndim, z_step)]
    around = scipy.ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=_TRUNCATED)
    return (image > levels.floor) & (image > around)


def height_of_objects(foreground: np.ndarray, z_step: float = 1.0) -> NDArray[np.float32]:
    """Return the landscape ([z,] y, x) of the watershed, in the units of :mod:`instances`.

    It is the logarithm of the distance to the background, so a factor of the distance is a
    difference in height; minus infinity in the background.
    """
    steps = _steps(foreground.ndim, z_step)
    distance = scipy.ndimage.distance_transform_edt(foreground, sampling=steps)
    unit = PROMINENCE / math.log(NECK)
    with np.errstate(divide="ignore"):
        height = unit * np.log(np.minimum(distance, FARTHEST) / RADIUS) + PROMINENCE
    return height.astype(np.float32)


def reach(segmenter: str, dimensions: int, z_step: float = 1.0) -> tuple[int, ...]:
    """Return the radius, along each axis, of the part of an image that decides about a pixel."""
    radius = FARTHEST + (segmenter == "local_threshold") * math.ceil(_TRUNCATED * SURROUNDINGS)
    return tuple(math.ceil((radius + 1) / step) for step in _steps(dimensions, z_step))


def _steps(dimensions: int, z_step: float) -> tuple[float, ...]:
    """Return the distance of pixels along each axis, in widths of a pixel."""
    return (z_step, 1.0, 1.0)[-dimensions:]
