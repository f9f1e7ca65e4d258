"""Bring images to the size at which a pretrained network finds their objects.

A network knows objects of the sizes it was trained on, and its receptive field bounds them: larger
ones fall apart. At the right size of the images, the network is most confident of what it finds
(:mod:`~denoiseg_flow.evaluation.confidence`), so no annotation is needed to choose it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from denoiseg_flow.data.store import centre_crop, open_image
from denoiseg_flow.evaluation.confidence import LOW, confidence, object_confidences, segment
from denoiseg_flow.evaluation.grey_levels import measure
from denoiseg_flow.methods.networks.downscaled import reduce_image
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.normalisation import Normalisation

logger = logging.getLogger(__name__)

FACTORS = (1, 2, 3, 4, 6, 8)  # by which images can be smaller
ENOUGH = 0.02  # confidence to gain at least by a larger factor: small images lack detail
N_IMAGES = 12
SIDE = 256  # pixels of the reduced images, of which the centre is looked at


def find_downscale(model: TrainedModel, images: Sequence[Path], patch_size: int) -> int:
    """Return how many times smaller images should be for a pretrained network.

    Parameters
    ----------
    model
        A network for 2D images of one channel, with its threshold.
    images
        Files of images (1, y, x); some of them are looked at.
    patch_size
        Side of a training patch, which must fit into the reduced images.
    """
    shortest = min(min(open_image(path).shape[-2:]) for path in images)
    places = np.linspace(0, len(images) - 1, min(len(images), N_IMAGES)).round().astype(int)
    shown = [images[place] for place in places]
    found: dict[int, float] = {}
    for factor in FACTORS:
        # Beyond the best size, the confidence falls.
        passed = len(found) > 2 and max([*found.values()][-2:]) < max(found.values())
        if passed or (factor > 1 and shortest // factor < patch_size):
            break
        found[factor] = _mean_confidence(model, shown, factor)
    best = max(found.values())
    enough = best - ENOUGH if best >= LOW else 0.0
    chosen = next(factor for factor, value in found.items() if value >= enough)
    values = ", ".join(f"{value:.2f} at 1/{factor}" for factor, value in found.items())
    logger.info("downscale %d (confidence %s)", chosen, values)
    return chosen


def _mean_confidence(model: TrainedModel, images: Sequence[Path], factor: int) -> float:
    """Return the mean confidence of the network in the centres of reduced images."""
    parts = [
        reduce_image(centre_crop(open_image(path), factor * SIDE), (factor, factor))
        for path in images
    ]
    (levels,) = measure(parts)
    own = Normalisation.of_channels([(levels.mean, levels.std or 1.0)])
    model = replace(model, normalisation=own)
    values = []
    for part in parts:
        labels = segment(model, part)
        objects = object_confidences(model, part, labels)
        values.append(confidence(objects, len(objects)))
    return float(np.mean(values))
