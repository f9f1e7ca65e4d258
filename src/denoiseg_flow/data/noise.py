"""Add synthetic noise at the levels that the config names.

A level is a mapping with a ``kind``, the parameters of that kind and, where noise is drawn, a
``seed``. Noise is neither clipped nor rounded, and goes onto training, validation and test images
alike, as in DenoiSeg (Buchholz, Prakash et al. 2020). The papers behind the kinds stand in
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
"""A model, which turns a float32 image into a noisy one, and the names of its parameters."""


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
    # More white noise than pixels: with padding instead, the noise would be weaker at the border.
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

# Kind of noise -> the steps that are taken one after the other; no two share a parameter.
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


# Parameter -> (whether a value is good, what it must be).
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "sigma": (_is_positive, "a number above 0"),
    "factor": (_is_positive, "a number above 0"),
    "photons": (_is_positive, "a number above 0"),
    "dropped": (lambda value: _is_number(value) and 0 < value < 1, "a share above 0 and below 1"),
    "flipped": (lambda value: _is_number(value) and 0 < value <= 1, "a share above 0, at most 1"),
    "length": (
        lambda value: isinstance(value, Integral) and value >= 2,
        "a whole number of pixels, at least 2",
    ),
    "axis": (lambda value: value in ("x", "y"), "x or y"),
}


def check_level(name: str, level: Mapping[str, Any]) -> None:
    """Raise InputError unless ``level``, the config's entry ``noises.<name>``, is complete.

    Of the seed, which the config has a default for, nothing is asked.
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
            f"{unknown[0]} is no parameter of {kind} noise, which takes {takes} ({key})"
        )
    for parameter in parameters:
        is_good, wanted = _RULES[parameter]
        if not is_good(level.get(parameter)):
            given = f"is {level[parameter]!r}" if parameter in level else "is missing"
            raise InputError(f"{parameter} of {kind} noise {given}, but must be {wanted} ({key})")


def _parameters(kind: str) -> list[str]:
    return [parameter for _, parameters in KINDS[kind] for parameter in parameters]


def describe(level: Mapping[str, Any]) -> str:
    """Return a level in words, such as "gaussian, sigma 20", for tables; without its seed."""
    kind = level["kind"]
    return ", ".join([kind, *(f"{name} {level[name]}" for name in _parameters(kind))])


def standard_deviation(level: Mapping[str, Any]) -> float | None:
    """Return the standard deviation of the noise in grey levels; None unless known and uniform."""
    return float(level["sigma"]) if level["kind"] in ("gaussian", "structured") else None


def draws_noise(level: Mapping[str, Any]) -> bool:
    """Return whether the level changes images at all."""
    return bool(KINDS[level["kind"]])


def counts_photons(level: Mapping[str, Any]) -> bool:
    """Return whether the noise is drawn from counts of photons, which are never negative."""
    return _POISSON in KINDS[level["kind"]]


def check_photons(
    image: Readable, level: Mapping[str, Any], name: str, image_name: str | Path
) -> None:
    """Raise InputError if photons are to be drawn from an image with negative values.

    Parameters
    ----------
    image
        Any shape and real pixel type.
    level, name
        See :func:`noisy_copy`.
    image_name
        How the message calls the image.
    """
    if not counts_photons(level) or image.dtype.kind == "u":
        return
    low = min(image[place].min() for place in pieces(image.shape, PIECE))
    if low < 0:
        raise InputError(
            f"image {image_name} holds negative values, down to {low:g}, of which no "
            f"{level['kind']} noise can be drawn: add a constant to all images, or choose another "
            f"kind of noise (config key noises.{name})"
        )


def noisy_copy(
    image: np.ndarray, level: Mapping[str, Any], name: str, image_name: str, copy: int = 0
) -> np.ndarray:
    """Return one of any number of independent noisy copies of an image.

    The noise depends on the seed in ``level``, on both names and on ``copy`` only: adding an image
    to a dataset changes no other.

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
        Number of the copy; 0 is the one that every method reads.

    Returns
    -------
    numpy.ndarray
        float32, same shape, neither clipped nor rounded.

    Raises
    ------
    InputError
        If the level is incomplete, or draws photons from an image with negative values.
    """
    check_level(name, level)
    check_photons(image, level, name, image_name)
    # Copy 0 is older than the others, and its noise must remain what it was.
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
        As :func:`noisy_copy`; the message names the file.
    """
    check_level(name, level)
    for image_name in prepared.read_manifest()["image"]:
        path = prepared.image(image_name)
        image = open_image(path)
        check_photons(image, level, name, path)
        noisy = noisy_copy(image, level, name, image_name)
        write_image(image_file(folder, image_name), noisy, read_metadata(path))
    checksums.write(folder)
