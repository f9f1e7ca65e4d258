"""Add synthetic noise at the levels defined in the config.

A noise level is a mapping with a ``kind``, the parameters of that kind and, except for "none", a
``seed``. Noisy values are neither clipped nor rounded. Training, validation and test images all
get noise, as in DenoiSeg (Buchholz, Prakash et al. 2020). For the papers behind each kind, see
``docs/explanation/methods.md``.
"""

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from denoiseg_flow.data.files.tiles import PIECE, Readable, pieces
from denoiseg_flow.data.layout import PreparedData, image_file
from denoiseg_flow.data.store import open_image, read_metadata, write_image
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.seeds import generator

Step = tuple[Callable[..., np.ndarray], tuple[str, ...]]
"""A function that adds noise to a float32 image, and the names of its parameters."""


def _gaussian(image: np.ndarray, rng: np.random.Generator, *, sigma: float) -> np.ndarray:
    return image + np.float32(sigma) * rng.standard_normal(image.shape, np.float32)


def _gaussian_factor(image: np.ndarray, rng: np.random.Generator, *, factor: float) -> np.ndarray:
    return _gaussian(image, rng, sigma=factor * float(np.ptp(image)))


def _poisson(image: np.ndarray, rng: np.random.Generator, *, photons: float) -> np.ndarray:
    return (rng.poisson(photons * image) / photons).astype(np.float32)


def _bernoulli(image: np.ndarray, rng: np.random.Generator, *, dropped: float) -> np.ndarray:
    return np.where(rng.random(image.shape, np.float32) < dropped, np.float32(0), image)


def _salt_and_pepper(image: np.ndarray, rng: np.random.Generator, *, flipped: float) -> np.ndarray:
    draw = rng.random(image.shape, np.float32)
    pepper = np.where(draw < flipped, image.min(), image)
    return np.where(draw < flipped / 2, image.max(), pepper)


def _structured(
    image: np.ndarray, rng: np.random.Generator, *, sigma: float, length: int, axis: str
) -> np.ndarray:
    # Draw white noise beyond the image; padding would make the noise weaker at the border.
    *above, height, width = image.shape
    if axis == "x":
        white = rng.standard_normal((*above, height, width + length - 1), np.float32)
        boxes = sum(white[..., first : first + width] for first in range(length))
    else:
        white = rng.standard_normal((*above, height + length - 1, width), np.float32)
        boxes = sum(white[..., first : first + height, :] for first in range(length))
    return image + np.float32(sigma / np.sqrt(length)) * boxes


_GAUSSIAN: Step = (_gaussian, ("sigma",))
_POISSON: Step = (_poisson, ("photons",))
_BERNOULLI: Step = (_bernoulli, ("dropped",))

# Kind of noise -> steps applied in this order; no two steps of a kind share a parameter.
KINDS: dict[str, tuple[Step, ...]] = {
    "none": (),
    "gaussian": (_GAUSSIAN,),
    "gaussian_factor": ((_gaussian_factor, ("factor",)),),
    "poisson": (_POISSON,),
    "poisson_gaussian": (_POISSON, _GAUSSIAN),
    "bernoulli": (_BERNOULLI,),
    "salt_and_pepper": ((_salt_and_pepper, ("flipped",)),),
    "gaussian_bernoulli": (_GAUSSIAN, _BERNOULLI),
    "poisson_gaussian_bernoulli": (_POISSON, _GAUSSIAN, _BERNOULLI),
    "structured": ((_structured, ("sigma", "length", "axis")),),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < np.inf


# Parameter -> (function that accepts valid values, description of these).
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "sigma": (_is_positive, "a number above 0"),
    "factor": (_is_positive, "a number above 0"),
    "photons": (_is_positive, "a number above 0"),
    "dropped": (
        lambda value: _is_number(value) and 0 < value < 1,
        "a fraction above 0 and below 1",
    ),
    "flipped": (
        lambda value: _is_number(value) and 0 < value <= 1,
        "a fraction above 0 and at most 1",
    ),
    "length": (
        lambda value: isinstance(value, Integral) and int(value) >= 2,
        "a whole number of pixels, at least 2",
    ),
    "axis": (lambda value: value in ("x", "y"), "x or y"),
}


def check_level(name: str, level: Mapping[str, Any]) -> None:
    """Raise InputError unless ``level``, the config's entry ``noises.<name>``, is complete.

    The seed is not checked, because the config has a default for it.
    """
    key = f"config key noises.{name}"
    kind = level.get("kind")
    if kind not in KINDS:
        raise InputError(f"unknown kind of noise {kind!r}; available: {', '.join(KINDS)} ({key})")
    parameters = _parameters(kind)
    unknown = sorted(set(level) - {"kind", "seed", *parameters})
    if unknown:
        takes = ", ".join(parameters) or "no parameters"
        raise InputError(
            f"{unknown[0]} is not a parameter of {kind} noise, which takes {takes} ({key})"
        )
    for parameter in parameters:
        is_good, wanted = _RULES[parameter]
        if not is_good(level.get(parameter)):
            given = f"is {level[parameter]!r}" if parameter in level else "is missing"
            raise InputError(f"{parameter} of {kind} noise {given}, but must be {wanted} ({key})")


def _parameters(kind: str) -> list[str]:
    return [parameter for _, parameters in KINDS[kind] for parameter in parameters]


def describe(level: Mapping[str, Any]) -> str:
    """Return a description for tables, such as "gaussian, sigma 20"; without the seed."""
    kind = level["kind"]
    return ", ".join([kind, *(f"{name} {level[name]}" for name in _parameters(kind))])


def standard_deviation(level: Mapping[str, Any]) -> float | None:
    """Return the standard deviation of the noise in grey levels; None if unknown or not uniform."""
    return float(level["sigma"]) if level["kind"] in ("gaussian", "structured") else None


def draws_noise(level: Mapping[str, Any]) -> bool:
    """Return whether the level adds any noise."""
    return bool(KINDS[level["kind"]])


def counts_photons(level: Mapping[str, Any]) -> bool:
    """Return whether the level includes Poisson noise, which needs images without negatives."""
    return _POISSON in KINDS[level["kind"]]


def check_photons(
    image: Readable, level: Mapping[str, Any], name: str, image_name: str | Path
) -> None:
    """Raise InputError if Poisson noise is to be added to an image with negative values.

    Parameters
    ----------
    image
        Any shape and real pixel type.
    level, name
        See :func:`noisy_copy`.
    image_name
        Name of the image in the message.
    """
    if not counts_photons(level) or image.dtype.kind == "u":
        return
    low = min(image[place].min() for place in pieces(image.shape, PIECE))
    if low < 0:
        raise InputError(
            f"image {image_name} holds negative values (minimum {low:g}), for which "
            f"{level['kind']} noise is undefined; add a constant to all images, or choose another "
            f"kind of noise (config key noises.{name})"
        )


def noisy_copy(
    image: np.ndarray, level: Mapping[str, Any], name: str, image_name: str, copy: int = 0
) -> np.ndarray:
    """Return an independent noisy copy of an image.

    The noise depends only on the seed in ``level``, on both names and on ``copy``; adding an image
    to a dataset leaves the noise of the others unchanged.

    Parameters
    ----------
    image
        Any shape and real pixel type, in grey levels.
    level
        The config's entry ``noises.<name>``, such as
        ``{"kind": "gaussian", "sigma": 20, "seed": 0}``.
    name
        Name of the level in the config.
    image_name
        Name of the image in its dataset.
    copy
        Number of the copy; every method reads copy 0.

    Returns
    -------
    numpy.ndarray
        Same shape, float32, neither clipped nor rounded.

    Raises
    ------
    InputError
        If the level is incomplete, or adds Poisson noise to an image with negative values.
    """
    check_level(name, level)
    check_photons(image, level, name, image_name)
    # Copies were added later; the noise of copy 0 must stay as it was.
    purpose = ("noise", name, image_name, *(("copy", copy) if copy else ()))
    rng = generator(level["seed"], *purpose)
    noisy = np.array(image, dtype=np.float32)
    for model, parameters in KINDS[level["kind"]]:
        noisy = model(noisy, rng, **{parameter: level[parameter] for parameter in parameters})
    return noisy


def add_noise_to_folder(
    prepared: PreparedData, level: Mapping[str, Any], name: str, folder: Path
) -> None:
    """Write a noisy copy of every image of a prepared dataset; see :func:`noisy_copy`.

    Parameters
    ----------
    level
        The config's entry ``noises.<name>``, with its seed.
    name
        Name of the level in the config.
    folder
        Folder for the noisy images, ``{image}.tif``, float32.

    Raises
    ------
    InputError
        Like :func:`noisy_copy`; the message names the file.
    """
    check_level(name, level)
    for image_name in prepared.read_manifest()["image"]:
        path = prepared.image(image_name)
        image = open_image(path)
        check_photons(image, level, name, path)
        noisy = noisy_copy(image, level, name, image_name)
        write_image(image_file(folder, image_name), noisy, read_metadata(path))
    checksums.write(folder)
