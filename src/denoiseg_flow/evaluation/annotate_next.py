"""Suggest which images to annotate next: doubtful images that represent many others.

The images with the least confident predictions alone are often outliers, or similar to each other.
So among the less confident images, the method picks one by one the image that is most similar to
the images without a similar annotated or suggested image so far (Suggestive Annotation: Yang,
Zhang, Chen, Zhang & Chen, MICCAI 2017; here with the confidence of one network, see
:mod:`confidence`, and the greedy solution of the facility location problem).

Crops are suggested in the same way: each image is divided into crops that do not overlap, and every
crop is examined like an image of its own.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, product
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import nn

from denoiseg_flow.data.files.tiles import Place
from denoiseg_flow.data.layout import image_file
from denoiseg_flow.data.store import open_image
from denoiseg_flow.evaluation.confidence import centre, confidence, object_confidences, segment
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.methods.pixel_classifier import Forest
from denoiseg_flow.models.model import TrainedModel

MANY = 2000  # images or crops to examine at most; of more, a random sample
LISTED = 50  # suggestions at most
DOUBTFUL = 1 / 3  # share of the images, the least confident ones, to pick suggestions from
COLUMNS = ["rank", "image", "confidence", "y", "x"]
FEWEST = 8  # images to pick suggestions from at least


class Part(NamedTuple):
    """An image, or a crop of it, that may be annotated."""

    image: str
    place: Place
    """(y, x); of volumes, all z-slices."""


def suggest(
    model: TrainedModel,
    images: Path,
    annotated: Sequence[str],
    others: Sequence[str],
    side: int | None = None,
    taken: Mapping[str, Sequence[Place]] | None = None,
    least: int = FEWEST,
) -> pd.DataFrame:
    """Rank images, or crops of them, by the expected benefit of their annotation.

    Parameters
    ----------
    model
        A model that segments.
    images
        Folder with the input images of the model, one ``{image}.tif`` each.
    annotated, others
        Names of the images with and without a mask. If there are more than :data:`MANY` others, or
        crops of them, a random sample of that size is used.
    side
        Height and width of crops in pixels. None: whole images.
    taken
        Crops (y, x) of ``others``, by image, that are annotated already and must not be overlapped.
    least
        How many to rank at least, if there are so many.

    Returns
    -------
    pandas.DataFrame
        At most :data:`LISTED` images or crops: rank (1 is the first to annotate), image,
        confidence, see :func:`confidence_and_features`, and the first row and column, y and x. If
        nothing is found in a crop, its confidence is that of the other crops of its image: the
        background of a well segmented image is not in doubt.
    """
    known, new = (_parts(images, names, side, taken or {}) for names in (annotated, others))
    if not new:
        return pd.DataFrame(columns=COLUMNS)
    parts = [*known, *new]
    looked = []
    for name, of_image in groupby(parts, key=attrgetter("image")):
        image = open_image(image_file(images, name))
        looked += [confidence_and_features(model, cut(image, part.place)) for part in of_image]
    confidences = pd.Series([each for each, _ in looked[len(known) :]])
    if side is not None:
        found = confidences.mask(confidences == 0)
        elsewhere = found.groupby([part.image for part in new]).transform("mean")
        confidences = found.fillna(elsewhere).fillna(0.0)
    features = np.array([each for _, each in looked])
    covered, uncovered = np.split(features, [len(known)])
    count = min(len(new), max(least, math.ceil(DOUBTFUL * len(new))))
    candidates = np.argsort(confidences, kind="stable")[:count]
    order = coverage_order(uncovered, covered, np.asarray(candidates), LISTED)
    rows = [
        (rank, new[at].image, confidences[at], *(along.start for along in new[at].place))
        for rank, at in enumerate(order, start=1)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _parts(
    images: Path, names: Iterable[str], side: int | None, taken: Mapping[str, Sequence[Place]]
) -> list[Part]:
    """Return the images of these names, or their crops: a sample of them if there are many."""
    found = [
        Part(name, place)
        for name in names
        for place in crops(open_image(image_file(images, name)).shape[-2:], side)
        if not any(overlap(place, other) for other in taken.get(name, ()))
    ]
    if len(found) <= MANY:
        return found
    drawn = generator(0, "suggestions").choice(len(found), MANY, replace=False)
    return [found[index] for index in np.sort(drawn)]


def crops(shape: Sequence[int], side: int | None) -> list[Place]:
    """Divide an image (y, x) into as many crops as fit, evenly spread, which do not overlap.

    Axes shorter than ``side`` stay whole, as do all axes without ``side``.
    """

    def along(length: int) -> list[slice]:
        size = min(side or length, length)
        n_crops, spare = length // size, length % size
        # The spare pixels are shared out among the gaps; a single crop is in the centre.
        starts = (
            number * size + spare * (2 * number + 1) // (2 * n_crops) for number in range(n_crops)
        )
        return [slice(start, start + size) for start in starts]

    return list(product(*map(along, shape)))


def cut(image: np.ndarray, place: Place) -> np.ndarray:
    """Return a crop (y, x) of an image (..., y, x)."""
    y, x = place
    return image[..., y, x]


def overlap(one: Place, other: Place) -> bool:
    """Return whether two boxes share pixels."""
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


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
