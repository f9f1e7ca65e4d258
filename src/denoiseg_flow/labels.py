"""Instance labels as the three classes that the networks learn: background, foreground, border."""

import numpy as np
from skimage.segmentation import find_boundaries

BACKGROUND, FOREGROUND, BORDER = 0, 1, 2
IGNORE = -1


def encode_classes(labels: np.ndarray) -> np.ndarray:
    """Return the class of every pixel.

    The border is the outer boundary of every object, and wins over the foreground where objects
    touch (DenoiSeg, Buchholz, Prakash et al. 2020). Pixels with a negative label are unknown to
    the annotator and become ``IGNORE``: neither the loss nor a score counts them.

    Parameters
    ----------
    labels
        Instance labels (y, x): 0 background, positive objects, negative ignored.

    Returns
    -------
    int8 array (y, x) of ``BACKGROUND``, ``FOREGROUND``, ``BORDER`` and ``IGNORE``.
    """
    # In 64 bits find_boundaries rounds through floats and takes every object pixel for border.
    objects = np.maximum(labels, 0).astype(np.int32)
    classes = np.where(objects > 0, FOREGROUND, BACKGROUND).astype(np.int8)
    classes[find_boundaries(objects, mode="outer")] = BORDER
    classes[labels < 0] = IGNORE
    return classes
