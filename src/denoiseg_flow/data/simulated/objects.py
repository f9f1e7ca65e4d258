"""Simulate objects with the variety of real images: nuclei, blobs, rods and membranes.

Each image has a *style*, drawn from the ranges below: how large, elongated, irregular, crowded,
textured and bright its objects are, and how much they differ. The ranges are wide on purpose.
A network pretrained on such images has to find objects of any kind, so it does not depend on the
size, the contrast or the noise of the images that it is used on.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from denoiseg_flow.data.simulated import membranes
from denoiseg_flow.data.simulated.draws import loguniform, texture
from denoiseg_flow.data.simulated.nuclei import tidy
from denoiseg_flow.data.simulated.outlines import Array, Window, direction, stretched, wavy, window

# Ranges from which the style of an image is drawn, uniformly unless it says otherwise.
RADIUS = {"nuclei": (3.5, 28.0), "blobs": (2.5, 14.0), "rods": (4.0, 14.0)}  # pixels, log-uniform
CELL_RADIUS = (5.0, 30.0)  # of cells between membranes, pixels, log-uniform
STRETCH = (0.6, 1.0)  # of cells between membranes, along one axis
EXTENT = (0.0, 0.3, 0.6, *[1.0] * 7)  # one of them: fraction of the image with such cells
SPREAD = (0.03, 0.35)  # standard deviation of the logarithm of the radius within an image
FLATTENING = {"nuclei": (0.5, 0.95), "blobs": (0.8, 1.0), "rods": (0.12, 0.45)}  # minor/major axis
WAVES = (0.01, 0.16)  # amplitude of the waves of the rim, relative to the radius, log-uniform
COVER = (0.03, 0.6)  # fraction of the image covered by objects, log-uniform
TOUCHING = (0.0, 0.2, 0.4, 0.8)  # one of them: fraction of the objects placed next to another
CLOSENESS = (0.8, 0.98)  # distance of touching objects, relative to the sum of their radii
BRIGHTNESS_SPREAD = (0.05, 0.5)  # standard deviation of the logarithm of the brightness
DIM = (0.0, 0.0, 0.15, 0.3)  # one of them: fraction of objects with 0.15 to 0.5 of the brightness
DOME = (0.03, 0.5)  # exponent of the fall of brightness towards the rim, log-uniform
FLOOR = (0.1, 0.8)  # brightness at the rim, relative to the centre
GRAIN = (0.0, 0.5)  # contrast of the texture
NUCLEOLI, SPOTS = (0, 0, 1, 3), (0, 0, 0, 4)  # one of them: mean number of dark and bright spots
MITOTIC = (0.0, 0.0, 0.05, 0.15)  # one of them: fraction of small, bright, elongated nuclei
CRESCENTS = (0.0, 0.0, 0.0, 0.0, 0.3)  # one of them: fraction of objects bright on one side only
TRANSPARENT = 0.3  # probability that the brightness of overlapping objects adds up
BENT = 0.3  # probability that an object is bent

SMALLEST = 12  # pixels or voxels
N_PLACEMENTS = 20  # attempts to place an object
MOST_OBJECTS = 400
STRUCTURES = (*RADIUS, "membranes")


class Objects(NamedTuple):
    """Simulated objects before the optics."""

    light: Array
    """([z,] y, x), brightness; about 1 in a typical object, 0 in the background."""
    labels: np.ndarray
    """([z,] y, x), int32, numbered from 1; every object is one piece."""
    radius: float
    """Typical radius in pixels."""


@dataclass(frozen=True)
class _Style:
    """What the objects of one image have in common, see the ranges above."""

    radius: float
    spread: float
    flattening: float
    flattening_spread: float
    waves: float
    touching: float
    closeness: float
    brightness_spread: float
    dim: float
    dome: float
    floor: float
    grain: float
    nucleoli: int
    spots: int
    mitotic: float
    crescents: float
    transparent: bool
    capsules: bool


def draw(
    structure: str, shape: tuple[int, ...], spacing: tuple[float, ...], rng: np.random.Generator
) -> Objects:
    """Draw the objects of one image.

    Parameters
    ----------
    structure
        One of :data:`STRUCTURES`.
    shape
        ([z,] y, x) in pixels.
    spacing
        Distance of neighbouring pixels along every axis, in widths of a pixel.
    """
    if structure == "membranes":
        tissue = _tissue(rng)
        return Objects(*membranes.draw(shape, spacing, tissue, rng), tissue.radius)
    return _crowd(structure, shape, np.array(spacing), rng)


def _style(structure: str, rng: np.random.Generator) -> _Style:
    nuclei = structure == "nuclei"
    return _Style(
        radius=loguniform(*RADIUS[structure], rng),
        spread=rng.uniform(*SPREAD),
        flattening=rng.uniform(*FLATTENING[structure]),
        flattening_spread=rng.uniform(0.02, 0.2) if nuclei else 0.05,
        waves=loguniform(*WAVES, rng) * (1 if nuclei else 0.3),
        touching=rng.choice(TOUCHING),
        closeness=rng.uniform(*CLOSENESS),
        brightness_spread=rng.uniform(*BRIGHTNESS_SPREAD),
        dim=rng.choice(DIM),
        dome=loguniform(*DOME, rng),
        floor=rng.uniform(*FLOOR),
        grain=rng.uniform(*GRAIN),
        nucleoli=int(rng.choice(NUCLEOLI)),
        spots=int(rng.choice(SPOTS)),
        mitotic=rng.choice(MITOTIC) if nuclei else 0.0,
        crescents=rng.choice(CRESCENTS),
        transparent=bool(rng.random() < TRANSPARENT),
        capsules=structure == "rods",
    )


def _crowd(
    structure: str, shape: tuple[int, ...], spacing: Array, rng: np.random.Generator
) -> Objects:
    """Draw separate objects, some of which touch."""
    style = _style(structure, rng)
    grains = style.radius * rng.uniform((0.05, 0.15), (0.12, 0.4))
    field = np.zeros(shape)
    for grain in grains:
        field += rng.random() * texture(shape, np.maximum(grain, 0.7) / spacing, rng)
    field /= max(float(np.std(field)), 1e-9)
    nearness, labels, light = np.full(shape, np.inf), np.zeros(shape, np.int32), np.zeros(shape)
    extent = spacing * shape
    size = style.radius**2 * np.pi if len(shape) == 2 else style.radius**3 * np.pi * 4 / 3
    wanted = loguniform(*COVER, rng) * float(np.prod(extent)) / size
    placed = np.empty((0, len(shape) + 1))  # centres and, last, radii
    for _ in range(int(np.clip(wanted, 1, MOST_OBJECTS))):
        radius = style.radius * np.exp(rng.normal(0, style.spread))
        mitotic = rng.random() < style.mitotic
        radius *= 0.7 if mitotic else 1.0
        centre = _find_place(extent, radius, placed, style, rng)
        if centre is None:
            continue
        placed = np.vstack([placed, [*centre, radius]])
        reach = radius * (1.7 if structure == "nuclei" else 3.0)
        part = window(shape, spacing, centre, reach)
        coordinates, outline = _outline(part, radius, mitotic, style, rng)
        mine = (outline < 1) & (outline < nearness[part.place])
        brightness = _brightness(coordinates, radius, outline, field[part.place], style, rng)
        brightness *= rng.uniform(1.3, 2.5) if mitotic else 1.0
        if style.transparent:
            light[part.place] += np.where(outline < 1, brightness, 0)
        else:
            light[part.place][mine] = brightness[mine]
        nearness[part.place][mine] = outline[mine]
        labels[part.place][mine] = len(placed)
    labels = tidy(labels, SMALLEST)
    light[labels == 0] = 0
    return Objects(light, labels, style.radius)


def _find_place(
    extent: Array, radius: float, placed: Array, style: _Style, rng: np.random.Generator
) -> Array | None:
    """Draw a centre that touches another object or is apart from all; None if none is found."""
    centres, radii = placed[:, :-1], placed[:, -1]
    for _ in range(N_PLACEMENTS):
        touching = len(placed) > 0 and rng.random() < style.touching
        if touching:
            other = rng.integers(len(placed))
            step = style.closeness * (radius + radii[other])
            centre = centres[other] + step * direction(len(extent), rng)
        else:
            centre = rng.uniform(-0.5 * radius, extent + 0.5 * radius)
        if not np.all((-0.7 * radius < centre) & (centre < extent + 0.7 * radius)):
            continue
        distance = np.sqrt(np.square(centres - centre).sum(axis=1))
        gap = style.closeness - 0.04 if touching else rng.uniform(style.closeness, 1.4)
        if np.all(distance >= gap * (radius + radii)):
            return centre
    return None


def _outline(
    part: Window, radius: float, mitotic: bool, style: _Style, rng: np.random.Generator
) -> tuple[list[Array], Array]:
    """Return coordinates in which an object is round, and its outline in them."""
    *above, y, x = part.offsets
    flattening = float(np.clip(rng.normal(style.flattening, style.flattening_spread), 0.1, 1.0))
    if mitotic:
        flattening = rng.uniform(0.3, 0.6)
    along, across = stretched(y, x, flattening, rng.uniform(0, np.pi))
    if style.capsules:
        # Round caps at the ends of a straight middle.
        middle = radius * (1 - flattening)
        along = np.sign(along) * np.maximum(np.abs(along) - middle, 0) / flattening
    if rng.random() < BENT:
        across = across - rng.normal(0, 0.25) * along**2 / radius
    shape = np.broadcast_shapes(*(each.shape for each in part.offsets))
    coordinates = [np.broadcast_to(each, shape) for each in (*above, along, across)]
    return coordinates, wavy(coordinates, radius, style.waves, rng)


def _brightness(
    coordinates: list[Array],
    radius: float,
    outline: Array,
    field: Array,
    style: _Style,
    rng: np.random.Generator,
) -> Array:
    """Return the brightness of one object at all pixels of its window."""
    level = np.exp(rng.normal(0, style.brightness_spread))
    if rng.random() < style.dim:
        level *= rng.uniform(0.15, 0.5)
    dome = np.clip(1 - outline, 0, 1) ** style.dome
    brightness: Array = level * (style.floor + (1 - style.floor) * dome)
    brightness *= np.clip(1 + style.grain * field, 0.15, None)
    for mean, sign in ((style.nucleoli, -1), (style.spots, 1)):
        for _ in range(rng.poisson(mean)):
            spot = radius * np.sqrt(rng.uniform(0, 0.5)) * direction(len(coordinates), rng)
            squared = sum((c - s) ** 2 for c, s in zip(coordinates, spot, strict=True))
            width = radius * rng.uniform(0.08, 0.22)
            profile = np.exp(-squared / (2 * width**2))
            brightness *= np.clip(1 + sign * rng.uniform(0.2, 0.8) * profile, 0.1, 3)
    if rng.random() < style.crescents:
        side = direction(len(coordinates), rng)
        way = sum(s * c for s, c in zip(side, coordinates, strict=True)) / radius
        brightness *= np.clip(0.3 + 0.9 * way, 0.1, 1.4)
    return brightness


def _tissue(rng: np.random.Generator) -> membranes.Tissue:
    radius = loguniform(*CELL_RADIUS, rng)
    return membranes.Tissue(
        radius=radius,
        order=int(rng.integers(1, 12)),
        stretch=rng.uniform(*STRETCH) ** rng.choice([-1, 1]),
        bend=rng.uniform(0, 0.3) * radius,
        width=rng.uniform(0.7, max(1.0, 0.15 * radius)),
        unevenness=rng.uniform(0, 0.4),
        inside=rng.uniform(0, 0.3),
        extent=rng.choice(EXTENT),
    )
