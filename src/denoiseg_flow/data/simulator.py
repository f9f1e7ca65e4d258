"""Simulated fluorescence images of nuclei or filaments: the data sets that need no download.

Grey values resemble 8-bit images of the Data Science Bowl 2018: background 10 to 25, most nuclei
40 to 150 above it, some so dim that Gaussian noise of sigma 20 drowns them. Nuclei differ in size,
shape and brightness, have a chromatin-like texture, and touch in clusters; the image is unevenly
lit, blurred by the optics, and carries photon noise on top of a camera offset. Filaments are seen
through the same optics and camera, but have no masks.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy

from denoiseg_flow.data import filaments
from denoiseg_flow.data.images import write_image
from denoiseg_flow.errors import InputError
from denoiseg_flow.seeds import generator

STRUCTURES = ("nuclei", "filaments")
N_IMAGES = 48  # unless asked for otherwise
CAMERA_OFFSET = 5.0  # grey levels, free of photon noise
PHOTONS_PER_LEVEL = 4.0
SMALLEST_NUCLEUS = 20  # pixels; smaller remains at the image border are left out
N_PLACEMENTS = 30  # tries to find room for a nucleus before it is given up


class SimulatedImage(NamedTuple):
    """One simulated image and its truth, all of shape (size, size)."""

    name: str
    image: np.ndarray
    """uint8, with photon noise."""
    mask: np.ndarray | None
    """int32 labels, touching nuclei adjacent without a gap; None for filaments."""
    clean: np.ndarray
    """float32, blurred and free of noise: what an ideal denoiser gives back."""
    annotated: bool
    """Whether the data set shows the mask to its users."""


def simulate(
    n_images: int = N_IMAGES,
    size: int = 128,
    n_nuclei: Sequence[int] = (8, 22),
    annotated: int | float | None = None,
    seed: int = 0,
    structure: str = "nuclei",
) -> Iterator[SimulatedImage]:
    """Simulate a data set, one image at a time.

    Image ``i`` depends on ``seed``, ``i``, ``size``, ``structure`` and, if these are nuclei,
    ``n_nuclei`` only.

    Parameters
    ----------
    n_images
        Number of images.
    size
        Height and width in pixels; a nucleus is about 12 to 25 pixels wide.
    n_nuclei
        Fewest and most nuclei per image; an image that is full gets fewer. Not for filaments,
        of which there are 10 to 30 per 128 x 128 pixels.
    annotated
        How many images, or which fraction of them (a float), have a mask: the first ones.
        None means all that can have one, which filaments cannot.
    seed
        Seed of the data set.
    structure
        What the images show: nuclei or filaments.

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
    for index in range(n_images):
        if structure == "filaments":
            rng = generator(seed, "simulate filaments", index)
            light, mask = filaments.draw(size, rng), None
        else:
            rng = generator(seed, "simulate", index)
            light, mask = _nuclei(size, int(rng.integers(n_nuclei[0], n_nuclei[1] + 1)), rng)
        clean = _expose(light, rng)
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
        raise InputError(f"n_images is {n_images}, but a data set needs at least 1 image")
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


def write(folder: str | Path, **spec) -> None:
    """Simulate with ``spec`` (see :func:`simulate`) into folder/images, masks and clean, as tif."""
    for simulated in simulate(**spec):
        name = f"{simulated.name}.tif"
        write_image(Path(folder, "images", name), simulated.image)
        write_image(Path(folder, "clean", name), simulated.clean)
        if simulated.annotated:
            write_image(
                Path(folder, "masks", name), simulated.mask.astype(np.uint16), compress=True
            )


def _expose(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the expected image (float32, grey levels) of what shines above the background."""
    haze = scipy.ndimage.gaussian_filter(light, 10)
    scene = rng.uniform(5, 18) + light + 0.12 * haze
    scene *= _illumination(len(light), rng)
    clean = CAMERA_OFFSET + scipy.ndimage.gaussian_filter(scene, rng.uniform(0.8, 1.4))
    return np.minimum(clean, 245).astype(np.float32)


def _nuclei(size: int, n_nuclei: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the light of nuclei (float64, grey levels) and their labels (int32)."""
    radius = rng.uniform(6.5, 10.5)  # pixels; each image is its own culture
    brightness = rng.uniform(45, 110)
    chromatin = _texture(size, (1.2, 3.0), rng)
    nearness = np.full((size, size), np.inf)  # squared distance to a centre, in units of its rim
    mask = np.zeros((size, size), np.int32)
    nuclei = np.zeros((size, size))
    placed: list[tuple[float, float, float]] = []
    for _ in range(n_nuclei):
        own_radius = radius * np.exp(rng.normal(0, 0.18))
        place = _find_place(size, own_radius, placed, rng)
        if place is None:
            continue
        placed.append((*place, own_radius))
        dim = rng.random() < 0.12
        level = rng.uniform(14, 35) if dim else brightness * np.exp(rng.normal(0, 0.3))
        _paint_nucleus(
            placed[-1],
            len(placed),
            min(level, 170.0),
            rng.uniform(0.08, 0.22),
            (nearness, mask, nuclei, chromatin),
            rng,
        )
    mask = _tidy(mask)
    nuclei[mask == 0] = 0
    return nuclei, mask


def _find_place(
    size: int,
    radius: float,
    placed: list[tuple[float, float, float]],
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """Draw a centre next to another nucleus (touching it) or apart from all; None if full."""
    others = np.array(placed).reshape(-1, 3)
    for _ in range(N_PLACEMENTS):
        touching = len(placed) > 0 and rng.random() < 0.45
        if touching:
            y, x, other_radius = others[rng.integers(len(placed))]
            angle, distance = rng.uniform(0, 2 * np.pi), 0.88 * (radius + other_radius)
            centre = y + distance * np.sin(angle), x + distance * np.cos(angle)
        else:
            centre = rng.uniform(-0.3 * radius, size + 0.3 * radius, 2)
        if not -radius / 2 < min(centre) <= max(centre) < size + radius / 2:
            continue
        apart = np.hypot(others[:, 0] - centre[0], others[:, 1] - centre[1])
        if np.all(apart >= (0.87 if touching else 1.2) * (radius + others[:, 2])):
            return float(centre[0]), float(centre[1])
    return None


def _paint_nucleus(
    nucleus: tuple[float, float, float],
    label: int,
    level: float,
    contrast: float,
    canvas: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> None:
    """Add one nucleus in place; where two overlap, a pixel goes to the one it lies deeper in."""
    nearness, mask, nuclei, chromatin = canvas
    centre_y, centre_x, radius = nucleus
    reach = 1.7 * radius
    size = mask.shape[0]
    window = tuple(
        slice(max(0, int(c - reach)), min(size, int(c + reach) + 2)) for c in (centre_y, centre_x)
    )
    y, x = np.ogrid[window]
    y, x = y - centre_y, x - centre_x
    tilt, flattening = rng.uniform(0, np.pi), rng.uniform(0.68, 1.0)
    along = (x * np.cos(tilt) + y * np.sin(tilt)) * np.sqrt(flattening)
    across = (y * np.cos(tilt) - x * np.sin(tilt)) / np.sqrt(flattening)
    angle = np.arctan2(across, along)
    rim = np.ones_like(angle)
    for frequency in (2, 3, 4, 5):  # a smooth rim: higher frequencies are weaker
        size_of_wave = rng.normal(0, 0.09 / (frequency - 1))
        rim += size_of_wave * np.cos(frequency * angle + rng.uniform(0, 2 * np.pi))
    depth = (along**2 + across**2) / (radius * rim) ** 2
    mine = (depth < 1) & (depth < nearness[window])
    # Nuclei are flattened domes: the light falls off towards the rim.
    dome = np.sqrt(np.clip(1 - depth[mine], 0, 1)) ** 0.5
    nearness[window][mine] = depth[mine]
    mask[window][mine] = label
    nuclei[window][mine] = (
        level * (0.35 + 0.65 * dome) * np.clip(1 + contrast * chromatin[window][mine], 0.2, None)
    )


def _texture(size: int, scales: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Return filtered noise of mean 0 and standard deviation 1."""
    field = np.zeros((size, size))
    for scale in scales:
        layer = scipy.ndimage.gaussian_filter(rng.standard_normal((size, size)), scale)
        field += layer / layer.std()
    return (field - field.mean()) / field.std()


def _illumination(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth gain around 1: a tilt and a vignette about an off-centre axis."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    tilt_y, tilt_x = rng.uniform(-0.12, 0.12, 2)
    axis_y, axis_x = rng.uniform(-0.5, 0.5, 2)
    vignette = rng.uniform(0.02, 0.1) * ((y - axis_y) ** 2 + (x - axis_x) ** 2)
    return 1.05 + tilt_y * y + tilt_x * x - vignette


def _tidy(mask: np.ndarray) -> np.ndarray:
    """Keep the largest piece of every nucleus, drop the tiny ones, and number from 1."""
    tidy = np.zeros_like(mask)
    n_kept = 0
    for label, window in enumerate(scipy.ndimage.find_objects(mask), start=1):
        if window is None:
            continue
        pieces, n_pieces = scipy.ndimage.label(mask[window] == label)
        sizes = np.bincount(pieces.ravel(), minlength=n_pieces + 1)[1:]
        if sizes.max() >= SMALLEST_NUCLEUS:
            n_kept += 1
            tidy[window][pieces == sizes.argmax() + 1] = n_kept
    return tidy
