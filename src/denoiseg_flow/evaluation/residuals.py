"""Detect oversmoothing and hallucination in the residual of a denoised image.

The *residual*, noisy minus denoised, should look like pure noise. Every window of an image is
tested twice:

- If neighbouring pixels of the residual are more correlated than those of the noise, the residual
  contains structure of the image: the window is *oversmoothed*.
- If the residual is the negative of the structure in the denoised image, this structure is not in
  the noisy image: it is *hallucinated*. If only noise was removed, the two are uncorrelated, and
  the test statistic is standard normal.

Both count only if the structure is strong enough to matter. Structure that is much fainter than the
noise is undetectable.
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

WINDOW = 32  # pixels per side

# Threshold of both tests in standard deviations: less than one in 100,000 good windows exceeds it.
CHANCE = 4.5
# Residuals are clipped at this multiple of their median magnitude; less than one in a hundred
# residuals of Gaussian noise is larger.
FEW_BEYOND = 4.0
# Hallucinated: at least this share of the structure of the denoised image in the window.
ABSENT = 0.5
# Structure counts from this root mean square on, as a share of the range of grey levels.
RELEVANT = 0.02


@dataclass(frozen=True)
class Residual:
    """The residual of a denoised image, with the results of the tests.

    Attributes
    ----------
    image
        (y, x): noisy minus denoised.
    smoothed, invented
        (rows, columns) of windows, bool: oversmoothed (the residual contains structure of the
        image), and hallucinated (the denoised image shows structure that the noisy image lacks).
    removed
        Standard deviation of the residual divided by that of the noisy image, both in the flattest
        parts of the noisy image, where all variation is noise. NaN if these parts are constant, or
        if their variation may be structure, because it is correlated in both directions.
    along_x, along_y
        Autocorrelation of the residual at distances of 1, 2, ... ``REACH`` pixels; NaN beyond the
        size of the image.
    """

    image: NDArray[np.float64]
    smoothed: NDArray[np.bool_]
    invented: NDArray[np.bool_]
    removed: float
    along_x: NDArray[np.float64]
    along_y: NDArray[np.float64]


def load_residual(noisy: Path, denoised: Path, noise: NoiseStructure) -> Residual:
    """Read the files of a noisy and a denoised image, and return :func:`judge_residual` of them."""
    before, after = (np.asarray(open_plane(file)) for file in (noisy, denoised))
    return judge_residual(before, after, noise)


def judge_residual(noisy: np.ndarray, denoised: np.ndarray, noise: NoiseStructure) -> Residual:
    """Test the residual of a denoised image for oversmoothing and hallucination.

    Parameters
    ----------
    noisy, denoised
        (y, x), on the same scale of grey levels.
    noise
        Correlation of the noise of the dataset; the residual may be as correlated as the noise.
    """
    residual = noisy.astype(np.float64) - denoised
    rest, shown = (_windows(image) for image in (residual, denoised.astype(np.float64)))
    # Clip outliers: impulse noise says nothing about the neighbours of a pixel.
    limit = FEW_BEYOND * np.median(np.abs(rest), axis=(2, 3), keepdims=True)
    usual = np.clip(rest, -limit, limit)
    usual -= usual.mean(axis=(2, 3), keepdims=True)
    floor = np.finfo(np.float64).tiny  # avoids a division by zero in constant windows
    variance = (rest**2).mean(axis=(2, 3)) + floor  # of the residual in each window
    structure = (shown**2).mean(axis=(2, 3)) + floor
    covariance = (rest * shown).mean(axis=(2, 3))
    low, high = np.percentile(noisy, (1, 99.8))
    relevant = (RELEVANT * (high - low)) ** 2

    along = np.nan_to_num([noise.along_x, noise.along_y])
    # The effective number of independent pixels is smaller in correlated noise (Bartlett).
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
    """Return the share of removed noise, see :class:`Residual`."""
    if noise.kind not in ("independent", "x", "y"):
        return float("nan")
    before, taken = (
        sum((without_surface(image[place]) ** 2).sum() for place in flattest(noisy))
        for image in (noisy, residual)
    )
    return float(np.sqrt(taken / before)) if before else float("nan")


def _windows(image: np.ndarray) -> np.ndarray:
    """Return the windows of an image, (rows, columns, y, x), each with mean 0.

    Pixels beyond the last whole window are left out. An image that is smaller than a window is a
    window itself.
    """
    sides = [min(WINDOW, size) for size in image.shape]
    counts = [size // side for size, side in zip(image.shape, sides, strict=True)]
    height, width = (count * side for count, side in zip(counts, sides, strict=True))
    cut = image[:height, :width].reshape(counts[0], sides[0], counts[1], sides[1]).swapaxes(1, 2)
    return cut - cut.mean(axis=(2, 3), keepdims=True)


def _beside(windows: np.ndarray, axis: int) -> np.ndarray:
    """Return the covariance of neighbours along an axis of each window; 0 without neighbours."""
    size = windows.shape[axis]
    if size < 2:
        return np.zeros(windows.shape[:2])
    one, other = (np.take(windows, range(start, start + size - 1), axis) for start in (0, 1))
    return (one * other).mean(axis=(2, 3))
