"""Suggest which images to annotate next: doubtful images that represent many others.

The images with the least confident predictions alone are often outliers, or similar to each other.
So among the less confident images, the method picks one by one the image that is most similar to
the images without a similar annotated or suggested image so far (Suggestive Annotation: Yang,
Zhang, Chen, Zhang & Chen, MICCAI 2017; here with the confidence of one network, see
:mod:`confidence`, and the greedy solution of the facility location problem).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import nn

from denoiseg_flow.data.layout import image_file
from denoiseg_flow.data.store import open_image
from denoiseg_flow.evaluation.confidence import centre, confidence, object_confidences, segment
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.methods.pixel_classifier import Forest
from denoiseg_flow.models.model import TrainedModel

MANY = 2000  # images to examine at most; of more, a random sample
LISTED = 50  # suggestions at most
DOUBTFUL = 1 / 3  # share of the images, the least confident ones, to pick suggestions from
COLUMNS = ["rank", "image", "confidence"]
FEWEST = 8  # images to pick suggestions from at least


def suggest(
    model: TrainedModel, images: Path, annotated: Sequence[str], others: Sequence[str]
) -> pd.DataFrame:
    """Rank images by the expected benefit of their annotation.

    Parameters
    ----------
    model
        A model that segments.
    images
        Folder with the input images of the model, one ``{image}.tif`` each.
    annotated, others
        Names of the images with and without a mask. If there are more than :data:`MANY` others, a
        random sample of that size is used.

    Returns
    -------
    pandas.DataFrame
        At most :data:`LISTED` images: rank (1 is the first to annotate), image, and confidence,
        see :func:`confidence_and_features`.
    """
    if not others:
        return pd.DataFrame(columns=COLUMNS)
    if len(others) > MANY:
        drawn = sorted(others, key=lambda name: generator(0, "suggestions", name).random())
        others = sorted(drawn[:MANY])
    looked = [
        confidence_and_features(model, open_image(image_file(images, name)))
        for name in (*annotated, *others)
    ]
    confidences = np.array([each for each, _ in looked[len(annotated) :]])
    features = np.array([each for _, each in looked])
    known, new = np.split(features, [len(annotated)])
    count = min(len(others), max(FEWEST, math.ceil(DOUBTFUL * len(others))))
    candidates = np.argsort(confidences, kind="stable")[:count]
    order = coverage_order(new, known, candidates, LISTED)
    values = range(1, len(order) + 1), [others[place] for place in order], confidences[order]
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def confidence_and_features(
    model: TrainedModel, image: np.ndarray
) -> tuple[float, NDArray[np.float64]]:
    """Return the confidence of a network in an image, and a feature vector of the image.

    The feature vector consists of mean and standard deviation of the input features of the last
    layer. Both are those of the examined part of a large image, see :func:`confidence.centre`.
    """
    part = image[:, *centre(image.shape[1:])]
    with _features(model.predictor) as noted:
        labels = segment(model, part)
    sizes, means, squares = zip(*noted, strict=True)
    mean, square = (np.average(values, axis=0, weights=sizes) for values in (means, squares))
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    objects = object_confidences(model, part, labels)
    return confidence(objects, len(objects)), np.concatenate([mean, spread])


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy (...) of class probabilities (class, ...), in bits."""
    clipped = np.clip(probabilities, np.finfo(np.float32).tiny, 1)
    return -(clipped * np.log2(clipped)).sum(axis=0)


@contextmanager
def _features(network: nn.Module) -> Iterator[list[tuple[int, np.ndarray, np.ndarray]]]:
    """Record size, means and mean squares of the input of the last layer at every call.

    That is the last convolution of a network, or the forest of a pixel classifier.
    """
    noted: list[tuple[int, np.ndarray, np.ndarray]] = []

    def note(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        x = inputs[0].double()
        others = [axis for axis in range(x.dim()) if axis != 1]
        mean, square = (values.mean(dim=others).cpu().numpy() for values in (x, x.square()))
        noted.append((x[:, 0].numel(), mean, square))

    kinds = (nn.Conv2d, nn.Conv3d, Forest)
    last = [layer for layer in network.modules() if isinstance(layer, kinds)][-1]
    hook = last.register_forward_pre_hook(note)
    try:
        yield noted
    finally:
        hook.remove()


def coverage_order(
    features: np.ndarray, covered: np.ndarray, candidates: np.ndarray, count: int
) -> NDArray[np.int64]:
    """Return the order in which to pick images so that every image soon has a similar picked one.

    Parameters
    ----------
    features
        (image, feature) of the images to cover.
    covered
        (image, feature) of the images that are already picked. Without any, the first pick is the
        candidate that is most similar to all images.
    candidates
        Indices of the images that may be picked.
    count
        How many images to pick at most.
    """
    scale = np.concatenate([covered, features]).std(axis=0)
    scale[scale == 0] = 1
    distances = cdist(features / scale, features / scale)
    if len(covered):
        uncovered = cdist(features / scale, covered / scale).min(axis=1)
    else:
        uncovered = np.full(len(features), distances.max())
    order: list[int] = []
    left = list(candidates)
    while left and len(order) < count:
        gain = np.maximum(uncovered[:, None] - distances[:, left], 0).sum(axis=0)
        order.append(int(left.pop(int(np.argmax(gain)))))
        uncovered = np.minimum(uncovered, distances[order[-1]])
    return np.array(order, dtype=np.int64)
