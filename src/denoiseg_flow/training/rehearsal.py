"""Simulated images in the training of a pretrained network.

A network that was pretrained on simulated images and then trains on a few annotated images alone
forgets the variety that it has learned. Some patches of each batch therefore stay simulated.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.atomic import new_file
from denoiseg_flow.methods.classes import encode_classes, relative_distance
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.methods.networks.resized import reduce_image, reduce_labels
from denoiseg_flow.methods.pretrained import Pretrained

# Number and smallest shape of the images, by dimensions.
N_IMAGES = {2: 200, 3: 40}
SMALLEST = {2: (160, 160), 3: (16, 80, 80)}
SEED = 0


class Rehearsal(NamedTuple):
    """Simulated images with what networks learn from their masks."""

    images: Sequence[np.ndarray]
    """(1, [z,] y, x), float32."""
    classes: Sequence[torch.Tensor]
    """([z,] y, x), int8."""
    distances: Sequence[np.ndarray]
    """([z,] y, x), float16, see :func:`classes.relative_distance`."""


NO_REHEARSAL = Rehearsal([], [], [])


class Simulated(NamedTuple):
    """Simulated images as they are stored."""

    images: np.ndarray
    """(image, [z,] y, x), float32."""
    labels: np.ndarray
    """(image, [z,] y, x), int32."""
    z_steps: np.ndarray
    """(image,): distance of the z-slices in widths of a pixel; 1 in 2D."""


def simulate_rehearsal(pretrained: Pretrained, patch_shape: Sequence[int]) -> Simulated:
    """Simulate images of the kind that a network was pretrained on; takes about 15 s.

    Parameters
    ----------
    patch_shape
        ([z,] y, x): no image is smaller.
    """
    shape = np.maximum(SMALLEST[pretrained.dimensions], patch_shape)
    depth = int(shape[0]) if pretrained.dimensions == 3 else None
    kinds = cycle(product(pretrained.structures, pretrained.z_steps or (1.0,)))
    found = []
    for (structure, z_step), count in Counter(islice(kinds, N_IMAGES[len(shape)])).items():
        items = simulate(
            count,
            int(shape[-1]),
            seed=SEED,
            structure=structure,
            depth=depth,
            z_step=z_step,
            varied=True,
        )
        found += [(item.image, item.mask, z_step) for item in items]
    return Simulated(*map(np.stack, zip(*found, strict=True)))


def write_rehearsal(path: Path, simulated: Simulated) -> None:
    """Write simulated images to one file for :func:`read_rehearsal`."""
    images, labels, z_steps = simulated
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            images=images.astype(np.float16),
            labels=labels.astype(np.uint16),
            z_steps=z_steps,
        )
    checksums.write(path)


def read_rehearsal(path: Path) -> Simulated:
    """Read a file of :func:`write_rehearsal`.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    checksums.verify(path)
    with np.load(path) as content:
        images = content["images"].astype(np.float32)
        labels = content["labels"].astype(np.int32)
        return Simulated(images, labels, content["z_steps"])


def make_rehearsal(simulated: Simulated | None, layout: Layout) -> Rehearsal:
    """Derive from simulated images and their labels what networks learn from; nothing from None.

    A network that magnifies images sees simulated objects at the size that they were drawn in, as
    in its pretraining: the images are reduced here by as much.
    """
    if simulated is None:
        return NO_REHEARSAL
    _, labels, z_steps = simulated
    factors = layout.magnification[1 - labels.ndim :]
    images = [reduce_image(image[None], factors) for image in simulated.images]
    masks = [reduce_labels(mask, factors) for mask in labels]
    spacings = np.tile(np.array(factors, float), (len(images), 1))
    spacings[:, 0] *= z_steps
    return Rehearsal(
        images,
        [encode_classes(torch.from_numpy(mask)) for mask in masks],
        [relative_distance(*each) for each in zip(masks, spacings.tolist(), strict=True)],
    )
