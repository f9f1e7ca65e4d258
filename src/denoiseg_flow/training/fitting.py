"""Make the model of a run: train it, choose its parameter, or measure what a threshold needs."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from denoiseg_flow.data.layout import PreparedData, image_file, input_folder
from denoiseg_flow.data.manifest import TESTED
from denoiseg_flow.data.noise import standard_deviation
from denoiseg_flow.data.store import centre_crop, middle_plane, open_image, read_metadata
from denoiseg_flow.evaluation.grey_levels import measure
from denoiseg_flow.methods import classical
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.models.initial_model import load_initial_model
from denoiseg_flow.models.model import AnyModel, ClassicalModel, ThresholdModel, TrainedModel
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.models.weights import load_pretrained
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.pixel_training import train_classifier
from denoiseg_flow.training.rehearsal import (
    Simulated,
    read_rehearsal,
    simulate_rehearsal,
)
from denoiseg_flow.training.trainer import train, train_each_image
from denoiseg_flow.training.training_images import TrainingImages, find_target, read_layout
from denoiseg_flow.version import __version__

logger = logging.getLogger(__name__)

# Images for the choice of a parameter, and side in pixels of their centres (in 3D, as many voxels),
# because each candidate denoises them several times.
CALIBRATION_IMAGES = 8
CALIBRATION_SIDE = 256

# Columns of the history of a method without a network; it has rows if a parameter was chosen.
LOSSES = ["parameter", "value", "loss_self_supervised", "loss_plain", "mse"]


@dataclass(frozen=True)
class RunData:
    """The files for the training of one run.

    Attributes
    ----------
    split
        Table of :func:`~denoiseg_flow.data.splitting.split`.
    prepared
        The prepared dataset, for masks and clean images.
    images
        Folder of the images to read, see :func:`layout.input_folder`.
    level
        The noise level's entry in the config, for methods that know it.
    init
        File or package of the model whose weights the training starts from.
    rehearsal
        File of simulated images, see :mod:`~denoiseg_flow.training.rehearsal`. None: they are
        simulated if they are needed.
    own_subsets
        The subsets on whose images a method trains one network each.
    """

    split: pd.DataFrame
    prepared: PreparedData
    images: Path
    level: Mapping[str, Any] = field(default_factory=dict)
    init: Path | None = None
    rehearsal: Path | None = None
    own_subsets: Sequence[str] = ()

    def images_of(self, subsets: Sequence[str]) -> list[Path]:
        """Return the files of the images of some subsets."""
        folder = input_folder(self.images)
        names = self.split.loc[self.split["subset"].isin(subsets), "image"]
        return [image_file(folder, name) for name in names]


def fit(job: TrainingJob, data: RunData) -> tuple[AnyModel, pd.DataFrame]:
    """Make the model of one run, whatever its method is.

    Returns
    -------
    The model, and its history: see :func:`~denoiseg_flow.training.trainer.train`, or
    :func:`~denoiseg_flow.methods.classical.calibrate`.
    """
    method = job.method
    model: AnyModel
    start: dict[str, Any] = {}
    files = TrainingImages.of_split(
        split=data.split,
        images=data.images,
        prepared=data.prepared,
        n_annotated=job.run.n_annotated,
        segments=method.learns_segmentation,
        target=find_target(method, data.prepared, job.run.noise, data.level),
    )
    if method.classical:
        # The choice uses no ground truth, so test images may serve if there are no others.
        learned_from = files.val or data.images_of(TESTED)
        model, history = _calibrate(job, data, learned_from)
    elif not method.trained:
        learned_from = files.train or files.val or data.images_of(TESTED)
        layout = read_layout(learned_from)
        sign = -1 if layout.colour else 1
        scales = tuple(sign * (each.std or 1.0) for each in measure(map(open_image, learned_from)))
        model = ThresholdModel(method, job.identity, layout, scales)
        history = pd.DataFrame(columns=LOSSES)
    elif method.each_image:
        learned_from = data.images_of(data.own_subsets)
        model, history = train_each_image(job, learned_from)
    elif method.segmenter:
        learned_from = files.train
        model = train_classifier(job, files)
        history = pd.DataFrame(columns=LOSSES)
    else:
        learned_from = files.train
        init: AnyModel | None = None
        if method.init in PRETRAINED:
            init = load_pretrained(method.init, job.device)
        elif method.init_file:
            path = data.init or Path(method.init_file)
            init, known = load_initial_model(method, job.network_recipe, path, job.device)
            start = {"init": known}
        elif data.init:
            init = load_model(data.init, job.device)
        assert init is None or isinstance(init, TrainedModel)
        model, history = train(job, files, init, find_rehearsal(job, data.rehearsal))
    # A model that stays as it was has the origin that it had.
    model.origin = (model.origin or find_origin(files, learned_from)) | start
    return model, history


def find_rehearsal(job: TrainingJob, path: Path | None) -> Simulated | None:
    """Return the simulated images of a training, from a file or newly simulated, if any."""
    recipe, method = job.network_recipe, job.method
    if not recipe.rehearses(method, job.run.n_annotated):
        return None
    if path:
        return read_rehearsal(path)
    assert method.rehearsed is not None
    pretrained = PRETRAINED[method.rehearsed]
    patch = recipe.patch_shape(pretrained.dimensions)
    return simulate_rehearsal(pretrained, patch)


def find_origin(files: TrainingImages, images: Sequence[Path]) -> dict[str, Any]:
    """Return the origin of a model for its file, as plain values.

    Parameters
    ----------
    files
        The files of the training.
    images
        The images that the model was trained or calibrated on.
    """
    metadata = read_metadata(images[0])
    return {
        "software": f"denoiseg-flow {__version__}",
        "torch": str(torch.__version__),
        "images": len(images),
        "annotated": sum(mask is not None for mask in files.train_masks),
        "validation_images": len(files.val),
        "axes": metadata.axes,
        "pixel_size": dict(metadata.pixel_size),
        "channels": list(metadata.channels),
        # Mean and standard deviation of each channel.
        "grey_levels": [[each.mean, each.std] for each in measure(map(open_image, images))],
    }


def _calibrate(
    job: TrainingJob, data: RunData, images: Sequence[Path]
) -> tuple[ClassicalModel, pd.DataFrame]:
    """Choose the parameter of a classical denoiser on validation images, without clean images.

    If clean images are known, the history lists the true error next to the self-supervised loss.
    """
    method = job.method
    name, values = method.classical, method.parameter
    assert name is not None
    sigma = standard_deviation(data.level) if method.noise_sigma == "known" else None
    if not method.calibrated:
        parameter = values if isinstance(values, int | float) else None
        model = ClassicalModel(method, job.identity, parameter, sigma)
        return model, pd.DataFrame(columns=LOSSES)
    images = images[:CALIBRATION_IMAGES]
    truth = [data.prepared.clean(path.stem) for path in images]
    table = classical.calibrate(
        name,
        values if isinstance(values, Sequence) else classical.candidates(name),
        _centres(images, method.planes),
        sigma,
        _centres(truth, method.planes) if all(path.exists() for path in truth) else None,
    )
    best = classical.best_value(table)
    logger.info("%s %g has the lowest self-supervised loss", table["parameter"].iloc[0], best)
    return ClassicalModel(method, job.identity, best, sigma), table


def _centres(paths: Sequence[Path], planes: bool) -> Iterator[np.ndarray]:
    """Yield the centres of images channel by channel, each with at most the same pixels."""
    for path in paths:
        for channel in open_image(path):
            image = middle_plane(channel) if planes else channel
            depth = len(image) if image.ndim == 3 else 1
            yield centre_crop(image, math.isqrt(CALIBRATION_SIDE**2 // depth))
