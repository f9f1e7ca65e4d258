"""Add synthetic noise at the levels that the config names.

A level is a mapping with a ``kind`` and the parameters of that kind. Noise is neither clipped nor
rounded, and goes onto training, validation and test images alike, as in DenoiSeg (Buchholz,
Prakash et al. 2020).
"""

from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from denoiseg_flow.data.images import open_image, write_image
from denoiseg_flow.data.planes import read_pixel_size
from denoiseg_flow.errors import InputError
from denoiseg_flow.seeds import generator

NoiseModel = Callable[..., np.ndarray]


def _none(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image


def _gaussian(image: np.ndarray, rng: np.random.Generator, *, sigma: float) -> np.ndarray:
    return image + np.float32(sigma) * rng.standard_normal(image.shape, np.float32)


# Kind of noise -> (model, its parameters, all of which must be positive numbers).
KINDS: dict[str, tuple[NoiseModel, tuple[str, ...]]] = {
    "none": (_none, ()),
    "gaussian": (_gaussian, ("sigma",)),
}


def check_level(name: str, level: Mapping[str, Any]) -> None:
    """Raise InputError unless ``level``, the config's entry ``noises.<name>``, is complete."""
    key = f"config key noises.{name}"
    kind = level.get("kind")
    if kind not in KINDS:
        raise InputError(f"unknown kind of noise {kind!r}; available: {', '.join(KINDS)} ({key})")
    parameters = KINDS[kind][1]
    unknown = sorted(set(level) - {"kind", *parameters})
    if unknown:
        takes = ", ".join(parameters) or "no parameters"
        raise InputError(
            f"{unknown[0]} is no parameter of {kind} noise, which takes {takes} ({key})"
        )
    for parameter in parameters:
        value = level.get(parameter)
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < np.inf:
            given = "is missing" if parameter not in level else f"is {value!r}"
            raise InputError(
                f"{parameter} of {kind} noise {given}, but must be a number above 0 ({key})"
            )


def add_noise(
    image: np.ndarray, level: Mapping[str, Any], rng: np.random.Generator, name: str = "?"
) -> np.ndarray:
    """Return a noisy float32 copy of ``image``.

    Parameters
    ----------
    image
        Any shape and real pixel type, in grey levels.
    level
        ``{"kind": "none"}`` or ``{"kind": "gaussian", "sigma": 20}``, sigma in grey levels.
    rng
        Where the noise is drawn from.
    name
        Name of the level, for error messages.

    Returns
    -------
    numpy.ndarray
        float32, same shape, neither clipped nor rounded.

    Raises
    ------
    InputError
        If the kind is unknown, or a parameter is missing or not above 0.
    """
    check_level(name, level)
    parameters = {key: value for key, value in level.items() if key != "kind"}
    model = KINDS[level["kind"]][0]
    return model(np.array(image, dtype=np.float32), rng, **parameters)


def add_noise_to_folder(
    prepared: str | Path,
    manifest: pd.DataFrame,
    level: Mapping[str, Any],
    name: str,
    seed: int,
    out: str | Path,
) -> None:
    """Write a noisy copy of every image of a prepared data set.

    The noise of an image depends on ``seed``, the name of the level and the name of the image
    only: adding an image to the data set changes no other.

    Parameters
    ----------
    prepared
        Folder with ``images/{image}.tif``.
    manifest
        Table with the column ``image``.
    level
        See :func:`add_noise`.
    name
        Name of the level in the config.
    seed
        Seed of the noise.
    out
        Folder for the noisy images, ``{image}.tif``, float32.
    """
    check_level(name, level)
    for image in manifest["image"]:
        path = Path(prepared, "images", f"{image}.tif")
        noisy = add_noise(open_image(path), level, generator(seed, "noise", name, image), name)
        write_image(Path(out, f"{image}.tif"), noisy, pixel_size=read_pixel_size(path))
