"""Jobs of StarDist 2D (TensorFlow), run like in its example notebooks."""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tifffile
from csbdeep.utils import normalize
from job import main, versions
from keras_training import Keeper, limit_threads
from stardist.models import Config2D, StarDist2D

GRID = 2  # predictions on every second pixel, as in the notebooks
EPOCH_STEPS = 20  # instead of 100, to have weights to keep early on
PATIENCE = 40 * 100  # of the learning rate schedule, in steps
VALIDATION_PATCHES = 16  # at most


def read_image(path: Path) -> np.ndarray:
    """Return an image (y, x) whose percentiles 1 and 99.8 are 0 and 1."""
    return normalize(tifffile.imread(path).astype(np.float32), 1, 99.8, axis=(0, 1))


def read_labels(path: Path) -> np.ndarray:
    """Return the labels (y, x) of a mask."""
    return tifffile.imread(path).astype(np.int32)


def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate and flip a patch, and change its intensities, as much as the notebooks do."""
    draw = np.random.uniform
    turns, flip = np.random.randint(4), np.random.randint(2)  # noqa: NPY002  the package's seed
    image, labels = (np.rot90(each, turns)[:: 1 - 2 * flip] for each in (image, labels))
    noise = np.random.normal(0, 0.02 * draw(), image.shape)  # noqa: NPY002
    return image * draw(0.6, 2) + draw(-0.2, 0.2) + noise, labels


def largest_patch(images: list[np.ndarray], stride: int, wanted: int) -> int:
    """Return the side of the patches: the wanted one, or what fits into the smallest image."""
    side = min(wanted, *(length for image in images for length in image.shape))
    if side < stride:
        raise SystemExit(f"StarDist needs images of at least {stride}x{stride} pixels here")
    return side // stride * stride


def build(job: dict[str, Any], images: list[np.ndarray], folder: str) -> StarDist2D:
    """Return a model with random weights, or a copy of the one that the job names."""
    if job["model"]:
        # A copy, because a training writes to the folder of its model.
        shutil.copytree(job["model"], Path(folder, "benchmark"))
        model = StarDist2D(None, "benchmark", folder)
    else:
        model = StarDist2D(Config2D(grid=(GRID, GRID)), "benchmark", folder)
    config = model.config
    if config.n_channel_in != 1 or config.n_classes:
        raise SystemExit(f"the model {job['model']} is not for images of one channel and one class")
    stride = max(config.grid) * 2**config.unet_n_depth
    config.train_patch_size = (largest_patch(images, stride, job["patch_size"]),) * 2
    config.train_n_val_patches = min(VALIDATION_PATCHES, len(job["val"]))
    config.train_reduce_lr = {"factor": 0.5, "patience": PATIENCE // EPOCH_STEPS, "min_delta": 0}
    # Our own callback keeps weights, without files.
    config.train_checkpoint = config.train_checkpoint_last = config.train_checkpoint_epoch = None
    config.train_tensorboard = False
    return model


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One long training, and predictions with the weights of every time point.

    Point 0 is the given model as it is. Reading images happens before the clock starts, choosing
    thresholds and predicting after it stops.
    """
    limit_threads(job)
    np.random.seed(job["seed"])  # noqa: NPY002  what the package draws from
    tf.random.set_seed(job["seed"])
    noisy, masks = Path(job["noisy"]), Path(job["masks"])
    x, x_val = ([read_image(noisy / f"{name}.tif") for name in job[k]] for k in ("revealed", "val"))
    y, y_val = (
        [read_labels(masks / f"{name}.tif") for name in job[k]] for k in ("revealed", "val")
    )

    keeper = Keeper(job["points"], job["clock"])
    with tempfile.TemporaryDirectory() as folder:
        model = build(job, x + x_val, folder)
        if job["model"]:
            keeper.snapshots.after_epoch(0.0, 0, math.inf, model.keras_model.get_weights())
        if not keeper.snapshots.complete:
            model.prepare_for_training()
            model.callbacks.append(keeper)
            length = {"epochs": 10**6, "steps_per_epoch": EPOCH_STEPS}
            model.train(x, y, (x_val, y_val), augmenter=augment, **length)
            keeper.snapshots.finish(keeper.minutes())

    taken, thresholds = keeper.snapshots.taken, []
    for snapshot in taken:
        model.keras_model.set_weights(snapshot.weights)
        # Scores have this IoU too.
        model.optimize_thresholds(x_val, y_val, iou_threshs=[0.5], save_to_json=False)
        thresholds.append(list(model.thresholds))
        target = Path(job["predictions"], f"{snapshot.point:g}", "labels")
        target.mkdir(parents=True)
        for name in job["test"]:
            labels, _ = model.predict_instances(read_image(noisy / f"{name}.tif"))
            tifffile.imwrite(target / f"{name}.tif", labels.astype(np.uint32), compression="zlib")
    return {
        "points": [[snapshot.point, snapshot.minutes, snapshot.step] for snapshot in taken],
        "thresholds": thresholds,
        "versions": versions("stardist", "tensorflow-cpu"),
    }


if __name__ == "__main__":
    main(train=train)
