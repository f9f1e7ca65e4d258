"""Train a pixel classifier on samples of the annotated pixels."""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.tiles import boxes
from denoiseg_flow.data.store import open_image
from denoiseg_flow.evaluation.grey_levels import measure
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.methods.classes import CLASSES
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.methods.pixel_classifier import PixelClassifier, fit_forest
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.tiled_prediction import tile_shape
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.trainer import set_threshold, train_folds
from denoiseg_flow.training.training_images import (
    TrainingImages,
    check_subsets,
    find_layout,
    read_classes,
    read_layout,
)

logger = logging.getLogger(__name__)

SAMPLES = 300  # pixels of each class and annotated image, at most


def train_classifier(job: TrainingJob, images: TrainingImages) -> TrainedModel:
    """Train a pixel classifier and choose its threshold on the validation images.

    Parameters and errors are those of :func:`~denoiseg_flow.training.trainer.train`, and
    cross-validation is as there.
    """
    check_subsets(job.method, images, job.run.dataset)
    layout = find_layout(job.method, job.network_recipe, read_layout([*images.train, *images.val]))
    held_out = train_folds(images, lambda _, fold: _train_on(job, images.without(fold), layout))
    model = _train_on(job, images, layout)
    model.held_out = held_out
    set_threshold(model, images)
    return model


def _train_on(job: TrainingJob, images: TrainingImages, layout: Layout) -> TrainedModel:
    levels = measure(map(open_image, images.train))
    normalisation = Normalisation.of_channels([(each.mean, each.std or 1.0) for each in levels])
    classifier = PixelClassifier(layout).eval()
    samples = [
        _draw_samples(classifier, image, mask, normalisation, job.run.seed)
        for image, mask in zip(images.train, images.train_masks, strict=True)
        if mask is not None
    ]
    features, classes, weights = (np.concatenate(part) for part in zip(*samples, strict=True))
    seed = int(generator(job.run.seed, "forest").integers(2**31))
    fit_forest(classifier.forest, features, classes, weights, seed)
    logger.info("trained on %d pixels of %d annotated images", len(classes), len(samples))
    return TrainedModel(
        job.method,
        job.network_recipe,
        job.identity,
        normalisation,
        classifier.to(job.device),
        layout,
    )


def _draw_samples(
    classifier: PixelClassifier, path: Path, mask: Path, normalisation: Normalisation, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.float64]]:
    """Return features, classes and weights of some pixels of an image."""
    image = open_image(path)
    shape = image.shape[1:]
    parts = read_classes(mask, torch.device("cpu"), (1,) * len(shape))
    codes = np.concatenate([part.numpy().ravel() for part in parts])
    random = generator(seed, "pixels", path.stem)
    places, classes, weights = [], [], []
    for kind in range(len(CLASSES)):
        found = np.flatnonzero(codes == kind)
        drawn = random.choice(found, min(SAMPLES, len(found)), replace=False)
        places.append(drawn)
        classes.append(np.full(len(drawn), kind, np.int8))
        weights.append(np.full(len(drawn), len(found) / max(len(drawn), 1)))
    at = np.stack(np.unravel_index(np.concatenate(places), shape))
    features = _features_at(classifier, image, at, normalisation)
    return features, np.concatenate(classes), np.concatenate(weights)


@torch.inference_mode()
def _features_at(
    classifier: PixelClassifier, image: np.ndarray, at: np.ndarray, normalisation: Normalisation
) -> NDArray[np.float32]:
    """Return the features (pixel, feature) of pixels (axis, pixel), computed tile by tile."""
    features = np.empty((at.shape[1], classifier.forest.n_features), np.float32)
    mean, std = normalisation.scale(image.ndim - 1)
    sides = tile_shape(image.shape[1:], classifier.halo)
    for kept, seen in boxes(image.shape[1:], sides, classifier.halo):
        axes = list(zip(at, kept, seen, strict=True))
        inside = np.all([(along.start <= p) & (p < along.stop) for p, along, _ in axes], axis=0)
        if not inside.any():
            continue
        x = (torch.from_numpy(image[:, *seen].astype(np.float32)) - mean) / std
        release(image)
        local = [p[inside] - wide.start for p, _, wide in axes]
        features[inside] = classifier.features(x[None])[0][:, *local].T.numpy()
    return features
