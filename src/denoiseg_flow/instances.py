"""Instance labels from class probabilities, and the choice of the threshold between them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from denoiseg_flow.metrics import average_precision

# The reference implementation tries these on the validation images.
THRESHOLDS = tuple(round(0.10 + 0.05 * step, 2) for step in range(19))


def label_foreground(foreground: np.ndarray) -> np.ndarray:
    """Return the connected components of the foreground.

    Parameters
    ----------
    foreground
        (y, x), bool: where the probability of the foreground class is above the threshold.

    Returns
    -------
    Labels (y, x), 0 background; uint16 while they fit, else uint32.
    """
    labels, count = ndimage.label(foreground)
    return labels.astype(np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32)


@dataclass(frozen=True)
class Threshold:
    """A foreground threshold and what it was chosen on."""

    value: float
    average_precision: float
    n_images: int


def choose_threshold(images: Iterable[tuple[np.ndarray, np.ndarray]]) -> Threshold | None:
    """Return the threshold with the best mean average precision at IoU 0.5.

    Images without objects have no average precision and take no part, as in the reference
    implementation. Without any image that takes part there is nothing to choose by: None.

    Parameters
    ----------
    images
        Foreground probabilities and instance labels, both (y, x), of every annotated validation
        image; looked at one image at a time.
    """
    scores = [
        [average_precision(truth, label_foreground(foreground > value)) for value in THRESHOLDS]
        for foreground, truth in images
        if (truth > 0).any()
    ]
    if not scores:
        return None
    means = [np.mean(column) for column in zip(*scores, strict=True)]
    best = int(np.argmax(means))
    return Threshold(THRESHOLDS[best], float(means[best]), len(scores))
