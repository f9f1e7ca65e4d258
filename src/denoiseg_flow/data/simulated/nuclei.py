"""Simulate fluorescent nuclei in 2D or 3D, with their instance labels.

Nuclei vary in size, shape and brightness, have a chromatin-like texture, and touch in clusters; in
3D they also lie on top of each other. All lengths are in widths of a pixel whatever the distance of
the z-slices, so nuclei are as high as they are wide.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

SMALLEST = 20  # pixels or voxels; smaller fragments at the border are removed
N_PLACEMENTS = 30  # attempts to place a nucleus
GRAINS = (1.2, 3.0)  # standard deviations of the fine and the coarse chromatin


class _Canvas(NamedTuple):
    """Arrays of shape (y, x) or (z, y, x) that nuclei are drawn into."""

    spacing: np.ndarray
    """Distance of neighbouring pixels along every axis."""
    nearness: np.ndarray
    """Squared relative distance of a pixel from the centre of its nucleus, 1 at the rim."""
    labels: np.ndarray
    light: np.ndarray
    chromatin: np.ndarray


def draw(
    shape: tuple[int, ...], spacing: tuple[float, ...], n_nuclei: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the nuclei of one image.

    Parameters
    ----------
    shape
        (y, x) of a plane or (z, y, x) of a volume, in pixels.
    spacing
        Distance of neighbouring pixels along every axis, in widths of a pixel.
    n_nuclei
        Number of nuclei to draw; fewer are drawn if they do not fit.
    rng
        Random number generator.

    Returns
    -------
    light : numpy.ndarray
        Of the given shape, float64, grey levels above the background, not yet blurred by the
        optics.
    labels : numpy.ndarray
        Of the given shape, int32, numbered from 1. Every nucleus is one piece, connected by sides
        of its pixels; nuclei that touch have no gap between them.
    """
    steps = np.array(spacing)
    extent = steps * shape
    radius = rng.uniform(6.5, 10.5)  # each image is its own culture
    brightness = rng.uniform(45, 110)
    chromatin = _texture(shape, steps, rng)
    canvas = _Canvas(
        steps, np.full(shape, np.inf), np.zeros(shape, np.int32), np.zeros(shape), chromatin
    )
    placed = np.empty((0, len(shape) + 1))  # centres and, last, radii
    for _ in range(n_nuclei):
        own_radius = radius * np.exp(rng.normal(0, 0.18))
        centre = _find_place(extent, own_radius, placed, rng)
        if centre is None:
            continue
        placed = np.vstack([placed, [*centre, own_radius]])
        dim = rng.random() < 0.12
        level = rng.uniform(14, 35) if dim else brightness * np.exp(rng.normal(0, 0.3))
        contrast = rng.uniform(0.08, 0.22)
        _paint(canvas, centre, own_radius, len(placed), min(level, 170.0), contrast, rng)
    labels = _tidy(canvas.labels)
    canvas.light[labels == 0] = 0
    return canvas.light, labels


def _find_place(
    extent: np.ndarray, radius: float, placed: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Draw a centre that touches another nucleus or is apart from all; None if none is found."""
    centres, radii = placed[:, :-1], placed[:, -1]
    for _ in range(N_PLACEMENTS):
        touching = len(placed) > 0 and rng.random() < 0.45
        if touching:
            other = rng.integers(len(placed))
            direction = _direction(len(extent), rng)
            centre = centres[other] + 0.88 * (radius + radii[other]) * direction
        else:
            centre = rng.uniform(-0.3 * radius, extent + 0.3 * radius)
        if not np.all((-radius / 2 < centre) & (centre < extent + radius / 2)):
            continue
        apart = np.hypot.reduce(centres - centre, axis=1)
        if np.all(apart >= (0.87 if touching else 1.2) * (radius + radii)):
            return centre
    return None


def _direction(n_axes: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a unit vector, (y, x) or (z, y, x), uniformly over all directions."""
    angle = rng.uniform(0, 2 * np.pi)
    in_plane = np.array([np.sin(angle), np.cos(angle)])
    if n_axes == 2:
        return in_plane
    rise = rng.uniform(-1, 1)
    return np.array([rise, *(np.sqrt(1 - rise**2) * in_plane)])


def _paint(
    canvas: _Canvas,
    centre: np.ndarray,
    radius: float,
    label: int,
    level: float,
    contrast: float,
    rng: np.random.Generator,
) -> None:
    """Draw one nucleus in place; in overlaps, a pixel belongs to the nucleus it is deeper in."""
    reach = 1.7 * radius
    window = tuple(
        slice(max(0, int((c - reach) / step)), min(length, int((c + reach) / step) + 2))
        for c, step, length in zip(centre, canvas.spacing, canvas.labels.shape, strict=True)
    )
    offsets = [
        index * step - c
        for index, step, c in zip(np.ogrid[window], canvas.spacing, centre, strict=True)
    ]
    outline = _ellipse if len(offsets) == 2 else _ellipsoid
    nearness = outline(offsets, radius, rng)
    mine = (nearness < 1) & (nearness < canvas.nearness[window])
    # Nuclei are flattened domes, so intensity falls off towards the rim.
    dome = np.sqrt(np.clip(1 - nearness[mine], 0, 1)) ** 0.5
    grain = np.clip(1 + contrast * canvas.chromatin[window][mine], 0.2, None)
    canvas.nearness[window][mine] = nearness[mine]
    canvas.labels[window][mine] = label
    canvas.light[window][mine] = level * (0.35 + 0.65 * dome) * grain


def _ellipse(offsets: Sequence[np.ndarray], radius: float, rng: np.random.Generator) -> np.ndarray:
    """Return the nearness of the pixels at offsets (y, x) from the centre of a nucleus."""
    y, x = offsets
    along, across = _stretched(y, x, rng)
    angle = np.arctan2(across, along)
    rim = np.ones_like(angle)
    for frequency in (2, 3, 4, 5):  # a smooth rim: higher frequencies are weaker
        size_of_wave = rng.normal(0, 0.09 / (frequency - 1))
        rim += size_of_wave * np.cos(frequency * angle + rng.uniform(0, 2 * np.pi))
    return (along**2 + across**2) / (radius * rim) ** 2


def _ellipsoid(
    offsets: Sequence[np.ndarray], radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the nearness of the voxels at offsets (z, y, x) from the centre of a nucleus."""
    z, y, x = offsets
    along, across = _stretched(y, x, rng)
    squared = z**2 + along**2 + across**2
    distance = np.sqrt(np.maximum(squared, 1e-12))  # the centre itself has no direction
    rim = np.ones_like(distance)
    for frequency in (2, 3, 4, 5):  # waves over the surface, each in a random direction
        up, ahead, aside = _direction(3, rng)
        way = (up * z + ahead * along + aside * across) / distance
        size_of_wave = rng.normal(0, 0.09 / (frequency - 1))
        rim += size_of_wave * np.cos(frequency * way + rng.uniform(0, 2 * np.pi))
    return squared / (radius * rim) ** 2


def _stretched(
    y: np.ndarray, x: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in which a nucleus with random flattening and tilt is round."""
    tilt, flattening = rng.uniform(0, np.pi), rng.uniform(0.68, 1.0)
    along = (x * np.cos(tilt) + y * np.sin(tilt)) * np.sqrt(flattening)
    across = (y * np.cos(tilt) - x * np.sin(tilt)) / np.sqrt(flattening)
    return along, across


def _texture(shape: tuple[int, ...], spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return filtered noise with mean 0 and standard deviation 1."""
    field = np.zeros(shape)
    for scale in GRAINS:
        layer = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), scale / spacing)
        field += layer / layer.std()
    return (field - field.mean()) / field.std()


def _tidy(labels: np.ndarray) -> np.ndarray:
    """Keep the largest piece of each nucleus, remove tiny ones, and number labels from 1."""
    tidy = np.zeros_like(labels)
    n_kept = 0
    for label, window in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if window is None:
            continue
        pieces, n_pieces = scipy.ndimage.label(labels[window] == label)
        sizes = np.bincount(pieces.ravel(), minlength=n_pieces + 1)[1:]
        if sizes.max() >= SMALLEST:
            n_kept += 1
            tidy[window][pieces == sizes.argmax() + 1] = n_kept
    return tidy
