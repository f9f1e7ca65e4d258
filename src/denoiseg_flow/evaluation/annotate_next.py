"""Which images to annotate next: uncertain ones that stand for many others.

The most uncertain images by themselves are often odd, and alike. So of the more uncertain ones,
those are taken, one by one, that are most like the images which have none like them yet, annotated
or suggested (Suggestive Annotation: Yang, Zhang, Chen, Zhang & Chen, MICCAI 2017; here with the
entropy of one network, and the greedy solution of the facility location problem).
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

from denoiseg_flow.data.store import open_image
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.tiled_prediction import predict_tiles

MANY = 2000  # images: of more, so many are looked at
LISTED = 50  # images, at most
UNCERTAIN = 1 / 3  # share of the images that is suggested from
COLUMNS = ["rank", "image", "uncertainty"]
FEWEST = 8  # images are suggested from, if there are so many


def suggest(
    model: TrainedModel, images: Path, annotated: Sequence[str], others: Sequence[str]
) -> pd.DataFrame:
    """Order images by how much their annotation should help.

    Parameters
    ----------
    model
        That segments.
    images
        Folder of the images it reads, ``{image}.tif`` each.
    annotated, others
        Names of the images that have a mask, and of those that have none; of more than
        :data:`MANY` others, so many are drawn.

    Returns
    -------
    pandas.DataFrame
        Of :data:`LISTED` images at most: rank (1 is the first to annotate), image, and
        uncertainty, see :func:`look_at`.
    """
    if not others:
        return pd.DataFrame(columns=COLUMNS)
    if len(others) > MANY:
        drawn = sorted(others, key=lambda name: generator(0, "suggestions", name).random())
        others = sorted(drawn[:MANY])
    looked = [look_at(model, open_image(images / f"{name}.tif")) for name in (*annotated, *others)]
    uncertainty = np.array([entropy for entropy, _ in looked[len(annotated) :]])
    features = np.array([each for _, each in looked])
    known, new = np.split(features, [len(annotated)])
    count = min(len(others), max(FEWEST, math.ceil(UNCERTAIN * len(others))))
    candidates = np.argsort(-uncertainty, kind="stable")[:count]
    order = coverage_order(new, known, candidates, LISTED)
    values = range(1, len(order) + 1), [others[place] for place in order], uncertainty[order]
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def look_at(model: TrainedModel, image: np.ndarray) -> tuple[float, NDArray[np.float64]]:
    """Return what a network thinks of an image: its uncertainty, and a description.

    The uncertainty is the mean entropy of the class probabilities in bits. The description are
    mean and standard deviation of the features that the last convolution reads.
    """
    total, count = 0.0, 0
    with _features(model.predictor) as noted:
        for tile in predict_tiles(model, image):
            uncertain = entropy(tile.probabilities)
            total += float(uncertain.sum(dtype=np.float64))
            count += uncertain.size
    sizes, means, squares = zip(*noted, strict=True)
    mean, square = (np.average(values, axis=0, weights=sizes) for values in (means, squares))
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return total / count, np.concatenate([mean, spread])


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy (...) of class probabilities (class, ...), in bits."""
    clipped = np.clip(probabilities, np.finfo(np.float32).tiny, 1)
    return -(clipped * np.log2(clipped)).sum(axis=0)


@contextmanager
def _features(network: nn.Module) -> Iterator[list[tuple[int, np.ndarray, np.ndarray]]]:
    """Note size, means and mean squares of what the last convolution reads, at every call."""
    noted: list[tuple[int, np.ndarray, np.ndarray]] = []

    def note(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        x = inputs[0].double()
        others = [axis for axis in range(x.dim()) if axis != 1]
        mean, square = (values.mean(dim=others).cpu().numpy() for values in (x, x.square()))
        noted.append((x[:, 0].numel(), mean, square))

    kinds = (nn.Conv2d, nn.Conv3d)
    last = [layer for layer in network.modules() if isinstance(layer, kinds)][-1]
    hook = last.register_forward_pre_hook(note)
    try:
        yield noted
    finally:
        hook.remove()


def coverage_order(
    features: np.ndarray, covered: np.ndarray, candidates: np.ndarray, count: int
) -> NDArray[np.int64]:
    """Return which images to take, one after the other, to have one like each of them soonest.

    Parameters
    ----------
    features
        (image, feature) of the images that want one like them.
    covered
        (image, feature) of those that are taken already, one at least.
    candidates
        Which of the images may be taken.
    count
        How many to take, at most.
    """
    scale = np.concatenate([covered, features]).std(axis=0)
    scale[scale == 0] = 1
    distances = cdist(features / scale, features / scale)
    uncovered = cdist(features / scale, covered / scale).min(axis=1)
    order: list[int] = []
    left = list(candidates)
    while left and len(order) < count:
        gain = np.maximum(uncovered[:, None] - distances[:, left], 0).sum(axis=0)
        order.append(int(left.pop(int(np.argmax(gain)))))
        uncovered = np.minimum(uncovered, distances[order[-1]])
    return np.array(order, dtype=np.int64)
