"""Calibrate the confidence of objects: which share of them is correct?

The confidence of an object is no probability. Annotated images that the network was not trained on
tell which share of the objects of some confidence is correct, that is, has an IoU of more than 0.5
with an annotated object. Objects are divided by confidence into groups of equal size, and isotonic
regression makes the shares of the groups rise (Zadrozny & Elkan 2002).

The objects of an image are alike, so many objects in few images say less than their number. The
intervals are those of Wilson (1927) for the effective number of objects: their number divided by
the design effect of images as clusters (Rao & Scott 1992).
"""

import math
from collections.abc import Iterable
from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from denoiseg_flow.evaluation.confidence import centre, object_confidences, segment
from denoiseg_flow.evaluation.overlap import match_objects
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.precision_curve import PrecisionCurve

FEWEST = 20  # objects in a group
GROUPS = 10  # at most
IMAGES = 50  # at most
_Z = NormalDist().inv_cdf(0.975)

COLUMNS = ["image", "confidence", "correct"]


def judge_objects(
    model: TrainedModel, pairs: Iterable[tuple[str, np.ndarray, np.ndarray]]
) -> pd.DataFrame:
    """Compare predicted objects with annotated ones.

    Parameters
    ----------
    pairs
        Name, image (channel, [z,] y, x) and mask ([z,] y, x) of annotated images. An image is
        predicted by the model that was not trained on it; of a large one, the centre is.

    Returns
    -------
    pandas.DataFrame
        One row per predicted object: image, confidence and correct (bool). Objects in pixels that
        are not annotated are left out.
    """
    rows = []
    for name, image, truth in pairs:
        own, place = model.for_image(name), centre(truth.shape)
        part = image[:, *place]
        labels = segment(own, part)
        confidences = object_confidences(own, part, labels)
        correct = are_correct(truth[place], labels)
        numbers = np.unique(labels[labels > 0])
        rows += [
            (name, value, correct[number])
            for number, value in zip(numbers.tolist(), confidences, strict=True)
            if number in correct
        ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"confidence": float, "correct": bool})


def are_correct(truth: np.ndarray, labels: np.ndarray) -> dict[int, bool]:
    """Return for each predicted object whether its IoU with an annotated one exceeds 0.5.

    Pixels with a negative truth are ignored, and objects that lie in them are left out.
    """
    found = match_objects(truth, labels)
    return dict.fromkeys(found.pairs, True) | dict.fromkeys(found.false, False)


def fit_precision(objects: pd.DataFrame) -> PrecisionCurve | None:
    """Return the precision by confidence; None for fewer than :data:`FEWEST` objects.

    Parameters
    ----------
    objects
        See :func:`judge_objects`.
    """
    n_groups = min(GROUPS, len(objects) // FEWEST)
    if not n_groups:
        return None
    objects = objects.sort_values("confidence", kind="stable")
    numbers = np.arange(len(objects)) * n_groups // len(objects)
    groups = objects.groupby(numbers).agg(
        confidence=("confidence", "mean"), correct=("correct", "sum"), count=("correct", "size")
    )
    groups["confidence"] = groups["confidence"].round(4)
    groups = groups.groupby("confidence", as_index=False).sum()
    share = groups["correct"] / groups["count"]
    groups["share"] = isotonic_regression(share, weights=groups["count"]).x
    expected = np.interp(objects["confidence"], groups["confidence"], groups["share"])
    effect = design_effect(objects["correct"] - expected, expected, objects["image"])
    bounds = [
        wilson(share, count / effect)
        for share, count in zip(groups["share"], groups["count"], strict=True)
    ]
    confidence, precision, lower, upper = (
        [round(float(value), 4) for value in column]
        for column in (groups["confidence"], groups["share"], *zip(*bounds, strict=True))
    )
    return PrecisionCurve(
        confidence, precision, lower, upper, len(objects), objects["image"].nunique()
    )


def design_effect(
    residuals: np.ndarray | pd.Series, expected: np.ndarray, images: pd.Series
) -> float:
    """Return by how much the likeness of the objects of an image raises the variance of a share.

    It is at least 1, also for a single image, where it is unknown.

    Parameters
    ----------
    residuals
        Correct (1) or not (0), minus the expected share.
    expected, images
        Expected share, and image of each object.
    """
    sums = pd.Series(np.asarray(residuals)).groupby(np.asarray(images)).sum()
    independent = float((expected * (1 - expected)).sum())
    if len(sums) < 2 or not independent:
        return 1.0
    clustered = float((sums**2).sum()) * len(sums) / (len(sums) - 1)
    return max(1.0, clustered / independent)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return the 95% interval of a share of so many independent objects."""
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = (
        _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    )
    return max(0.0, middle - half), min(1.0, middle + half)
