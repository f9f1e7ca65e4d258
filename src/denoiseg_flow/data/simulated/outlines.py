"""Outlines of simulated objects, in 2D and 3D.

An outline is an array of squared relative distances from the centre of an object: below 1 inside,
1 at the rim. All lengths are in widths of a pixel, whatever the distance of the z-slices.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FREQUENCIES = (2, 3, 4, 5)  # waves around the rim of an object


class Window(NamedTuple):
    """The part of an image around an object."""

    place: tuple[slice, ...]
    offsets: list[Array]
    """Distance of its pixels from the centre, for each axis, shaped to be broadcast."""


def window(shape: Sequence[int], spacing: Array, centre: Array, reach: float) -> Window:
    """Return the window within ``reach`` of a centre.

    Parameters
    ----------
    shape
        ([z,] y, x) of the image, in pixels.
    spacing
        Distance of neighbouring pixels along every axis, in widths of a pixel.
    centre, reach
        In widths of a pixel.
    """
    place = tuple(
        slice(max(0, int((c - reach) / step)), min(length, int((c + reach) / step) + 2))
        for c, step, length in zip(centre, spacing, shape, strict=True)
    )
    offsets = [
        index * step - c for index, step, c in zip(np.ogrid[place], spacing, centre, strict=True)
    ]
    return Window(place, offsets)


def direction(n_axes: int, rng: np.random.Generator) -> Array:
    """Draw a unit vector, (y, x) or (z, y, x), uniformly over all directions."""
    angle = rng.uniform(0, 2 * np.pi)
    in_plane = np.array([np.sin(angle), np.cos(angle)])
    if n_axes == 2:
        return in_plane
    rise = rng.uniform(-1, 1)
    return np.array([rise, *(np.sqrt(1 - rise**2) * in_plane)])


def stretched(y: Array, x: Array, flattening: float, tilt: float) -> tuple[Array, Array]:
    """Return coordinates along and across an ellipse in which it is a circle of equal area."""
    along = (x * np.cos(tilt) + y * np.sin(tilt)) * np.sqrt(flattening)
    across = (y * np.cos(tilt) - x * np.sin(tilt)) / np.sqrt(flattening)
    return along, across


def wavy(
    coordinates: Sequence[Array], radius: float, waves: float, rng: np.random.Generator
) -> Array:
    """Return the outline of a disk or ball with a smooth, wavy rim; higher frequencies are weaker.

    Parameters
    ----------
    coordinates
        (along, across) in 2D, (z, along, across) in 3D.
    radius
        In the same units.
    waves
        Standard deviation of the amplitude of the wave of lowest frequency, relative to the radius.
    """
    if len(coordinates) == 2:
        along, across = coordinates
        angle = np.arctan2(across, along)
        rim = np.ones_like(angle)
        for frequency in FREQUENCIES:
            amplitude = rng.normal(0, waves / (frequency - 1))
            rim += amplitude * np.cos(frequency * angle + rng.uniform(0, 2 * np.pi))
        return (along**2 + across**2) / (radius * rim) ** 2
    squared = sum(np.square(each) for each in coordinates)
    distance = np.sqrt(np.maximum(squared, 1e-12))  # the centre itself has no direction
    rim = np.ones_like(distance)
    for frequency in FREQUENCIES:  # waves over the surface, each in a random direction
        way = sum(d * c for d, c in zip(direction(3, rng), coordinates, strict=True)) / distance
        amplitude = rng.normal(0, waves / (frequency - 1))
        rim += amplitude * np.cos(frequency * way + rng.uniform(0, 2 * np.pi))
    return squared / (radius * rim) ** 2
