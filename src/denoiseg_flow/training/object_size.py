"""Bring images to the size at which a pretrained network finds their objects.

A network knows objects of the sizes it was trained on, and its receptive field bounds them: larger
ones fall apart, and smaller ones are merged or missed. At the right size of the images, the network
is most confident of what it finds (:mod:`~denoiseg_flow.evaluation.confidence`), so no annotation
is needed to choose it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from denoiseg_flow.data.store import centre_crop, open_image
from denoiseg_flow.evaluation.confidence import LOW, confidence, object_confidences, segment
from denoiseg_flow.evaluation.grey_levels import measure
from denoiseg_flow.methods.networks.layout import MAGNIFIED, Layout
from denoiseg_flow.methods.networks.resized import magnify_image, reduce_image
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.training.training_images import spread

logger = logging.getLogger(__name__)

FACTORS = (1, 2, 3, 4, 6, 8)  # by which images can be smaller
ENOUGH = 0.02  # confidence to gain at least by a larger factor: small images lack detail
MUCH = 0.03  # confidence to gain by twice the size, at which predictions take four times as long
N_IMAGES = 12
SIDE = 256  # pixels of the reduced images, of which the centre is looked at


def find_downscale(model: TrainedModel, images: Sequence[Path], patch_size: int) -> float:
    """Return how many times smaller images should be for a pretrained network; 0.5: larger.

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
    shown = spread(images, N_IMAGES)
    found: dict[int, float] = {}
    for factor in FACTORS:
        # Beyond the best size, the confidence falls.
        passed = len(found) > 2 and max([*found.values()][-2:]) < max(found.values())
        if passed or (factor > 1 and shortest // factor < patch_size):
            break
        found[factor] = _mean_confidence(model, shown, factor)
    best = max(found.values())
    enough = best - ENOUGH if best >= LOW else 0.0
    chosen: float = next(factor for factor, value in found.items() if value >= enough)
    values = [f"{value:.2f} at 1/{factor}" for factor, value in found.items()]
    if chosen == 1:
        larger = _mean_confidence(model, shown, MAGNIFIED)
        chosen = MAGNIFIED if larger >= max(found[1] + MUCH, LOW) else 1
        values.insert(0, f"{larger:.2f} at twice the size")
    logger.info("downscale %g (confidence %s)", chosen, ", ".join(values))
    return chosen


def _mean_confidence(model: TrainedModel, images: Sequence[Path], factor: float) -> float:
    """Return the mean confidence of the network in the centres of resized images."""
    layout = Layout(downscale=factor)
    side = layout.reduction[0] * SIDE
    centres = (centre_crop(open_image(path), side) for path in images)
    parts = [
        magnify_image(reduce_image(centre, layout.reduction), layout.magnification)
        for centre in centres
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
