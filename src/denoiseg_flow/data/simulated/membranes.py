"""Simulate epithelia in 2D or 3D: dark cells that fill the image, separated by bright membranes.

Cells are the Voronoi regions of centres that repel each other, in a space that is stretched and
smoothly distorted. Membranes belong to the background. All lengths are in widths of a pixel.
"""

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from denoiseg_flow.data.simulated.draws import texture
from denoiseg_flow.data.simulated.nuclei import tidy
from denoiseg_flow.data.simulated.outlines import Array, direction

SMALLEST = 12  # pixels or voxels; smaller fragments at the border are removed


class Tissue(NamedTuple):
    """What the cells of one image have in common."""

    radius: float
    """Of a disk or ball with the volume of a cell."""
    order: int
    """Steps in which the centres of cells repel each other: the more, the more regular."""
    stretch: float
    """Of the cells along y, relative to x."""
    bend: float
    """Standard deviation of the distortion."""
    width: float
    """Of the membranes: standard deviation of their profile."""
    unevenness: float
    """Relative standard deviation of the brightness of membranes."""
    inside: float
    """Typical brightness of the inside of cells, relative to membranes."""
    extent: float = 1.0
    """Fraction of the image that is tissue: 1 everywhere, 0 nowhere."""


def draw(
    shape: tuple[int, ...], spacing: tuple[float, ...], tissue: Tissue, rng: np.random.Generator
) -> tuple[Array, np.ndarray]:
    """Draw the cells of one image.

    Parameters
    ----------
    shape
        ([z,] y, x) in pixels.
    spacing
        Distance of neighbouring pixels along every axis.

    Returns
    -------
    light : numpy.ndarray
        Of the given shape, about 1 in membranes, not yet blurred by the optics.
    labels : numpy.ndarray
        Of the given shape, int32, numbered from 1. Every cell is one piece.
    """
    step, radius, n_axes = np.array(spacing), tissue.radius, len(shape)
    extent, margin = step * shape, 2 * radius
    size = np.pi * radius**2 if n_axes == 2 else np.pi * radius**3 * 4 / 3
    count = max(3, int(np.prod(extent + 2 * margin) / size))
    centres = rng.uniform(-margin, extent + margin, (count, n_axes))
    for _ in range(tissue.order):
        distance, others = scipy.spatial.cKDTree(centres).query(centres, k=min(7, count))
        away = centres[:, None] - centres[others[:, 1:]]
        push = away * np.clip(2 * radius / np.maximum(distance[:, 1:, None], 1e-6) - 1, 0, 2)
        centres = centres + 0.15 * push.mean(axis=1)
    stretch = np.ones(n_axes)
    stretch[-2] = tissue.stretch
    grid = np.moveaxis(np.indices(shape, float), 0, -1) * step
    for axis in range(n_axes):
        grid[..., axis] += tissue.bend * texture(shape, radius / step, rng)
    nearest, owner = scipy.spatial.cKDTree(centres * stretch).query(
        grid.reshape(-1, n_axes) * stretch, k=2
    )
    gap = ((nearest[:, 1] - nearest[:, 0]) / 2).reshape(shape)  # distance from the membrane
    tissue_cells = _within(centres, extent, tissue.extent, rng)
    beside = tissue_cells[owner].any(axis=1).reshape(shape)  # a membrane needs one cell only
    owner = owner[:, 0].reshape(shape)
    is_cell = tissue_cells[owner]
    separate = gap > max(0.5, 0.6 * tissue.width)
    labels = np.where(is_cell & separate, owner + 1, 0).astype(np.int32)
    light = beside * np.exp(-0.5 * (gap / tissue.width) ** 2)
    light *= np.clip(1 + tissue.unevenness * texture(shape, radius / step, rng), 0.1, None)
    # Cells differ in the brightness of their interior.
    inside = tissue_cells * tissue.inside * np.exp(rng.normal(0, 0.5, count))
    light += inside[owner] * np.clip(1 + 0.3 * texture(shape, 1.5 / step, rng), 0, None)
    return light, tidy(labels, SMALLEST)


def _within(
    centres: Array, extent: Array, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which cells are tissue: those on one side of a random line (plane)."""
    if fraction >= 1:
        return np.ones(len(centres), bool)
    along = (centres - extent / 2) @ direction(len(extent), rng)
    inside = ((centres >= 0) & (centres < extent)).all(axis=1)
    if fraction <= 0 or not inside.any():
        return np.zeros(len(centres), bool)
    return along < np.quantile(along[inside], fraction)
