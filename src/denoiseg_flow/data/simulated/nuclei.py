"""Simulate fluorescent nuclei in 2D or 3D, with their instance labels.

Nuclei vary in size, shape and brightness, have a chromatin-like texture, and touch in clusters; in
3D they also lie on top of each other. All lengths are in widths of a pixel whatever the distance of
the z-slices, so nuclei are as high as they are wide.
"""

from typing import NamedTuple

import numpy as np
import scipy

from denoiseg_flow.data.simulated.outlines import direction, stretched, wavy, window

SMALLEST = 20  # pixels or voxels; smaller fragments at the border are removed
N_PLACEMENTS = 30  # attempts to place a nucleus
WAVES = 0.09  # amplitude of the waves of the rim, relative to the radius
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
    labels = tidy(canvas.labels, SMALLEST)
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
            step = 0.88 * (radius + radii[other])
            centre = centres[other] + step * direction(len(extent), rng)
        else:
            centre = rng.uniform(-0.3 * radius, extent + 0.3 * radius)
        if not np.all((-radius / 2 < centre) & (centre < extent + radius / 2)):
            continue
        apart = np.hypot.reduce(centres - centre, axis=1)
        if np.all(apart >= (0.87 if touching else 1.2) * (radius + radii)):
            return centre
    return None


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
    place, (*above, y, x) = window(canvas.labels.shape, canvas.spacing, centre, 1.7 * radius)
    tilt, flattening = rng.uniform(0, np.pi), rng.uniform(0.68, 1.0)
    nearness = wavy([*above, *stretched(y, x, flattening, tilt)], radius, WAVES, rng)
    mine = (nearness < 1) & (nearness < canvas.nearness[place])
    # Nuclei are flattened domes, so intensity falls off towards the rim.
    dome = np.sqrt(np.clip(1 - nearness[mine], 0, 1)) ** 0.5
    grain = np.clip(1 + contrast * canvas.chromatin[place][mine], 0.2, None)
    canvas.nearness[place][mine] = nearness[mine]
    canvas.labels[place][mine] = label
    canvas.light[place][mine] = level * (0.35 + 0.65 * dome) * grain


def _texture(shape: tuple[int, ...], spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return filtered noise with mean 0 and standard deviation 1."""
    field = np.zeros(shape)
    for scale in GRAINS:
        layer = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), scale / spacing)
        field += layer / layer.std()
    return (field - field.mean()) / field.std()


def tidy(labels: np.ndarray, smallest: int) -> np.ndarray:
    """Keep the largest piece of each object, remove smaller ones, and number labels from 1."""
    kept = np.zeros_like(labels)
    n_kept = 0
    for label, place in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if place is None:
            continue
        pieces, n_pieces = scipy.ndimage.label(labels[place] == label)
        sizes = np.bincount(pieces.ravel(), minlength=n_pieces + 1)[1:]
        if sizes.max() >= smallest:
            n_kept += 1
            kept[place][pieces == sizes.argmax() + 1] = n_kept
    return kept
