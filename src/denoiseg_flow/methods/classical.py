"""Classical denoisers, and the calibration of their parameter without clean images.

All accept a real image (y, x) or volume (z, y, x) with any range of grey levels, compute in float64
without clipping or stretching, and return float32. Results scale with the intensity unit of the
image. Distances are in pixels along every axis. Parameters "in sigma" are multiples of the standard
deviation of the noise.

raw: the image itself.
median, donut_median: over a disk or ball of ``radius`` pixels, for donut_median without its
    centre; at the border, over the part inside the image. For an even number of pixels, the mean
    of the two middle ones.
gaussian: ``scipy.ndimage.gaussian_filter(image, sigma, mode="mirror")``, ``sigma`` in pixels.
nlm: non-local means (Buades et al. 2005), ``h`` in sigma: ``denoise_nl_means(image, patch_size=7,
    patch_distance=11, h=h * noise_sigma, fast_mode=True, sigma=noise_sigma)`` of scikit-image; in
    volumes patches of 5 at distances up to 4, because more would take minutes.
wavelet: soft BayesShrink (Chang et al. 2000), ``threshold`` in sigma:
    ``denoise_wavelet(image, threshold * noise_sigma, wavelet="db2")`` of scikit-image.
tv: total variation (Chambolle 2004), ``weight`` in sigma:
    ``denoise_tv_chambolle(image, weight * noise_sigma, eps=1e-5)`` of scikit-image.
bm3d: ``bm3d.bm3d(image, strength * noise_sigma)`` (Maekinen et al. 2020), image mapped to [0, 1],
    on one thread; ``strength`` in sigma. An optional package, free for non-commercial use only. For
    planes only.

Calibration follows Noise2Self (Batson & Royer 2019, arXiv:1901.11365): if the noise has mean 0 and
is independent between pixels, the J-invariant loss is the true error plus the variance of the
noise, so both have the same minimum. This does not hold for the plain loss of a method that reads
the pixel itself. Masking pixels also changes such a method, see :func:`masked_pixel_loss`.
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import scipy
import skimage as ski
from numpy.typing import ArrayLike, NDArray

from denoiseg_flow.data.store import planes_of
from denoiseg_flow.errors import InputError

WINDOWS = 2**24  # pixels of neighbourhoods processed at once

#: The fix if :func:`is_available` is False.
HOW_TO_INSTALL_BM3D = "install it with `python -m pip install -c constraints.txt -e '.[bm3d]'`"


def _subgrids(shape: tuple[int, ...], count: int) -> list[Any]:
    """Return indices of ``count`` of the 16 grids of every fourth pixel.

    The first four share no row and no column. In volumes they are shifted from z-slice to z-slice,
    so the voxels above and below a voxel of a grid belong to other grids.
    """
    starts = [(k % 4, (k % 4 * 2 + k % 4 // 2 + k // 4) % 4) for k in range(count)]
    if len(shape) == 2:
        return [np.s_[y::4, x::4] for y, x in starts]
    z, y, x = np.ogrid[tuple(slice(0, length) for length in shape)]
    return [((y + z) % 4 == row) & ((x + 2 * z) % 4 == column) for row, column in starts]


def _median(
    image: np.ndarray, radius: float, noise_sigma: float, centre: bool = True
) -> np.ndarray:
    if radius != int(radius):
        raise ValueError(f"the radius of a median must be a whole number, not {radius}")
    radius = int(radius)
    shape = ski.morphology.disk if image.ndim == 2 else ski.morphology.ball
    footprint = shape(radius, dtype=bool)
    footprint[(radius,) * image.ndim] = centre
    # The median of scipy takes the upper of two middle values, which would brighten noise.
    ranks = {(footprint.sum() - 1) // 2, footprint.sum() // 2}
    result = np.mean(
        [scipy.ndimage.rank_filter(image, k, footprint=footprint) for k in ranks], axis=0
    )
    # With padding by reflection, pixels near the border would be part of their own donuts.
    frame = np.ones(image.shape, bool)
    frame[(slice(radius, -radius),) * image.ndim] = False
    padded = np.pad(image, radius, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, footprint.shape)
    places = np.argwhere(frame)
    for part in np.array_split(places, 1 + len(places) * footprint.sum() // WINDOWS):
        index = tuple(part.T)
        result[index] = np.nanmedian(windows[index][:, footprint], axis=1)
    return result


def _gaussian(image: np.ndarray, sigma: float, noise_sigma: float) -> np.ndarray:
    return scipy.ndimage.gaussian_filter(image, sigma, mode="mirror")


_NLM_PATCHES = {2: (7, 11), 3: (5, 4)}  # size and distance


def _nlm(image: np.ndarray, h: float, noise_sigma: float) -> np.ndarray:
    sizes = _NLM_PATCHES[image.ndim]
    patches = {"patch_size": sizes[0], "patch_distance": sizes[1], "fast_mode": True}
    return ski.restoration.denoise_nl_means(image, h=h * noise_sigma, sigma=noise_sigma, **patches)


def _wavelet(image: np.ndarray, threshold: float, noise_sigma: float) -> np.ndarray:
    return ski.restoration.denoise_wavelet(image, threshold * noise_sigma, wavelet="db2")


def _tv(image: np.ndarray, weight: float, noise_sigma: float) -> np.ndarray:
    # The default eps of 2e-4 stops early at some weights only, which would bias comparisons.
    return ski.restoration.denoise_tv_chambolle(image, weight * noise_sigma, eps=1e-5)


def _bm3d(image: np.ndarray, strength: float, noise_sigma: float) -> np.ndarray:
    import bm3d

    profile = bm3d.BM3DProfile()
    profile.num_threads = 1  # the sums of several threads differ from run to run
    low, extent = image.min(), np.ptp(image)  # its thresholds and float32 precision need [0, 1]
    scaled, sigma = (image - low) / extent, strength * noise_sigma / extent
    return low + extent * bm3d.bm3d(scaled, sigma, profile)


@dataclass(frozen=True)
class Denoiser:
    """A classical denoiser; for its parameter, see the docstring of the module."""

    function: Callable[..., np.ndarray]  # of image, parameter and noise_sigma
    parameter: str | None = None
    candidates: tuple[float, ...] = ()
    needs_noise: bool = False
    j_invariant: bool = False  # no pixel of the output depends on the same pixel of the input


_RADII = (1, 2, 3, 4, 5, 6, 7)
DENOISERS: dict[str, Denoiser] = {
    "raw": Denoiser(lambda image, *_: image),
    "median": Denoiser(_median, "radius", _RADII),
    "donut_median": Denoiser(partial(_median, centre=False), "radius", _RADII, j_invariant=True),
    "gaussian": Denoiser(_gaussian, "sigma", (0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4)),
    "nlm": Denoiser(_nlm, "h", (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1, 1.2, 1.5), needs_noise=True),
    "wavelet": Denoiser(_wavelet, "threshold", (0.8, 0.9, 1, 1.1, 1.25, 1.5, 2), needs_noise=True),
    "tv": Denoiser(_tv, "weight", (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4), needs_noise=True),
    "bm3d": Denoiser(_bm3d, "strength", (0.8, 0.9, 1, 1.2, 1.5, 2), needs_noise=True),
}


def is_available(name: str) -> bool:
    """Return whether the package for a denoiser is installed; only bm3d is optional."""
    return name != "bm3d" or importlib.util.find_spec("bm3d") is not None


def candidates(name: str) -> tuple[float, ...]:
    """Return the default candidates for the parameter of a denoiser, ascending; none for raw."""
    return _denoiser(name).candidates


def noise_level(image: ArrayLike) -> float:
    """Return the standard deviation of the noise of an image ([z,] y, x), in grey levels.

    Estimated from the finest diagonal wavelet coefficients (Donoho & Johnstone 1994; estimate_sigma
    of scikit-image) for white Gaussian noise; fine texture increases the estimate. 0 if it does not
    exceed the rounding errors of a float32 image, as for constant images. For volumes the mean over
    z-slices, because volumes with few z-slices are mostly border along z.
    """
    image = _as_float(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN where all coefficients are 0
        found = [ski.restoration.estimate_sigma(plane) for plane in planes_of(image)]
        sigma = float(np.nanmean(found))
    return sigma if sigma > np.finfo(np.float32).eps * np.abs(image).max() else 0.0


def denoise(
    name: str, image: ArrayLike, parameter: float | None, noise_sigma: float | None = None
) -> NDArray[np.float32]:
    """Denoise an image with a classical denoiser; return float32 of the same shape and scale.

    Parameters
    ----------
    name, parameter
        A key of :data:`DENOISERS` and the value of its parameter, above 0; ignored by raw.
    image, noise_sigma
        Image ([z,] y, x) and standard deviation of its noise in grey levels, by default
        :func:`noise_level`. Constant images are returned unchanged, and so are all images if the
        denoiser needs the noise level and it is 0.

    Raises
    ------
    InputError, ValueError
        If the denoiser is unknown, its package is missing, or it is for planes only; if a number is
        out of range.
    """
    denoiser, image = _denoiser(name), _as_float(image)
    if not is_available(name):
        raise InputError(f"the denoiser {name} needs a package of that name; {HOW_TO_INSTALL_BM3D}")
    if denoiser.parameter and not (parameter is not None and 0 < parameter < np.inf):
        raise ValueError(f"{denoiser.parameter} of {name} must be above 0, not {parameter}")
    if denoiser.needs_noise:
        noise_sigma = noise_level(image) if noise_sigma is None else noise_sigma
        if not 0 <= noise_sigma < np.inf:
            raise ValueError(f"noise_sigma must be at least 0, not {noise_sigma}")
    if np.ptp(image) == 0 or (denoiser.needs_noise and noise_sigma == 0):
        return image.astype(np.float32)
    if image.ndim == 3 and len(image) == 1:  # some would drop the axis
        return denoise(name, image[0], parameter, noise_sigma)[None]
    if name == "bm3d" and image.ndim == 3:
        raise InputError("bm3d is for planes only; write 'planes: true' in the method's config")
    # Libraries have absolute constants, such as a minimum variance. A power of two is exact.
    unit = 2.0 ** np.floor(np.log2(np.ptp(image)))
    sigma = None if noise_sigma is None else noise_sigma / unit
    return (unit * denoiser.function(image / unit, parameter, sigma)).astype(np.float32)


def denoise_planes(
    name: str, image: ArrayLike, parameter: float | None, noise_sigma: float | None = None
) -> NDArray[np.float32]:
    """Denoise each z-slice of a volume (z, y, x) separately, see :func:`denoise`."""
    image = _as_float(image)
    denoised = [denoise(name, plane, parameter, noise_sigma) for plane in planes_of(image)]
    return np.reshape(denoised, image.shape)


def masked_pixel_loss(
    function: Callable[[np.ndarray], np.ndarray],
    image: ArrayLike,
    subgrids: int = 4,
    masked: Sequence[Any] | None = None,
) -> float:
    """Estimate the error of a denoiser plus the variance of the noise, without a clean image.

    This is the J-invariant loss of Noise2Self for any ``function`` from noisy to denoised image.
    The pixels of a sub-grid (every fourth in y and x) are masked: first replaced by the mean of
    their nearest neighbours, then by the prediction of the denoiser from these means. The loss is
    the squared difference between a second prediction and the noisy image at these pixels. When
    applied, however, the function reads all pixels. The squared change due to reading them is
    added, because it is noise as far as it is independent of the error; otherwise the loss would
    judge a different function than the one applied.

    Parameters
    ----------
    image
        ([z,] y, x).
    subgrids
        Number of the 16 sub-grids to use, always the same ones.
    masked
        Masks or indices of the pixels to mask instead; no two pixels of a mask may touch.

    Returns
    -------
    float
        Mean, in squared grey levels.
    """
    image = _as_float(image)
    beside = scipy.ndimage.generate_binary_structure(image.ndim, 1).astype(float)
    beside[(1,) * image.ndim] = 0
    # Reflected along an axis of length 1, a pixel would be its own neighbour.
    beside = beside[tuple(slice(size == 1, 2 + (size > 1)) for size in image.shape)]
    means = scipy.ndimage.convolve(image, beside / max(beside.sum(), 1), mode="mirror")
    seeing = np.asarray(function(image), np.float64)
    losses = []
    for place in _subgrids(image.shape, subgrids) if masked is None else masked:
        shown, predicted = image.copy(), means[place]
        for _ in range(2):
            shown[place] = predicted
            predicted = function(shown)[place]
        losses.append(np.ravel((predicted - image[place]) ** 2 + (seeing[place] - predicted) ** 2))
    return float(np.mean(np.concatenate(losses)))


def calibrate(
    name: str,
    values: Sequence[float],
    images: Iterable[ArrayLike],
    noise_sigma: float | None = None,
    clean: Iterable[ArrayLike] | None = None,
    subgrids: int = 4,
) -> pd.DataFrame:
    """Return the losses of a denoiser on noisy images for several values of its parameter.

    The J-invariant loss is :func:`masked_pixel_loss`, or the plain loss if the denoiser itself is
    J-invariant.

    Parameters
    ----------
    name, values, noise_sigma
        See :func:`denoise`, except raw; by default the noise is estimated from each image.
    images, clean
        Noisy images ([z,] y, x), at least one; the clean images in the same order, if known.
    subgrids
        See :func:`masked_pixel_loss`.

    Returns
    -------
    pandas.DataFrame
        One row per value: ``parameter`` (its name), ``value``, and as means over the images in
        squared grey levels: ``loss_self_supervised`` (J-invariant), ``loss_plain``, the mean of
        (f(x) - x)^2, and ``mse``, the mean of (f(x) - clean)^2 (NaN without clean images).

    Raises
    ------
    InputError, ValueError
        Like :func:`denoise`; ValueError also for raw, without images, or if the clean images do not
        match.
    """
    denoiser = _denoiser(name)
    if denoiser.parameter is None:
        raise ValueError(f"{name} has no parameter to calibrate")
    losses: list[list[tuple[float, float, float]]] = []  # axes: image, value, loss
    pairs = zip(images, clean, strict=True) if clean is not None else ((x, x) for x in images)
    for image, truth in pairs:
        image, truth = _as_float(image), _as_float(truth)
        sigma = noise_level(image) if noise_sigma is None else noise_sigma
        losses.append([])
        for value in values:
            function = partial(denoise, name, parameter=value, noise_sigma=sigma)
            denoised = function(image)
            plain = float(np.mean((denoised - image) ** 2))
            mse = float(np.mean((denoised - truth) ** 2))
            loss = plain if denoiser.j_invariant else masked_pixel_loss(function, image, subgrids)
            losses[-1].append((loss, plain, mse))
    if not losses:
        raise ValueError("no image to calibrate on")
    table = pd.DataFrame({"parameter": denoiser.parameter, "value": list(values)})
    table[["loss_self_supervised", "loss_plain", "mse"]] = np.mean(losses, axis=0)
    return table if clean is not None else table.assign(mse=np.nan)


def best_value(table: pd.DataFrame) -> float:
    """Return the value with the lowest ``loss_self_supervised`` in a table of :func:`calibrate`."""
    return float(table.loc[table["loss_self_supervised"].idxmin(), "value"])


def _denoiser(name: str) -> Denoiser:
    if name not in DENOISERS:
        raise InputError(f"unknown denoiser {name!r}; available: {', '.join(DENOISERS)}")
    return DENOISERS[name]


def _as_float(image: ArrayLike) -> NDArray[np.float64]:
    image = np.asarray(image, np.float64)
    if image.ndim not in (2, 3) or not image.size or not np.isfinite(image).all():
        raise ValueError(f"not a finite image (y, x) or (z, y, x): shape {image.shape}")
    return image
