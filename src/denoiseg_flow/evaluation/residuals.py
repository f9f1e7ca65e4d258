"""What a denoiser took away from an image: noise, or more than that?

The *residual*, noisy minus denoised, should look like noise, and like nothing else. In every window
of an image it is asked

- whether the residual is correlated from pixel to pixel more than the noise is: then it holds
  structure of the image, which was *smoothed* away;
- whether the residual is the negative of what the denoised image shows there: then that structure
  is *invented*, for it is not in the noisy image. Where only noise was removed, both are
  uncorrelated, and the test statistic is a standard normal.

Both count only if what was smoothed or invented is strong enough to matter. Structure much fainter
than the noise cannot be told from nothing, by this or by any other means.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from denoiseg_flow.data.store import open_plane
from denoiseg_flow.evaluation.noise_structure import (
    NoiseStructure,
    correlation_along,
    flattest,
    without_surface,
)

WINDOW = 32  # pixels a side

# By how many standard deviations of chance a window must differ from a good one: less than one in
# 100,000 good ones does.
CHANCE = 4.5
# Of Gaussian noise, less than one in a hundred residuals is more than so many times as large as the
# median. The same holds for what is beyond: it is taken for that large.
FEW_BEYOND = 4.0
# What was invented: at least this share of the structure of the denoised image there.
ABSENT = 0.5
# What counts: structure of this root mean square, as a share of the range of grey levels.
RELEVANT = 0.02


@dataclass(frozen=True)
class Residual:
    """What a denoiser took away from an image, judged.

    Attributes
    ----------
    image
        (y, x): noisy minus denoised.
    smoothed, invented
        (rows, columns) of windows, bool: where the residual holds structure of the image, and
        where the denoised image shows what the noisy one does not.
    removed
        Standard deviation of the residual over that of the noisy image, both in its flattest parts,
        where all that varies is noise, of whatever distribution and correlation. NaN if nothing
        varies there, or if what varies may be structure as well, for it is correlated in both
        directions.
    along_x, along_y
        Correlation of the residual with itself at distances of 1, 2, ... ``REACH`` pixels, NaN
        beyond the size of the image.
    """

    image: NDArray[np.float64]
    smoothed: NDArray[np.bool_]
    invented: NDArray[np.bool_]
    removed: float
    along_x: NDArray[np.float64]
    along_y: NDArray[np.float64]


def load_residual(name: str, noisy: Path, denoised: Path, noise: NoiseStructure) -> Residual:
    """Read an image and what became of it, see :func:`judge_residual`."""
    before, after = (np.asarray(open_plane(folder / f"{name}.tif")) for folder in (noisy, denoised))
    return judge_residual(before, after, noise)


def judge_residual(noisy: np.ndarray, denoised: np.ndarray, noise: NoiseStructure) -> Residual:
    """Judge what a denoiser took away from an image.

    Parameters
    ----------
    noisy, denoised
        (y, x), on the same scale of grey levels.
    noise
        Of the dataset: noise that is correlated itself may be removed as it is.
    """
    residual = noisy.astype(np.float64) - denoised
    rest, shown = (_windows(image) for image in (residual, denoised.astype(np.float64)))
    # A pixel that the noise replaced tells the mean there, but nothing of what is beside it.
    limit = FEW_BEYOND * np.median(np.abs(rest), axis=(2, 3), keepdims=True)
    usual = np.clip(rest, -limit, limit)
    usual -= usual.mean(axis=(2, 3), keepdims=True)
    floor = np.finfo(np.float64).tiny  # of what does not vary at all
    variance = (rest**2).mean(axis=(2, 3)) + floor  # of the residual in each window
    structure = (shown**2).mean(axis=(2, 3)) + floor
    covariance = (rest * shown).mean(axis=(2, 3))
    low, high = np.percentile(noisy, (1, 99.8))
    relevant = (RELEVANT * (high - low)) ** 2

    along = np.nan_to_num([noise.along_x, noise.along_y])
    # Pixels of correlated noise say less than as many independent ones (Bartlett's formula).
    n_independent = rest.shape[2] * rest.shape[3] / (1 + 2 * (along**2).sum())
    usual_variance = (usual**2).mean(axis=(2, 3)) + floor
    neighbours = (_beside(usual, axis=3) + _beside(usual, axis=2)) / 2 / usual_variance
    beyond_noise = neighbours - max(along[:, 0].mean(), 0)
    by_chance = CHANCE / np.sqrt(2 * n_independent)
    absent = -covariance / structure
    unlikely = -covariance / (np.sqrt(variance / n_independent) * np.sqrt(structure))
    spread = residual.std()
    unit = (residual - residual.mean()) / (spread if spread > 0 else np.nan)
    return Residual(
        residual,
        smoothed=(beyond_noise > by_chance) & (beyond_noise * usual_variance > relevant),
        invented=(absent > ABSENT) & (unlikely > CHANCE) & (structure > relevant),
        removed=_removed(noisy, residual, noise),
        along_x=correlation_along(unit.T),
        along_y=correlation_along(unit),
    )


def _removed(noisy: np.ndarray, residual: np.ndarray, noise: NoiseStructure) -> float:
    """Return how much of the noise was removed, see :class:`Residual`."""
    if noise.kind not in ("independent", "x", "y"):
        return float("nan")
    before, taken = (
        sum((without_surface(image[place]) ** 2).sum() for place in flattest(noisy))
        for image in (noisy, residual)
    )
    return float(np.sqrt(taken / before)) if before else float("nan")


def _windows(image: np.ndarray) -> np.ndarray:
    """Return (rows, columns, y, x), the windows of an image, each of mean 0; the rest is left out.

    An image that is smaller than a window is one.
    """
    sides = [min(WINDOW, size) for size in image.shape]
    counts = [size // side for size, side in zip(image.shape, sides, strict=True)]
    height, width = (count * side for count, side in zip(counts, sides, strict=True))
    cut = image[:height, :width].reshape(counts[0], sides[0], counts[1], sides[1]).swapaxes(1, 2)
    return cut - cut.mean(axis=(2, 3), keepdims=True)


def _beside(windows: np.ndarray, axis: int) -> np.ndarray:
    """Return the covariance of neighbours along an axis of each window; 0 if there are none."""
    size = windows.shape[axis]
    if size < 2:
        return np.zeros(windows.shape[:2])
    one, other = (np.take(windows, range(start, start + size - 1), axis) for start in (0, 1))
    return (one * other).mean(axis=(2, 3))
