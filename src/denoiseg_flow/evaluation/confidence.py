"""How confident a network is of the objects that it finds in an image.

A mirrored image shows the same objects, so a network that recognises them finds them again. The
confidence of an object is

    IoU(object, the most similar object of the mirrored image) * mean p(foreground) in the object,

both from the prediction of the mirrored image, mirrored back. That of an image is the mean over its
objects, and 0 if there are none. It needs no annotation. See docs/explanation/trust.md for how well
it ranks images, and ``benchmarks/confidence.py`` for the comparison with other measures.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from denoiseg_flow.data.files.tiles import Place, Readable
from denoiseg_flow.evaluation.overlap import object_overlap
from denoiseg_flow.methods.classes import FOREGROUND
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.precision_curve import PrecisionCurve
from denoiseg_flow.models.prediction import label_maps, predict_maps

# A lower confidence of an image is low: the cut of benchmarks/confidence.py, which divides images
# of nuclei from photographs of other things.
LOW = 0.6

SIDE = 1024  # pixels: of larger images, a centre of as many pixels as this square is examined


def centre(shape: tuple[int, ...]) -> Place:
    """Return the part of an image of a shape ([z,] y, x) that is examined: in volumes, all z."""
    side = max(1, math.isqrt(SIDE**2 // math.prod(shape[:-2])))
    starts = [max(0, (length - side) // 2) for length in shape[-2:]]
    along = [slice(start, start + side) for start in starts]
    return (*(slice(0, length) for length in shape[:-2]), *along)


def segment(model: TrainedModel, image: np.ndarray, tile: int | None = None) -> np.ndarray:
    """Return the labels ([z,] y, x) of an image (channel, [z,] y, x) that fits into memory."""
    return label_maps(model, next(predict_maps(model, [image], tile)))


def object_confidences(
    model: TrainedModel,
    image: np.ndarray,
    labels: Readable,
    tile: int | None = None,
    factors: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Return the confidence of each object in the centre of an image, in the order of the labels.

    Parameters
    ----------
    image
        (channel, [z,] y, x), as the model reads it; may be memory-mapped.
    labels
        ([z,] y, x), predicted by the model for this image.
    tile, factors
        See :func:`~denoiseg_flow.models.predict_run.predict_files`.
    """
    place = centre(labels.shape)
    found = labels[place]
    objects = np.unique(found[found > 0])
    if not len(objects):
        return np.zeros(0)
    if model.recipe.test_time_augmentation:
        # Averaged over its orientations, the prediction would be the same for the mirrored image.
        model = replace(model, recipe=replace(model.recipe, test_time_augmentation=False))
    mirrored = np.ascontiguousarray(image[:, *place][..., ::-1])
    maps = next(predict_maps(model, [mirrored], tile, factors))
    again, foreground = label_maps(model, maps)[..., ::-1], maps[FOREGROUND][..., ::-1]
    return object_overlap(found, again).best_iou() * scipy.ndimage.mean(foreground, found, objects)


def of_labels(labels: Readable, objects: np.ndarray) -> pd.Series:
    """Return what :func:`object_confidences` found for the labels of an image, by label."""
    found = labels[centre(labels.shape)]
    return pd.Series(objects, np.unique(found[found > 0]), dtype=float)


def with_confidence(
    table: pd.DataFrame, confidences: pd.Series, precision: PrecisionCurve | None
) -> pd.DataFrame:
    """Return a table of objects with their confidence and, if known, their expected precision.

    Parameters
    ----------
    table
        One row per object of an image, with its number in the column label.
    confidences
        See :func:`of_labels`; objects outside of the examined centre have none.
    precision
        Precision by confidence, see :mod:`~denoiseg_flow.evaluation.object_precision`.
    """
    values = table["label"].map(confidences).astype(float)
    table = table.assign(confidence=values.round(4))
    if precision:
        table["expected_precision"] = precision.at(values.to_numpy()).round(4)
    return table


def confidence(objects: np.ndarray, n_objects: int) -> float:
    """Return the confidence of an image.

    Parameters
    ----------
    objects
        Confidences of its examined objects.
    n_objects
        Number of objects in the whole image.

    Returns
    -------
    float
        0 without any object, NaN if there are objects outside the examined centre only.
    """
    if len(objects):
        return float(np.mean(objects))
    return float("nan") if n_objects else 0.0


def doubt(source: object, value: float, n_objects: int) -> str | None:
    """Return a sentence about an image whose confidence is low, otherwise None."""
    if not n_objects:
        return f"no object was found in {source} (confidence 0)"
    if not value < LOW:
        return None
    return (
        f"the labels of {source} are doubtful (confidence {value:.2f}, below {LOW}): compare them "
        "with the image, above all if it shows something else than the images that the network was "
        "trained on"
    )
