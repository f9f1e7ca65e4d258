"""Simulated images in the training of a pretrained network.

A network that was pretrained on simulated images and then trains on a few annotated images alone
forgets the variety that it has learned. Some patches of each batch therefore stay simulated.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.atomic import new_file
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.methods.classes import encode_classes, relative_distance
from denoiseg_flow.methods.pretrained import Pretrained

N_IMAGES, SMALLEST_SIDE = 300, 160
SEED = 0


class Rehearsal(NamedTuple):
    """Simulated images with what networks learn from their masks."""

    images: Sequence[np.ndarray]
    """(1, y, x), float32."""
    classes: Sequence[torch.Tensor]
    """(y, x), int8."""
    distances: Sequence[np.ndarray]
    """(y, x), float16, see :func:`classes.relative_distance`."""


NO_REHEARSAL = Rehearsal([], [], [])


def simulate_rehearsal(pretrained: Pretrained, patch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Simulate 2D images of the kind that a network was pretrained on; takes about 25 s.

    Returns
    -------
    Images (image, y, x), float32, and their labels (image, y, x), int32. They are not smaller than
    a patch.
    """
    side = max(SMALLEST_SIDE, patch_size)
    kinds = generator(SEED, "rehearsal").choice(pretrained.structures, N_IMAGES)
    images, labels = [], []
    for structure in sorted(set(kinds)):
        count = int((kinds == structure).sum())
        for item in simulate(count, side, seed=SEED, structure=structure, varied=True):
            assert item.mask is not None
            images.append(item.image)
            labels.append(item.mask)
    return np.stack(images), np.stack(labels)


def write_rehearsal(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write simulated images and their labels to one file for :func:`read_rehearsal`."""
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=images.astype(np.float16), labels=labels.astype(np.uint16))
    checksums.write(path)


def read_rehearsal(path: Path) -> Rehearsal:
    """Read a file of :func:`write_rehearsal`.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    checksums.verify(path)
    with np.load(path) as content:
        return make_rehearsal(content["images"].astype(np.float32), content["labels"])


def make_rehearsal(images: np.ndarray, labels: np.ndarray) -> Rehearsal:
    """Derive from simulated images and their labels what networks learn from."""
    masks = labels.astype(np.int32)
    return Rehearsal(
        list(images[:, None]),
        [encode_classes(torch.from_numpy(mask)) for mask in masks],
        [relative_distance(mask) for mask in masks],
    )
