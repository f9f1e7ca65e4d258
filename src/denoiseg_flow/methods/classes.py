"""Encode instance labels as the three classes of the networks: background, foreground, border."""

from collections.abc import Sequence

import numpy as np
import scipy
import torch

from denoiseg_flow.data.neighbours import neighbours

BACKGROUND, FOREGROUND, BORDER = 0, 1, 2
CLASSES = ("background", "foreground", "border")
IGNORE = -1
DISTANCE = 3  # the map after those of the classes, in networks that have it


def encode_classes(labels: torch.Tensor) -> torch.Tensor:
    """Return the class of every pixel.

    The border is the outer boundary of each object, as in ``find_boundaries(mode="outer")`` of
    scikit-image, and replaces the foreground where objects touch (DenoiSeg, Buchholz, Prakash et
    al. 2020). Pixels with a negative label are not annotated and become ``IGNORE``, which neither
    losses nor scores count.

    Parameters
    ----------
    labels
        Instance labels ([z,] y, x), signed integers: 0 background, positive objects, negative
        ignored.

    Returns
    -------
    int8 tensor of ``BACKGROUND``, ``FOREGROUND``, ``BORDER`` and ``IGNORE``, of the same shape and
    on the same device.
    """
    objects = labels.clamp(min=0)
    sides, corners = (neighbours(labels.dim(), corners) for corners in (False, True))
    # A border pixel differs from a direct neighbour, and has another object among its direct or
    # diagonal neighbours.
    differs, meets = torch.zeros((2, *labels.shape), dtype=torch.bool, device=labels.device)
    for one, other in sides:
        change = objects[one] != objects[other]
        differs[one] |= change
        differs[other] |= change
    for one, other in sides + corners:
        change = objects[one] != objects[other]
        meets[one] |= change & (objects[other] > 0)
        meets[other] |= change & (objects[one] > 0)
    classes = torch.where(objects > 0, FOREGROUND, BACKGROUND).to(torch.int8)
    classes[differs & meets] = BORDER
    classes[labels < 0] = IGNORE
    return classes


def relative_distance(labels: np.ndarray, spacing: Sequence[float] | None = None) -> np.ndarray:
    """Return how far inside its object each pixel lies: 0 outside, 1 at the innermost pixel.

    This is the Euclidean distance from the nearest pixel that is not part of the object, divided
    by the largest distance in the object. It has one peak in each convex object, however large the
    object is, which separates touching objects better than a thin border does.

    Parameters
    ----------
    labels
        Instance labels ([z,] y, x); objects are positive.
    spacing
        Distance of neighbouring pixels along every axis; None: 1.

    Returns
    -------
    float16 array of the same shape.
    """
    distance = np.zeros(labels.shape, np.float16)
    for label, place in enumerate(scipy.ndimage.find_objects(np.maximum(labels, 0)), start=1):
        if place is None:
            continue
        inside = labels[place] == label
        depth = scipy.ndimage.distance_transform_edt(np.pad(inside, 1), spacing)
        depth = depth[(slice(1, -1),) * labels.ndim]
        distance[place][inside] = (depth / depth.max())[inside]
    return distance
