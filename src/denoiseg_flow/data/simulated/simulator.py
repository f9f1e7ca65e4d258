"""Simulate fluorescence images with known ground truth.

A dataset imitates one experiment, or, if ``varied``, has the variety of all real images, for
pretraining: see :mod:`objects` and :mod:`scenes`.

In an experiment, grey values resemble 8-bit images of the Data Science Bowl 2018: background 10 to
25, most nuclei 40 to 150 above it, some too dim to be visible in Gaussian noise of sigma 20.
Illumination is uneven, the optics blur the image, and the camera adds photon noise and an offset.
Membranes of an epithelium, whose cells are 12 to 20 pixels wide like those of the Fly Wing data of
the DenoiSeg paper, and filaments have the same optics and camera; filaments have no masks.

Volumes of nuclei are stacks of such images. The optics blur more along z than in the plane, so
out-of-focus light from nuclei above and below is as bright as a dim nucleus in focus.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.simulated import filaments, membranes, nuclei, objects, scenes
from denoiseg_flow.data.store import write_image, write_labels
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.seeds import generator

STRUCTURES = ("nuclei", "filaments", "blobs", "rods", "membranes")
EXPERIMENTS = ("nuclei", "filaments", "membranes")  # structures of images that are not varied
N_IMAGES, SIZE = 48, 128  # defaults
CAMERA_OFFSET = 5.0  # grey levels, free of photon noise
PHOTONS_PER_LEVEL = 4.0
PSF_ELONGATION = 2.5  # width of the point spread function along z, relative to that in the plane
Z_STEPS = (0.1, 10.0)  # smallest and largest, in pixels; larger steps would miss whole nuclei
FILAMENT_RADIUS = 2.0  # pixels, for blur and out-of-focus light
PIXEL_SIZE = 0.5  # micrometres, in volumes: a nucleus is about 8 micrometres wide


class SimulatedImage(NamedTuple):
    """A simulated image and its ground truth, of shape (size, size) or (depth, size, size)."""

    name: str
    image: np.ndarray
    """With noise: uint8, or float32 if varied."""
    mask: np.ndarray | None
    """int32 labels, no gap between touching nuclei; None for filaments."""
    clean: np.ndarray
    """float32, blurred but noise-free: the ideal denoised image."""
    annotated: bool
    """Whether the mask is part of the dataset."""


def simulate(
    n_images: int = N_IMAGES,
    size: int = SIZE,
    n_nuclei: Sequence[int] = (8, 22),
    annotated: int | float | None = None,
    seed: int = 0,
    structure: str = "nuclei",
    depth: int | None = None,
    z_step: float = 1.0,
    varied: bool = False,
) -> Iterator[SimulatedImage]:
    """Simulate a dataset, one image at a time.

    Image ``i`` depends only on ``seed``, ``i``, ``size``, ``structure``, ``varied``, ``depth``,
    ``z_step`` and, for nuclei that are not varied, on ``n_nuclei``.

    Parameters
    ----------
    n_images
        Number of images.
    size
        Height and width in pixels; a nucleus is about 12 to 25 pixels wide, unless varied.
    n_nuclei
        Minimum and maximum number of nuclei per image or volume; fewer if they do not fit. Ignored
        unless these are nuclei that are not varied; of filaments there are 10 to 30 per 128 x 128
        pixels.
    annotated
        Number of annotated images, or their fraction (a float); the first images get masks. None:
        all images, but none of filaments, which have no masks.
    seed
        Seed of the dataset.
    structure
        What the images show, one of :data:`STRUCTURES`.
    depth
        Number of z-slices of a volume (not of filaments); None for 2D images.
    z_step
        Distance of the z-slices, in widths of a pixel.
    varied
        Whether images differ as much as real ones in size, shape, crowding, contrast, background
        and noise. Needed for blobs and rods.

    Yields
    ------
    SimulatedImage

    Raises
    ------
    InputError
        If a parameter is out of range; the message names its config key.
    """
    n_annotated = count_annotated(n_images, annotated, structure)
    if size < 16:
        raise InputError(f"size is {size}, but simulated images have at least 16 pixels; raise it")
    if len(n_nuclei) != 2 or not 0 <= n_nuclei[0] <= n_nuclei[1]:
        raise InputError(
            f"n_nuclei is {list(n_nuclei)}, but must be the minimum and maximum number of nuclei "
            "per image, such as [8, 22]"
        )
    check_volume(depth, z_step, structure)
    check_varied(structure, varied)
    shape: tuple[int, ...] = (size, size)
    spacing: tuple[float, ...] = (1.0, 1.0)
    if depth is not None:
        shape, spacing = (depth, *shape), (z_step, *spacing)
    draw = _draw_varied if varied else partial(_draw, n_nuclei=n_nuclei)
    for index in range(n_images):
        image, mask, clean = draw(structure, shape, spacing, seed, index)
        yield SimulatedImage(image_name(index), image, mask, clean, index < n_annotated)


def _draw(
    structure: str,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    seed: int,
    index: int,
    n_nuclei: Sequence[int],
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return image, mask and clean image of one experiment."""
    if structure == "filaments":
        rng = generator(seed, "simulate filaments", index)
        light, mask = filaments.draw(shape[-1], rng), None
    elif structure == "membranes":
        rng = generator(seed, "simulate membranes", index)
        light, mask = membranes.draw(shape, spacing, _epithelium(rng), rng)
        light *= rng.uniform(45, 110)
    else:
        rng = generator(seed, "simulate" if len(shape) == 2 else "simulate volume", index)
        count = int(rng.integers(n_nuclei[0], n_nuclei[1] + 1))
        light, mask = nuclei.draw(shape, spacing, count, rng)
    clean = _expose(light, spacing, rng)
    photons = rng.poisson((clean - CAMERA_OFFSET) * PHOTONS_PER_LEVEL)
    image = np.clip(np.rint(photons / PHOTONS_PER_LEVEL + CAMERA_OFFSET), 0, 255)
    return image.astype(np.uint8), mask, clean


def _epithelium(rng: np.random.Generator) -> membranes.Tissue:
    """Draw what the cells of one image have in common, in an experiment."""
    radius = rng.uniform(6, 10)
    return membranes.Tissue(
        radius,
        order=6,
        stretch=rng.uniform(0.8, 1.0),
        bend=0.1 * radius,
        width=1.0,
        unevenness=0.3,
        inside=rng.uniform(0.05, 0.2),
    )


def _draw_varied(
    structure: str, shape: tuple[int, ...], spacing: tuple[float, ...], seed: int, index: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return image, mask and clean image with the variety of real images."""
    rng = generator(seed, f"simulate varied {structure}", index)
    mask: np.ndarray | None = None
    if structure == "filaments":
        light, radius = filaments.draw(shape[-1], rng), FILAMENT_RADIUS
        light /= max(float(np.percentile(light, 99)), 1.0)
    else:
        light, mask, radius = objects.draw(structure, shape, spacing, rng)
    noisy, clean = scenes.photograph(light, radius, spacing, rng)
    return noisy, mask, clean


def image_name(index: int) -> str:
    """Return the name of a simulated image; the first has index 0."""
    return f"sim_{index:04d}"


def count_annotated(
    n_images: int, annotated: int | float | None = None, structure: str = "nuclei"
) -> int:
    """Return how many of ``n_images`` simulated images have a mask; see :func:`simulate`."""
    if n_images < 1:
        raise InputError(f"n_images is {n_images}, but a dataset has at least 1 image; raise it")
    if structure not in STRUCTURES:
        raise InputError(f"structure is {structure!r}; available: {', '.join(STRUCTURES)}")
    if structure == "filaments":
        if annotated is not None:
            raise InputError(
                f"annotated is {annotated}, but simulated filaments have no masks; leave "
                "'annotated' out, or write 'structure: nuclei'"
            )
        return 0
    if annotated is None:
        return n_images
    count = round(annotated * n_images) if isinstance(annotated, float) else annotated
    if not 0 <= count <= n_images:
        raise InputError(
            f"annotated is {annotated}, but must be a number of images from 0 to {n_images} "
            "(n_images), or a fraction such as 0.5"
        )
    return count


def check_varied(structure: str, varied: bool) -> None:
    """Raise InputError if the structure exists only in varied images; see :func:`simulate`."""
    if structure not in EXPERIMENTS and not varied:
        raise InputError(
            f"structure is '{structure}', which is simulated with varied images only; write "
            "'varied: true'"
        )


def check_volume(depth: int | None, z_step: float = 1.0, structure: str = "nuclei") -> None:
    """Raise InputError if volumes cannot be simulated like this; see :func:`simulate`."""
    if depth is None:
        if z_step != 1:
            raise InputError(
                f"z_step is {z_step}, but without 'depth' the images are 2D; write 'depth' (the "
                "number of z-slices), or leave 'z_step' out"
            )
        return
    if structure == "filaments":
        raise InputError(
            f"depth is {depth}, but filaments are simulated in 2D only; leave 'depth' out, or "
            "write 'structure: nuclei'"
        )
    if depth < 2:
        raise InputError(
            f"depth is {depth}, but a volume has at least 2 z-slices; raise it, or leave 'depth' "
            "out for 2D images"
        )
    if not Z_STEPS[0] <= z_step <= Z_STEPS[1]:
        raise InputError(
            f"z_step is {z_step}, but the distance of z-slices must be from {Z_STEPS[0]:g} to "
            f"{Z_STEPS[1]:g}, in widths of a pixel"
        )


def write(folder: str | Path, **spec: Any) -> None:
    """Write simulated images (see :func:`simulate`) as tif to folder/images, masks and clean.

    The metadata of volumes include axes and voxel size.
    """
    metadata = None
    if spec.get("depth") is not None:
        step = PIXEL_SIZE * spec.get("z_step", 1.0)
        metadata = Metadata("ZYX", {"Z": step, "Y": PIXEL_SIZE, "X": PIXEL_SIZE})
    for simulated in simulate(**spec):
        name = f"{simulated.name}.tif"
        write_image(Path(folder, "images", name), simulated.image[None], metadata)
        write_image(Path(folder, "clean", name), simulated.clean[None], metadata)
        if simulated.annotated and simulated.mask is not None:
            mask = simulated.mask.astype(np.uint16)
            write_labels(Path(folder, "masks", name), mask, metadata)


def _expose(light: np.ndarray, spacing: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Return the noise-free image (float32, grey levels) of light above the background."""
    step = np.array(spacing)
    haze = scipy.ndimage.gaussian_filter(light, 10 / step)
    scene = rng.uniform(5, 18) + light + 0.12 * haze
    scene *= _illumination(light.shape[-1], rng)
    psf = np.array([PSF_ELONGATION, 1.0, 1.0])[-light.ndim :] * rng.uniform(0.8, 1.4)
    clean = CAMERA_OFFSET + scipy.ndimage.gaussian_filter(scene, psf / step)
    return np.minimum(clean, 245).astype(np.float32)


def _illumination(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth gain around 1: a tilt, and vignetting around an off-centre axis."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    tilt_y, tilt_x = rng.uniform(-0.12, 0.12, 2)
    axis_y, axis_x = rng.uniform(-0.5, 0.5, 2)
    vignette = rng.uniform(0.02, 0.1) * ((y - axis_y) ** 2 + (x - axis_x) ** 2)
    return 1.05 + tilt_y * y + tilt_x * x - vignette
