"""Bring images to the size at which a pretrained network finds their objects.

A network knows objects of the sizes it was trained on, and its receptive field bounds them: larger
ones fall apart. How large the objects of some images are is read from the network's own prediction,
at one, a half, a third ... of the size of the images, until they are small enough. No annotation is
needed.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from denoiseg_flow.data.store import centre_crop, open_image
from denoiseg_flow.evaluation.grey_levels import measure
from denoiseg_flow.methods.networks.downscaled import reduce_image
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.prediction import label_maps, predict_maps

logger = logging.getLogger(__name__)

LARGEST = 14.0  # radius in pixels up to which objects are of the right size
MOST = 8  # how many times smaller images can be
N_IMAGES = 8
SIDE = 384  # pixels of the reduced images, of which the centre is looked at


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
    factor = 1
    while (radius := _typical_radius(model, shown, factor)) > LARGEST:
        if factor == MOST or shortest // (factor + 1) < patch_size:
            break
        factor += 1
    logger.info("downscale %d: objects then have a radius of %.1f pixels", factor, radius)
    return factor


def _typical_radius(model: TrainedModel, images: Sequence[Path], factor: int) -> float:
    """Return the median over images of the radius of their objects in reduced pixels, 0 if none."""
    parts = [
        reduce_image(centre_crop(open_image(path), factor * SIDE), (factor, factor))
        for path in images
    ]
    (levels,) = measure(parts)
    own = Normalisation.of_channels([(levels.mean, levels.std or 1.0)])
    model = replace(model, normalisation=own)
    radii = [radius_of(label_maps(model, maps)) for maps in predict_maps(model, parts)]
    found = [radius for radius in radii if radius > 0]
    return float(np.median(found)) if found else 0.0


def radius_of(labels: np.ndarray) -> float:
    """Return the radius of a disk as large as the object in which the median pixel lies.

    Weighted by area, because objects that fall apart leave many small pieces; 0 without objects.
    """
    areas = np.sort(np.bincount(labels.ravel())[1:])
    if not areas.sum():
        return 0.0
    middle = np.searchsorted(areas.cumsum(), areas.sum() / 2)
    return float(np.sqrt(areas[middle] / np.pi))
