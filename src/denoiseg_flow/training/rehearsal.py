"""Simulated images in the training of a pretrained network.

A network that was pretrained on simulated images and then trains on a few annotated images alone
forgets the variety that it has learned. Some patches of each batch therefore stay simulated.
"""

from typing import NamedTuple

import numpy as np
import torch

from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.methods.classes import encode_classes, relative_distance
from denoiseg_flow.methods.pretrained import Pretrained

N_IMAGES, SMALLEST_SIDE = 200, 160


class Rehearsal(NamedTuple):
    """Simulated images with what networks learn from their masks."""

    images: list[np.ndarray]
    """(1, y, x), float32."""
    classes: list[torch.Tensor]
    """(y, x), int8."""
    distances: list[np.ndarray]
    """(y, x), float16, see :func:`classes.relative_distance`."""


NO_REHEARSAL = Rehearsal([], [], [])


def simulate_rehearsal(pretrained: Pretrained, patch_size: int, seed: int) -> Rehearsal:
    """Simulate 2D images of the kind that a network was pretrained on; takes about 15 s."""
    side = max(SMALLEST_SIDE, patch_size)
    kinds = generator(seed, "rehearsal").choice(pretrained.structures, N_IMAGES)
    found = Rehearsal([], [], [])
    for structure in sorted(set(kinds)):
        count = int((kinds == structure).sum())
        for item in simulate(count, side, seed=seed, structure=structure, varied=True):
            assert item.mask is not None
            found.images.append(item.image[None])
            found.classes.append(encode_classes(torch.from_numpy(item.mask)))
            found.distances.append(relative_distance(item.mask))
    return found
