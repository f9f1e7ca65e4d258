"""Measure whether the noise is independent between pixels, in the flattest parts of noisy images.

Methods that learn from masked pixels (Noise2Void, Noise2Self, calibration) assume that the noise of
a pixel is independent of its neighbours. Line-by-line camera readout, scanning microscopes and any
resampling of images introduce correlations.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from denoiseg_flow.data.store import centre_crop, open_plane

CENTRE = 2048  # pixels per side: of larger images, only the centre is measured
SOME_IMAGES = 32  # images, spread over a dataset, are enough
PATCH = 16  # side of a patch in pixels
REACH = 8  # largest distance at which the correlation is measured, in pixels
FLATTEST = 0.1  # share of the patches of an image that counts as flat

# A correlation of nearest neighbours counts if it exceeds three of its standard errors and this
# value: along one axis more than along the other, and along both axes.
NOTABLE_ALONG_ONE = 0.06
NOTABLE_ALONG_BOTH = 0.1
# The mask ends at this correlation: below it, neighbours predict almost nothing of a pixel.
NEGLIGIBLE = 0.05


@dataclass(frozen=True)
class NoiseStructure:
    """Autocorrelation of the noise along rows (x) and columns (y).

    Attributes
    ----------
    along_x, along_y
        Correlation at distances of 1, 2, ... :data:`REACH` pixels; NaN beyond the image size.
    kind
        ``"independent"``; ``"x"`` or ``"y"`` if the noise is mainly correlated along this axis;
        ``"both"``; or ``"unknown"`` if all flat parts of the images are constant.
    """

    along_x: NDArray[np.float64]
    along_y: NDArray[np.float64]
    kind: str

    @property
    def struct_mask(self) -> list[list[int]] | None:
        """A mask of the correlated neighbours, for noise along x or y; None otherwise."""
        if self.kind not in ("x", "y"):
            return None
        own, other = self.along_x, self.along_y
        if self.kind == "y":
            own, other = other, own
        correlated = own - np.maximum(other, 0) > NEGLIGIBLE
        reach = REACH if correlated.all() else int(np.argmin(correlated))
        mask = [1] * (2 * reach + 1)
        return [mask] if self.kind == "x" else [[value] for value in mask]


def noise_of_files(files: Sequence[Path]) -> NoiseStructure:
    """Return :func:`noise_structure` of a dataset, measured at the centres of some images."""
    some = files[:: max(1, len(files) // SOME_IMAGES)]
    return noise_structure(centre_crop(open_plane(file), CENTRE) for file in some)


def noise_structure(images: Iterable[ArrayLike]) -> NoiseStructure:
    """Return the correlation of the noise in images (y, x) of one kind.

    It is measured in the flattest patches of each image: those with the least variance around a
    fitted curved surface, which stands for the signal. The differences between patches give the
    standard errors.
    """
    found = np.array([each for image in images for each in _correlations(np.asarray(image))])
    if not len(found):  # (patch, axis, distance)
        nothing = np.full(REACH, np.nan)
        return NoiseStructure(nothing, nothing, "unknown")
    along_y, along_x = found.mean(axis=0)
    y, x = found[:, 0, 0], found[:, 1, 0]  # of nearest neighbours, patch by patch
    # Remaining structure of the image is equally correlated in all directions.
    if _exceeds(x - max(y.mean(), 0), NOTABLE_ALONG_ONE):
        kind = "x"
    elif _exceeds(y - max(x.mean(), 0), NOTABLE_ALONG_ONE):
        kind = "y"
    else:
        kind = "both" if _exceeds((x + y) / 2, NOTABLE_ALONG_BOTH) else "independent"
    return NoiseStructure(along_x, along_y, kind)


def _exceeds(values: np.ndarray, limit: float) -> bool:
    """Return whether a mean exceeds a limit and three of its standard errors."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return bool(values.mean() > max(limit, 3 * error))


def _correlations(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the correlation (2, REACH) along y and x of each of the flattest patches."""
    for place in flattest(image):
        residual = without_surface(image[place])
        residual /= residual.std()
        yield np.array([correlation_along(residual), correlation_along(residual.T)])


def flattest(image: np.ndarray) -> list[tuple[slice, slice]]:
    """Return the slices of the flattest patches of an image (y, x) that are not constant."""
    places = list(_patches(image.shape))
    variances = np.array([without_surface(image[place]).var() for place in places])
    scale = np.finfo(np.float32).eps * float(np.abs(image).max())
    varied = np.flatnonzero(variances > scale**2)
    count = max(1, round(FLATTEST * len(places)))
    order = varied[np.argsort(variances[varied], kind="stable")][:count]
    return [places[index] for index in order]


def _patches(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yield the slices of square patches of an image, or of the whole image if it is smaller."""
    for top in range(0, max(1, shape[0] - PATCH + 1), PATCH):
        for left in range(0, max(1, shape[1] - PATCH + 1), PATCH):
            yield slice(top, top + PATCH), slice(left, left + PATCH)


def without_surface(patch: np.ndarray) -> NDArray[np.float64]:
    """Return a patch (y, x) minus the best-fitting polynomial of degree two."""
    patch = patch.astype(np.float64)
    y, x = (np.linspace(-1, 1, size) for size in patch.shape)
    y, x = np.meshgrid(y, x, indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1)
    weights, *_ = np.linalg.lstsq(basis.T, patch.ravel(), rcond=None)
    return patch - (weights @ basis).reshape(patch.shape)


def correlation_along(residual: np.ndarray) -> NDArray[np.float64]:
    """Return the correlation along the first axis of a residual (y, x) with mean 0 and variance 1.

    The distances are 1, 2, ... :data:`REACH` pixels; NaN beyond the size of the residual.
    """
    return np.array(
        [
            np.mean(residual[lag:] * residual[:-lag]) if lag < len(residual) else np.nan
            for lag in range(1, REACH + 1)
        ]
    )
