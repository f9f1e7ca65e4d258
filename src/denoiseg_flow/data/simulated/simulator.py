"""Simulated fluorescence images of nuclei or filaments: the datasets that need no download.

Grey values resemble 8-bit images of the Data Science Bowl 2018: background 10 to 25, most nuclei
40 to 150 above it, some so dim that Gaussian noise of sigma 20 drowns them. The image is unevenly
lit, blurred by the optics, and carries photon noise on top of a camera offset. Filaments are seen
through the same optics and camera, but have no masks.

Volumes of nuclei are stacks of such images. The optics blur them along z more than in the plane, so
that what lies above or below a plane shines into it, as dim as a dim nucleus in the plane.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.simulated import filaments, nuclei
from denoiseg_flow.data.store import write_image
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.seeds import generator

STRUCTURES = ("nuclei", "filaments")
N_IMAGES, SIZE = 48, 128  # unless asked for otherwise
CAMERA_OFFSET = 5.0  # grey levels, free of photon noise
PHOTONS_PER_LEVEL = 4.0
PSF_ELONGATION = 2.5  # how much wider the point spread function is along z than in the plane
Z_STEPS = (0.1, 10.0)  # smallest and largest, in pixels; farther apart, planes would miss nuclei
PIXEL_SIZE = 0.5  # micrometres, in volumes: a nucleus is about 8 micrometres wide


class SimulatedImage(NamedTuple):
    """One simulated image and its truth, all of shape (size, size) or (depth, size, size)."""

    name: str
    image: np.ndarray
    """uint8, with photon noise."""
    mask: np.ndarray | None
    """int32 labels, touching nuclei adjacent without a gap; None for filaments."""
    clean: np.ndarray
    """float32, blurred and free of noise: what an ideal denoiser gives back."""
    annotated: bool
    """Whether the dataset shows the mask to its users."""


def simulate(
    n_images: int = N_IMAGES,
    size: int = SIZE,
    n_nuclei: Sequence[int] = (8, 22),
    annotated: int | float | None = None,
    seed: int = 0,
    structure: str = "nuclei",
    depth: int | None = None,
    z_step: float = 1.0,
) -> Iterator[SimulatedImage]:
    """Simulate a dataset, one image at a time.

    Image ``i`` depends on ``seed``, ``i``, ``size``, ``structure`` and, if these are nuclei,
    ``n_nuclei``, ``depth`` and ``z_step`` only.

    Parameters
    ----------
    n_images
        Number of images.
    size
        Height and width in pixels; a nucleus is about 12 to 25 pixels wide.
    n_nuclei
        Fewest and most nuclei per image or volume; one that is full gets fewer. Not for
        filaments, of which there are 10 to 30 per 128 x 128 pixels.
    annotated
        How many images, or which fraction of them (a float), have a mask: the first ones.
        None means all that can have one, which filaments cannot.
    seed
        Seed of the dataset.
    structure
        What the images show: nuclei or filaments.
    depth
        Number of planes of a volume of nuclei; None for images of one plane.
    z_step
        Distance of the planes of a volume, in widths of a pixel.

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
        raise InputError(f"size is {size}, but a simulated image needs at least 16 pixels")
    if len(n_nuclei) != 2 or not 0 <= n_nuclei[0] <= n_nuclei[1]:
        raise InputError(
            f"n_nuclei is {list(n_nuclei)}, but must be the fewest and the most nuclei per image, "
            "such as [8, 22]"
        )
    check_volume(depth, z_step, structure)
    shape: tuple[int, ...] = (size, size)
    spacing: tuple[float, ...] = (1.0, 1.0)
    if depth is not None:
        shape, spacing = (depth, *shape), (z_step, *spacing)
    for index in range(n_images):
        if structure == "filaments":
            rng = generator(seed, "simulate filaments", index)
            light, mask = filaments.draw(size, rng), None
        else:
            rng = generator(seed, "simulate" if depth is None else "simulate volume", index)
            count = int(rng.integers(n_nuclei[0], n_nuclei[1] + 1))
            light, mask = nuclei.draw(shape, spacing, count, rng)
        clean = _expose(light, spacing, rng)
        photons = rng.poisson((clean - CAMERA_OFFSET) * PHOTONS_PER_LEVEL)
        image = np.clip(np.rint(photons / PHOTONS_PER_LEVEL + CAMERA_OFFSET), 0, 255)
        yield SimulatedImage(
            f"sim_{index:04d}", image.astype(np.uint8), mask, clean, index < n_annotated
        )


def count_annotated(
    n_images: int, annotated: int | float | None = None, structure: str = "nuclei"
) -> int:
    """Return how many of ``n_images`` simulated images have a mask; see :func:`simulate`."""
    if n_images < 1:
        raise InputError(f"n_images is {n_images}, but a dataset needs at least 1 image")
    if structure not in STRUCTURES:
        raise InputError(f"structure is {structure!r}; available: {', '.join(STRUCTURES)}")
    if structure == "filaments":
        if annotated is not None:
            raise InputError(
                f"annotated is {annotated}, but simulated filaments have no masks: leave "
                "`annotated` out, or write `structure: nuclei`"
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


def check_volume(depth: int | None, z_step: float = 1.0, structure: str = "nuclei") -> None:
    """Raise InputError unless volumes can be simulated so, or none are; see :func:`simulate`."""
    if depth is None:
        if z_step != 1:
            raise InputError(
                f"z_step is {z_step}, but without `depth` the images are single planes: write "
                "`depth` (the number of planes of a volume), or leave `z_step` out"
            )
        return
    if structure == "filaments":
        raise InputError(
            f"depth is {depth}, but only nuclei are simulated in volumes: leave `depth` out, or "
            "write `structure: nuclei`"
        )
    if depth < 2:
        raise InputError(
            f"depth is {depth}, but a volume has at least 2 planes: write more, or leave `depth` "
            "out for images of one plane"
        )
    if not Z_STEPS[0] <= z_step <= Z_STEPS[1]:
        raise InputError(
            f"z_step is {z_step}, but must be the distance of planes in widths of a pixel, from "
            f"{Z_STEPS[0]:g} to {Z_STEPS[1]:g}"
        )


def write(folder: str | Path, **spec: Any) -> None:
    """Simulate with ``spec`` (see :func:`simulate`) into folder/images, masks and clean, as tif.

    The files of volumes say their axes and the size of a voxel.
    """
    metadata = None
    if spec.get("depth") is not None:
        step = PIXEL_SIZE * spec.get("z_step", 1.0)
        metadata = Metadata("ZYX", {"Z": step, "Y": PIXEL_SIZE, "X": PIXEL_SIZE})
    for simulated in simulate(**spec):
        name = f"{simulated.name}.tif"
        write_image(Path(folder, "images", name), simulated.image, metadata=metadata)
        write_image(Path(folder, "clean", name), simulated.clean, metadata=metadata)
        if simulated.annotated and simulated.mask is not None:
            mask = simulated.mask.astype(np.uint16)
            write_image(Path(folder, "masks", name), mask, metadata=metadata, compress=True)


def _expose(light: np.ndarray, spacing: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Return the expected image (float32, grey levels) of what shines above the background."""
    step = np.array(spacing)
    haze = scipy.ndimage.gaussian_filter(light, 10 / step)
    scene = rng.uniform(5, 18) + light + 0.12 * haze
    scene *= _illumination(light.shape[-1], rng)
    psf = np.array([PSF_ELONGATION, 1.0, 1.0])[-light.ndim :] * rng.uniform(0.8, 1.4)
    clean = CAMERA_OFFSET + scipy.ndimage.gaussian_filter(scene, psf / step)
    return np.minimum(clean, 245).astype(np.float32)


def _illumination(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth gain around 1: a tilt and a vignette about an off-centre axis."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    tilt_y, tilt_x = rng.uniform(-0.12, 0.12, 2)
    axis_y, axis_x = rng.uniform(-0.5, 0.5, 2)
    vignette = rng.uniform(0.02, 0.1) * ((y - axis_y) ** 2 + (x - axis_x) ** 2)
    return 1.05 + tilt_y * y + tilt_x * x - vignette
