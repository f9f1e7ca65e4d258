"""From a method and the files of a run to its model: training, or the choice of a parameter."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from denoiseg_flow import __version__
from denoiseg_flow.data.layout import input_folder
from denoiseg_flow.data.manifest import TESTED
from denoiseg_flow.data.noise import standard_deviation
from denoiseg_flow.data.store import centre_crop, middle_plane, open_channels, read_metadata
from denoiseg_flow.evaluation.grey_levels import measure
from denoiseg_flow.methods import classical
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.models.model import AnyModel, ClassicalModel
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.trainer import train, train_each_image
from denoiseg_flow.training.training_images import TrainingImages, find_target

logger = logging.getLogger(__name__)

# What a parameter is chosen on, as each candidate denoises all of it several times: so many images,
# and of each its centre, so many pixels a side; of volumes, as many voxels.
CALIBRATION_IMAGES = 8
CALIBRATION_SIDE = 256

# Columns of the history of a classical denoiser; it has no rows where nothing was to be chosen.
LOSSES = ["parameter", "value", "loss_self_supervised", "loss_plain", "mse"]


def fit(
    method: Method,
    recipe: Recipe | None,
    identity: dict[str, Any],
    level: Mapping[str, Any] | None,
    split: pd.DataFrame,
    prepared: Path,
    images: Path,
    init: Path | None,
    own_subsets: Sequence[str],
    checkpoints: Checkpoints,
    device: torch.device,
) -> tuple[AnyModel, pd.DataFrame]:
    """Make the model of one run, whatever its method is.

    Parameters
    ----------
    recipe
        None for classical denoisers.
    identity
        dataset, noise, method, n_annotated and seed of the run.
    level
        The noise level's entry in the config, for methods that know it.
    split
        Table of :func:`~denoiseg_flow.data.splitting.split`.
    prepared, images
        Folder of the prepared dataset, and of the images to read.
    init
        File of the model whose weights the training starts from.
    own_subsets
        The subsets on whose images a method trains one network each.
    checkpoints, device
        As for :func:`~denoiseg_flow.training.trainer.train`.

    Returns
    -------
    The model, and its history: see :func:`trainer.train`, or :func:`classical.calibrate`.
    """
    files = TrainingImages.of_split(
        split=split,
        images=images,
        masks=prepared / "masks",
        n_annotated=identity["n_annotated"],
        segments=method.segments,
        target=find_target(method, prepared, identity["noise"], level),
    )

    def images_of(subsets: Sequence[str]) -> list[Path]:
        names = split.loc[split["subset"].isin(subsets), "image"]
        return [input_folder(images) / f"{name}.tif" for name in names]

    if method.classical:
        sigma = standard_deviation(level) if method.noise_sigma == "known" else None
        # The choice needs no truth, so that nothing is lost where all images are for testing.
        learned_from = files.val or images_of(TESTED)
        model, history = _calibrate(method, identity, learned_from, prepared / "clean", sigma)
    elif method.each_image:
        learned_from = images_of(own_subsets)
        model, history = train_each_image(
            method, recipe, identity, learned_from, checkpoints, device
        )
    else:
        learned_from = files.train
        start = load_model(init, device) if init else None
        model, history = train(method, recipe, identity, files, checkpoints, device, start)
    model.origin = find_origin(files, learned_from)
    return model, history


def find_origin(files: TrainingImages, images: Sequence[Path]) -> dict[str, Any]:
    """Return what a model file tells of its training, in plain values.

    Parameters
    ----------
    files
        What the training was given.
    images
        What the model was trained or chosen on.
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
        "grey_levels": [[each.mean, each.std] for each in measure(map(open_channels, images))],
    }


def _calibrate(
    method: Method, identity: dict[str, Any], images: Sequence[Path], clean: Path, sigma: float
) -> tuple[ClassicalModel, pd.DataFrame]:
    """Choose the parameter of a classical denoiser on validation images, without clean ones.

    Where there are clean ones, the history tells the true error beside the self-supervised one.
    """
    name, values = method.classical, method.parameter
    if not method.calibrated:
        return ClassicalModel(method, identity, values, sigma), pd.DataFrame(columns=LOSSES)
    images = images[:CALIBRATION_IMAGES]
    truth = [clean / path.name for path in images]
    table = classical.calibrate(
        name,
        classical.candidates(name) if values is None else values,
        _centres(images, method.planes),
        sigma,
        _centres(truth, method.planes) if all(path.exists() for path in truth) else None,
    )
    best = classical.best_value(table)
    logger.info("%s %g has the least self-supervised loss", table["parameter"].iloc[0], best)
    return ClassicalModel(method, identity, best, sigma), table


def _centres(paths: Sequence[Path], planes: bool) -> Iterator[np.ndarray]:
    """Yield the centres of images, channel by channel, all with as many pixels at most."""
    for path in paths:
        for channel in open_channels(path):
            image = middle_plane(channel) if planes else channel
            depth = len(image) if image.ndim == 3 else 1
            yield centre_crop(image, math.isqrt(CALIBRATION_SIDE**2 // depth))
