"""Random numbers and textures that simulated images have in common."""

import numpy as np
import scipy

from denoiseg_flow.data.simulated.outlines import Array


def loguniform(low: float, high: float, rng: np.random.Generator) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def texture(shape: tuple[int, ...], scale: Array | float, rng: np.random.Generator) -> Array:
    """Return smoothed noise with mean 0 and standard deviation 1; ``scale`` in pixels per axis."""
    field = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), scale, mode="wrap")
    centred: Array = field - field.mean()
    return centred / max(float(centred.std()), 1e-9)
