"""Simulate fluorescent filaments similar to microtubules, which have no countable objects.

A filament is a curve whose direction follows a smooth random walk. Most filaments of an image run
away from one centre, like microtubules. Each has its own brightness and depth: the farther below
the focal plane, the wider and fainter it looks. The intensities of crossing filaments add up.
"""

import numpy as np
import scipy

DENSITY = (10, 30)  # fewest and most filaments per 128 x 128 pixels
STEP = 0.25  # pixels between two points of a curve, small enough to leave no gaps
DEFOCUS = 2.2  # standard deviation of the blur of the deepest filaments, in pixels
# Light per pixel of length of a filament whose peak, after the optics, is one grey level.
LIGHT_PER_LEVEL = 3.0


def draw(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the filaments of one image as light before the optics.

    Parameters
    ----------
    size
        Height and width in pixels; the number of filaments grows with the area.
    rng
        Random number generator.

    Returns
    -------
    numpy.ndarray
        Shape (size, size), float64, grey levels above the background, not yet blurred by the
        optics.
    """
    n_filaments = max(1, round(rng.uniform(*DENSITY) * (size / 128) ** 2))
    centre = rng.uniform(-0.2 * size, 1.2 * size, 2)
    order = rng.uniform(0.5, 4.0)  # how strictly the filaments run away from the centre
    brightness = rng.uniform(45, 80)
    sharp, blurred = np.zeros((2, size, size))
    for _ in range(n_filaments):
        points = _curve(rng.uniform(0, size, 2), centre, order, rng)
        level = np.clip(brightness * np.exp(rng.normal(0, 0.35)), 40, 140)
        depth = rng.uniform(0, 1) ** 2
        light = STEP * LIGHT_PER_LEVEL * level * _labelling(len(points), rng)
        _add(sharp, points, (1 - depth) * light)
        _add(blurred, points, depth * light)
    lines = sharp + scipy.ndimage.gaussian_filter(blurred, DEFOCUS)
    # Haze from unbound molecules around the filaments.
    return lines + rng.uniform(0.05, 0.2) * scipy.ndimage.gaussian_filter(lines, 15)


def _curve(
    start: np.ndarray, centre: np.ndarray, order: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the points (y, x) of a curve that grows from ``start`` in both directions."""
    outwards = np.arctan2(*(start - centre))
    heading = rng.vonmises(outwards, order)
    ends = [_walk(start, heading + turn, rng) for turn in (0, np.pi)]
    return np.concatenate([ends[0][::-1], start[None], ends[1]])


def _walk(start: np.ndarray, heading: float, rng: np.random.Generator) -> np.ndarray:
    """Return the points (y, x) of a curve with the given initial direction."""
    n_points = int(rng.uniform(30, 130) / STEP)
    bend = _smooth(n_points, 12, rng)  # filaments are stiff: they bend over many pixels
    headings = heading + np.cumsum(bend * rng.uniform(0.005, 0.024) * STEP)
    return start + STEP * np.cumsum(np.stack([np.sin(headings), np.cos(headings)], axis=1), axis=0)


def _labelling(n_points: int, rng: np.random.Generator) -> np.ndarray:
    """Return the relative dye density along a filament, which varies a little."""
    fine, coarse = _smooth(n_points, 1.5, rng), _smooth(n_points, 15, rng)
    return np.clip(1 + 0.15 * fine + 0.15 * coarse, 0.3, None)


def _smooth(n_points: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Return smoothed noise with mean 0, standard deviation 1 and a scale in pixels."""
    sigma = scale / STEP
    noise = scipy.ndimage.gaussian_filter1d(rng.standard_normal(n_points), sigma, mode="wrap")
    return noise * np.sqrt(2 * np.sqrt(np.pi) * sigma)


def _add(canvas: np.ndarray, points: np.ndarray, light: np.ndarray) -> None:
    """Add points of light in place, each shared by the four pixels around it (antialiasing)."""
    size = len(canvas)
    corner = np.floor(points).astype(int)
    share = points - corner
    for down in (0, 1):
        for right in (0, 1):
            y, x = corner[:, 0] + down, corner[:, 1] + right
            weight = np.abs(1 - down - share[:, 0]) * np.abs(1 - right - share[:, 1])
            inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
            np.add.at(canvas, (y[inside], x[inside]), (light * weight)[inside])
