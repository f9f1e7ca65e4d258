"""Is the noise independent from pixel to pixel? Read off the flattest parts of noisy images.

What is learned from hidden pixels (Noise2Void, Noise2Self, calibration) takes for granted that
their noise cannot be foreseen from their neighbours. Cameras that read out line by line, scanning
microscopes, and any resampling of the images make it foreseeable.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from denoiseg_flow.data.store import centre_crop, open_plane

CENTRE = 2048  # pixels a side: of larger images, noise is read off that part
SOME_IMAGES = 32  # spread over a dataset, are enough
PATCH = 16  # side of the patches that are looked at, in pixels
REACH = 8  # longest distance that correlation is measured at, in pixels
FLATTEST = 0.1  # share of the patches of an image that is taken for flat

# A correlation of nearest neighbours counts if it is larger than three of its standard errors, and
# than this: along one axis more than along the other, and along both.
NOTABLE_ALONG_ONE = 0.06
NOTABLE_ALONG_BOTH = 0.1
# Where a mask ends: beyond this correlation hardly anything of a pixel can be foreseen.
NEGLIGIBLE = 0.05


@dataclass(frozen=True)
class NoiseStructure:
    """Correlation of the noise with itself along the rows (x) and the columns (y).

    Attributes
    ----------
    along_x, along_y
        At distances of 1, 2, ... :data:`REACH` pixels; NaN beyond the size of the images.
    kind
        ``"independent"``; ``"x"`` or ``"y"``, if it is correlated in that direction above all;
        ``"both"``; or ``"unknown"``, if no part of the images varies, so that there is no noise to
        be seen.
    """

    along_x: NDArray[np.float64]
    along_y: NDArray[np.float64]
    kind: str

    @property
    def struct_mask(self) -> list[list[int]] | None:
        """The mask that hides what a pixel could be foreseen from, for noise along x or y."""
        if self.kind not in ("x", "y"):
            return None
        own, other = self.along_x, self.along_y
        if self.kind == "y":
            own, other = other, own
        foreseen = own - np.maximum(other, 0) > NEGLIGIBLE
        reach = REACH if foreseen.all() else int(np.argmin(foreseen))
        mask = [1] * (2 * reach + 1)
        return [mask] if self.kind == "x" else [[value] for value in mask]


def noise_of_files(files: Sequence[Path]) -> NoiseStructure:
    """Measure :func:`noise_structure` of a dataset, on the centres of some of its images."""
    some = files[:: max(1, len(files) // SOME_IMAGES)]
    return noise_structure(centre_crop(open_plane(file), CENTRE) for file in some)


def noise_structure(images: Iterable[ArrayLike]) -> NoiseStructure:
    """Measure the correlation of the noise of some images (y, x), all of one kind.

    Of each image, the flattest patches are taken: those with the least variance around a curved
    surface, which stands for what the image shows there. Errors are told by the differences
    between patches.
    """
    found = np.array([each for image in images for each in _correlations(np.asarray(image))])
    if not len(found):  # (patch, axis, distance)
        nothing = np.full(REACH, np.nan)
        return NoiseStructure(nothing, nothing, "unknown")
    along_y, along_x = found.mean(axis=0)
    y, x = found[:, 0, 0], found[:, 1, 0]  # of nearest neighbours, patch by patch
    # Structure of the image that is left over is correlated in all directions alike.
    if _exceeds(x - max(y.mean(), 0), NOTABLE_ALONG_ONE):
        kind = "x"
    elif _exceeds(y - max(x.mean(), 0), NOTABLE_ALONG_ONE):
        kind = "y"
    else:
        kind = "both" if _exceeds((x + y) / 2, NOTABLE_ALONG_BOTH) else "independent"
    return NoiseStructure(along_x, along_y, kind)


def _exceeds(values: np.ndarray, limit: float) -> bool:
    """Whether a mean lies above a limit, and above three of its standard errors."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return bool(values.mean() > max(limit, 3 * error))


def _correlations(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield (2, REACH), along y and x, of the flattest patches of an image."""
    for place in flattest(image):
        residual = without_surface(image[place])
        residual /= residual.std()
        yield np.array([correlation_along(residual), correlation_along(residual.T)])


def flattest(image: np.ndarray) -> list[tuple[slice, slice]]:
    """Return where the flattest patches of an image (y, x) lie; none where nothing varies."""
    places = list(_patches(image.shape))
    variances = np.array([without_surface(image[place]).var() for place in places])
    scale = np.finfo(np.float32).eps * float(np.abs(image).max())
    varied = np.flatnonzero(variances > scale**2)
    count = max(1, round(FLATTEST * len(places)))
    order = varied[np.argsort(variances[varied], kind="stable")][:count]
    return [places[index] for index in order]


def _patches(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yield the places of squares of an image, or the whole of it where it is smaller."""
    for top in range(0, max(1, shape[0] - PATCH + 1), PATCH):
        for left in range(0, max(1, shape[1] - PATCH + 1), PATCH):
            yield slice(top, top + PATCH), slice(left, left + PATCH)


def without_surface(patch: np.ndarray) -> NDArray[np.float64]:
    """Return a patch (y, x) minus the polynomial of second degree that fits it best."""
    patch = patch.astype(np.float64)
    y, x = (np.linspace(-1, 1, size) for size in patch.shape)
    y, x = np.meshgrid(y, x, indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1)
    weights, *_ = np.linalg.lstsq(basis.T, patch.ravel(), rcond=None)
    return patch - (weights @ basis).reshape(patch.shape)


def correlation_along(residual: np.ndarray) -> NDArray[np.float64]:
    """Return the correlation along the first axis of a residual (y, x) of mean 0 and variance 1.

    At distances of 1, 2, ... :data:`REACH` pixels; NaN beyond the size of the residual.
    """
    return np.array(
        [
            np.mean(residual[lag:] * residual[:-lag]) if lag < len(residual) else np.nan
            for lag in range(1, REACH + 1)
        ]
    )
