"""Overlap of the objects of two label images, the basis of AP and SEG.

For definitions and sources of AP and SEG see :mod:`denoiseg_flow.evaluation.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Counts(NamedTuple):
    """Matched and unmatched objects of one image at one IoU threshold."""

    iou: float
    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN); NaN if there are no objects at all."""
        total = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / total if total else float("nan")


@dataclass(frozen=True)
class Overlap:
    """Pixels shared by the objects of two label images, without the background.

    Attributes
    ----------
    truth_sizes, prediction_sizes
        Pixels per object, in ascending order of the label; shapes (n_truth,), (n_prediction,).
    truth_index, prediction_index, pixels
        One entry per pair of objects that share pixels: the two indices into the sizes and the
        number of shared pixels; shape (n_pairs,).
    """

    truth_sizes: NDArray[np.int64]
    prediction_sizes: NDArray[np.int64]
    truth_index: NDArray[np.int64]
    prediction_index: NDArray[np.int64]
    pixels: NDArray[np.int64]

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of every pair; shape (n_pairs,)."""
        sizes = self.truth_sizes[self.truth_index] + self.prediction_sizes[self.prediction_index]
        return self.pixels / (sizes - self.pixels)

    def best_iou(self) -> NDArray[np.float64]:
        """IoU of every truth object with the most similar prediction; shape (n_truth,)."""
        best = np.zeros(len(self.truth_sizes))
        np.maximum.at(best, self.truth_index, self.iou())
        return best

    def counts(self, iou: float = 0.5) -> Counts:
        """Count the matches with an IoU strictly greater than ``iou`` (0.5 <= iou < 1).

        Above one half, no object can have two matches, so no assignment is needed. Lower thresholds
        raise a ValueError.
        """
        if not 0.5 <= iou < 1:
            raise ValueError(f"the IoU threshold must lie in [0.5, 1), not {iou}")
        matched = int(np.count_nonzero(self.iou() > iou))
        return Counts(
            iou, matched, len(self.prediction_sizes) - matched, len(self.truth_sizes) - matched
        )

    def seg_score(self) -> float:
        """Return the mean IoU of truth objects with the prediction that covers more than half."""
        if not len(self.truth_sizes):
            return float("nan")
        covered = 2 * self.pixels > self.truth_sizes[self.truth_index]
        return float(self.iou()[covered].sum() / len(self.truth_sizes))


@dataclass(frozen=True)
class Matching:
    """Matched and unmatched objects at IoU > 0.5, as label values, and the resulting AP."""

    pairs: dict[int, int]
    """Labels of matched truth objects by predicted label."""
    missed: list[int]
    false: list[int]
    average_precision: float


def match_objects(truth: np.ndarray, prediction: np.ndarray) -> Matching:
    """Match predicted to truth objects at IoU > 0.5, where no object can match twice.

    As in :func:`metrics.average_precision`, pixels with a negative truth label are ignored in both
    images.
    """
    overlap = object_overlap(truth, prediction)
    truths = [int(label) for label in np.unique(truth) if label > 0]
    predictions = [int(label) for label in np.unique(prediction[truth >= 0]) if label > 0]
    matched = overlap.iou() > 0.5
    pairs = {
        predictions[column]: truths[row]
        for row, column in zip(
            overlap.truth_index[matched], overlap.prediction_index[matched], strict=True
        )
    }
    return Matching(
        pairs,
        missed=sorted(set(truths) - set(pairs.values())),
        false=sorted(set(predictions) - set(pairs)),
        average_precision=overlap.counts(0.5).average_precision,
    )


def object_overlap(truth: np.ndarray, prediction: np.ndarray) -> Overlap:
    """Count the pixels that the objects of two label images share.

    It counts runs of equal label pairs instead of pixels: time and memory depend neither on the
    label values nor on the product of the numbers of objects.

    Parameters
    ----------
    truth, prediction
        Label images of the same shape, any integer dtype or bool; 0 is background, a negative
        truth label means "ignore this pixel".

    Raises
    ------
    ValueError
        If the shapes differ, a dtype is not integer, or the prediction has negative labels.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"shapes differ: truth {truth.shape}, prediction {prediction.shape}")
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels.dtype.kind not in "iub":
            raise ValueError(f"{name} must be a label image of integers, not {labels.dtype}")
    truth, prediction = truth.ravel(), prediction.ravel()
    if truth.dtype.kind == "i" and truth.size and truth.min() < 0:
        kept = truth >= 0
        truth, prediction = truth[kept], prediction[kept]
    if prediction.dtype.kind == "i" and prediction.size and prediction.min() < 0:
        raise ValueError("the prediction has negative labels; only truth pixels can be ignored")

    changes = (truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])
    starts = np.concatenate([[0] if truth.size else [], np.flatnonzero(changes) + 1]).astype(int)
    lengths = np.diff(starts, append=truth.size)
    truth_sizes, truth_runs = _compact(truth[starts], lengths)
    prediction_sizes, prediction_runs = _compact(prediction[starts], lengths)

    both = (truth_runs >= 0) & (prediction_runs >= 0)
    n_prediction = max(len(prediction_sizes), 1)
    pairs, inverse = np.unique(
        truth_runs[both] * n_prediction + prediction_runs[both], return_inverse=True
    )
    pixels = _sum_by(inverse, lengths[both], len(pairs))
    return Overlap(
        truth_sizes, prediction_sizes, pairs // n_prediction, pairs % n_prediction, pixels
    )


def _compact(
    labels: np.ndarray, lengths: np.ndarray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pixels per object, and the object index of each run (-1 for background)."""
    values, index = np.unique(labels, return_inverse=True)
    sizes = _sum_by(index, lengths, len(values))
    has_background = int(values.size > 0 and values[0] == 0)
    return sizes[has_background:], index - has_background


def _sum_by(index: np.ndarray, lengths: np.ndarray, n: int) -> NDArray[np.int64]:
    # bincount sums weights in float64, which is exact for counts below 2**53.
    return np.bincount(index, weights=lengths, minlength=n).astype(np.int64)
