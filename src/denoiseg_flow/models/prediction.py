"""Predict the class probabilities of images in memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from denoiseg_flow.data.store import open_image
from denoiseg_flow.methods.classes import DISTANCE
from denoiseg_flow.methods.instances import label_instances
from denoiseg_flow.models.model import AnyModel, TrainedModel
from denoiseg_flow.models.rescaled_prediction import predict_rescaled
from denoiseg_flow.models.tiled_prediction import check_tile


def predict_probabilities(model: TrainedModel, image: np.ndarray) -> np.ndarray:
    """Return the class probabilities (3, [z,] y, x), float32, of an image (channel, [z,] y, x)."""
    return next(predict_maps(model, [image]))[:DISTANCE]


def label_maps(model: TrainedModel, maps: np.ndarray) -> np.ndarray:
    """Return the labels ([z,] y, x) of an image by its :attr:`PredictedTile.maps`."""
    chosen = model.threshold
    assert chosen is not None
    return next(label_instances(maps, [chosen.value], model.recipe.instances, chosen.prominence))


def predict_maps_of_files(model: AnyModel, files: Iterable[Path]) -> Iterator[np.ndarray]:
    """Yield :attr:`PredictedTile.maps` of images, each predicted by the model for its name."""
    for each, of_model in by_model(model, files):
        yield from predict_maps(each, map(open_image, of_model))


def by_model(model: AnyModel, files: Iterable[Path]) -> Iterator[tuple[Any, Iterator[Path]]]:
    """Group consecutive files by the model that predicts them."""
    return groupby(files, key=lambda file: model.for_image(file.stem))


def predict_maps(
    model: TrainedModel,
    images: Iterable[np.ndarray],
    tile: int | None = None,
    factors: Sequence[float] | None = None,
) -> Iterator[np.ndarray]:
    """Yield :attr:`PredictedTile.maps` of images (channel, [z,] y, x).

    For ``tile`` and ``factors``, see :func:`~denoiseg_flow.models.predict_run.predict_files`.
    """
    kept = None if tile is None else check_tile(model, tile)
    shapes: deque[tuple[int, ...]] = deque()

    def noted() -> Iterator[np.ndarray]:
        for image in images:
            shapes.append(image.shape[1:])
            yield image

    for _, tiles in groupby(predict_rescaled(model, noted(), kept, factors), key=itemgetter(0)):
        shape = shapes.popleft()
        maps = np.empty((model.n_maps, *shape), dtype=np.float32)
        for _, each in tiles:
            maps[:, *each.place] = each.maps
        yield maps
