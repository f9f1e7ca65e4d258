"""Turn images and labels into colours, for overlays and figures."""

from __future__ import annotations

import numpy as np
import skimage as ski
from matplotlib.colors import hsv_to_rgb

from denoiseg_flow.jobs.seeds import generator


def intensity_window(*images: np.ndarray | None) -> tuple[float, float]:
    """Return black and white point for images side by side: percentiles 1 and 99.8 of the first.

    The first image that is not None sets the window of all.
    """
    first = next(image for image in images if image is not None)
    low, high = np.percentile(first[np.isfinite(first)], (1.0, 99.8))
    return float(low), float(high if high > low else low + 1.0)


def instance_colours(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Colour labels for display: (y, x) integers to (y, x, 4) RGBA floats, background clear.

    With the same seed, a label always has the same colour. The hues of consecutive labels are a
    golden angle apart, which separates touching objects visually; outlines are opaque.
    """
    values, index = np.unique(np.maximum(labels, 0), return_inverse=True)
    start = generator(seed, "instance colours").random()
    palette = np.zeros((len(values), 4))
    palette[:, :3] = hsv_to_rgb(np.stack([
        (start + values * 0.618033988749895) % 1.0,
        0.55 + 0.35 * (values % 2),
        1.0 - 0.15 * (values % 3 == 2),
    ], axis=1))  # fmt: skip
    palette[:, 3] = np.where(values > 0, 0.55, 0.0)
    painted = palette[index.reshape(labels.shape)]
    painted[ski.segmentation.find_boundaries(np.maximum(labels, 0), mode="inner"), 3] = 1.0
    return painted


def overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Paint labels (y, x) over an image, see :func:`displayed`; return (y, x, 3) of uint8."""
    picture = over(displayed(image, intensity_window(image)), instance_colours(labels))
    return np.round(255 * picture).astype(np.uint8)


def displayed(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Scale an image (y, x), or in colour (y, x, 3), from black to white point.

    Returns RGB floats (y, x, 3).
    """
    low, high = window
    scaled = np.clip((image - low) / (high - low), 0, 1)
    return scaled if image.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)


def over(background: np.ndarray, paint: np.ndarray) -> np.ndarray:
    return background * (1 - paint[..., 3:]) + paint[..., :3] * paint[..., 3:]
