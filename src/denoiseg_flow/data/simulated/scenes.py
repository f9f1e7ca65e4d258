"""Simulate microscope and camera with the variety of real images.

From the light of objects to an image: background, out-of-focus light, debris and fibres, uneven
illumination, blur, and noise. Each image draws its own values from the ranges below.
"""

from typing import NamedTuple

import numpy as np
import scipy

from denoiseg_flow.data.simulated.draws import loguniform, texture
from denoiseg_flow.data.simulated.outlines import Array

# Ranges from which an image draws its values, uniformly unless it says otherwise. Brightness is
# relative to that of a typical object, lengths are in pixels.
BLUR = (0.4, 2.5)  # standard deviation of the point spread function, log-uniform
AXIAL_BLUR = (1.5, 3.5)  # the same along z, relative to the blur in the plane
HAZE = (0.0, 0.05, 0.15, 0.4, 0.7)  # one of them: largest strength of the light around objects
CYTOPLASM, CYTOPLASM_BRIGHTNESS = 0.3, (0.03, 0.3)  # probability and brightness, log-uniform
DEBRIS, DEBRIS_MEAN = 0.4, 6  # probability, and mean number of small bright specks
FIBRES, FIBRE_BRIGHTNESS = 0.35, (0.01, 0.08)  # probability and brightness
OUT_OF_FOCUS, OUT_OF_FOCUS_MEAN = 0.4, 4  # probability and mean number of faint, blurred objects
TILT = (0.0, 0.1, 0.35)  # one of them: largest change of the illumination from centre to border
CLOUDS = (0.0, 0.1, 0.3)  # one of them: variation of the background
BACKGROUND = (0.01, 1.0)  # log-uniform
NOISE = (0.005, 1.2)  # standard deviation of the noise, log-uniform
GREY_LEVELS = (8.0, 90.0)  # standard deviation of the grey levels of an image, log-uniform
SHOT, CORRELATED = 0.25, 0.1  # probability that noise grows with brightness, or is correlated
NOISE_WIDTH = (0.3, 0.8)  # of correlated noise: standard deviation of its blur in pixels
FEW_PHOTONS, PHOTONS = 0.1, (3.0, 60.0)  # probability, and photons in a typical object
IMPULSES = 0.05  # probability that one pixel in a hundred is too bright
CLIPPED = 0.3  # probability that negative grey levels are cut off
ROUNDED = 0.5  # probability that grey levels are integers


class Scene(NamedTuple):
    """A simulated image, ([z,] y, x), float32, grey levels."""

    noisy: np.ndarray
    clean: np.ndarray


def photograph(
    light: Array, radius: float, spacing: tuple[float, ...], rng: np.random.Generator
) -> Scene:
    """Return the image that a microscope takes of objects.

    Parameters
    ----------
    light
        ([z,] y, x), brightness of the objects before the optics, about 1 in a typical object.
    radius
        Typical radius of the objects in pixels.
    spacing
        Distance of neighbouring pixels along every axis, in widths of a pixel.
    """
    steps = np.array(spacing)
    elongation = np.array([rng.uniform(*AXIAL_BLUR), 1.0, 1.0])[-light.ndim :]
    blur = min(loguniform(*BLUR, rng), 0.25 * radius + 0.4) * elongation / steps
    scene = scipy.ndimage.gaussian_filter(
        light + _distractors(light.shape, steps, radius, rng), blur
    )
    haze = rng.choice(HAZE) * rng.uniform(0.3, 1.0)
    reach = radius * rng.uniform(0.3, 2.5) * elongation / steps
    scene += haze * scipy.ndimage.gaussian_filter(light, reach)
    if rng.random() < CYTOPLASM:
        scene += loguniform(*CYTOPLASM_BRIGHTNESS, rng) * _cytoplasm(light, radius / steps, rng)
    clouds = rng.choice(CLOUDS) * texture(light.shape, np.array(light.shape) / 3, rng)
    scene += loguniform(*BACKGROUND, rng) * np.clip(1 + clouds, 0.2, None)
    clean = scene * _illumination(light.shape[-2:], rng)
    noisy = _exposed(clean, rng)
    if rng.random() < CLIPPED:
        noisy = np.maximum(noisy, 0)
    gain = loguniform(*GREY_LEVELS, rng) / noisy.std()
    noisy, clean = gain * noisy, gain * clean
    if rng.random() < ROUNDED:
        noisy = np.round(noisy)
    return Scene(noisy.astype(np.float32), clean.astype(np.float32))


def _cytoplasm(light: Array, radius: Array, rng: np.random.Generator) -> Array:
    """Return irregular light around objects, like that of the cells that nuclei lie in."""
    near = scipy.ndimage.gaussian_filter((light > 0).astype(float), radius * rng.uniform(0.7, 2.0))
    patches = np.clip(0.3 + texture(light.shape, radius * rng.uniform(0.3, 1.0), rng), 0, None)
    cells: Array = patches * near / max(float(near.max()), 1e-9)
    return cells


def _distractors(
    shape: tuple[int, ...], steps: Array, radius: float, rng: np.random.Generator
) -> Array:
    """Return light that belongs to no object: debris, fibres, and objects out of focus."""
    light = np.zeros(shape)
    if rng.random() < DEBRIS:
        for _ in range(rng.poisson(DEBRIS_MEAN)):
            _add_spot(light, steps, rng.uniform(0.5, 1.6), rng.uniform(0.2, 1.5), rng)
    if rng.random() < OUT_OF_FOCUS:
        for _ in range(rng.poisson(OUT_OF_FOCUS_MEAN)):
            _add_spot(light, steps, radius * rng.uniform(0.7, 2.0), rng.uniform(0.03, 0.35), rng)
    if rng.random() < FIBRES:
        light += rng.uniform(*FIBRE_BRIGHTNESS) * _fibres(shape[-2:], rng)
    return light


def _add_spot(
    light: Array, steps: Array, width: float, brightness: float, rng: np.random.Generator
) -> None:
    """Add a blurred spot at a random place."""
    profile = np.array(brightness)
    for length, step in zip(light.shape, steps, strict=True):
        distance = np.arange(length) * step - rng.uniform(0, length * step)
        profile = profile[..., None] * np.exp(-(distance**2) / (2 * width**2))
    light += profile


def _fibres(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return parallel streaks, like the fibres of cells behind nuclei."""
    width, length = rng.uniform(1, 3), rng.uniform(15, 40)
    angle = rng.uniform(0, 180)
    side = 2 * max(shape)
    straight = scipy.ndimage.gaussian_filter(rng.standard_normal((side, side)), (width, length))
    turned = scipy.ndimage.rotate(straight, angle, reshape=False, order=1)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    part = turned[top : top + shape[0], left : left + shape[1]]
    streaks: Array = np.clip(part / max(float(part.std()), 1e-9), 0, None)
    return streaks


def _illumination(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return a linear gain around 1 over (y, x)."""
    y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    tilt_y, tilt_x = rng.choice(TILT) * rng.uniform(-1, 1, 2)
    gain: Array = np.clip(1 + tilt_y * y + tilt_x * x, 0.3, None)
    return gain


def _exposed(clean: Array, rng: np.random.Generator) -> Array:
    """Return an image with noise."""
    if rng.random() < FEW_PHOTONS:
        photons = loguniform(*PHOTONS, rng)
        counted: Array = rng.poisson(photons * clean) / photons
        return counted
    noisy: Array = clean + _noise(clean, rng)
    return noisy


def _noise(clean: Array, rng: np.random.Generator) -> Array:
    """Draw additive noise."""
    noise = rng.standard_normal(clean.shape)
    kind = rng.random()
    if kind < SHOT:
        noise *= np.sqrt(np.clip(clean / clean.mean(), 0.02, None))
    elif kind < SHOT + CORRELATED:
        noise = texture(clean.shape, rng.uniform(*NOISE_WIDTH), rng)
    noise *= loguniform(*NOISE, rng)
    if rng.random() < IMPULSES:
        noise[rng.random(clean.shape) < 0.01] += rng.uniform(0.5, 1.5)
    return noise
