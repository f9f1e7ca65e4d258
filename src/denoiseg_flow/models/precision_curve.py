"""The share of predicted objects that are correct, by their confidence."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

FEW = 100  # objects; curves of fewer are rough


@dataclass(frozen=True)
class PrecisionCurve:
    """The precision of groups of objects of similar confidence, in annotated images.

    The images were not used to train the network. See
    :mod:`~denoiseg_flow.evaluation.object_precision`.

    Attributes
    ----------
    confidence
        Mean confidence of each group, ascending.
    precision
        Share of correct objects (IoU > 0.5 with an annotated one), which does not fall.
    lower, upper
        95% confidence interval of each share.
    n_objects, n_images
        Numbers of objects and of images in all groups.
    """

    confidence: Sequence[float]
    precision: Sequence[float]
    lower: Sequence[float]
    upper: Sequence[float]
    n_objects: int
    n_images: int

    def __post_init__(self) -> None:
        """Raise ValueError unless there is one number for each group."""
        groups = [getattr(self, each.name) for each in fields(self)[:4]]
        values = np.array(groups, dtype=np.float64)
        if values.ndim != 2 or not values.size or not np.isfinite(values).all():
            raise ValueError(f"groups {groups}")

    def at(self, confidences: np.ndarray) -> NDArray[np.float64]:
        """Return the expected precision of objects of these confidences.

        Between groups it is interpolated; beyond the first and last it is theirs. NaN stays NaN.
        """
        return np.interp(confidences, self.confidence, self.precision)
