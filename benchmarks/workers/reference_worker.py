"""Jobs of the reference implementation of DenoiSeg (TensorFlow), run like in its notebooks."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tifffile
from denoiseg.models import DenoiSeg, DenoiSegConfig
from denoiseg.utils.compute_precision_threshold import compute_labels
from denoiseg.utils.denoiseg_data_preprocessing import extract_patches
from denoiseg.utils.misc_utils import augment_data
from denoiseg.utils.seg_utils import convert_to_oneHot
from job import main, seconds_since_launch, share_of_range, timed_prediction, versions
from keras_training import Keeper, limit_threads

PATCH = 128  # what images are cut into; the package trains on 64x64 crops of these
EPOCH_STEPS = 400  # in an epoch by default; ReduceLROnPlateau counts its patience in epochs
PATIENCE = 10


def cut(image: np.ndarray) -> np.ndarray:
    """Return all whole patches (patch, y, x) of an image (y, x), side by side."""
    return extract_patches(image[np.newaxis], axes="SYX", shape=(PATCH, PATCH))


def load_patches(
    names: list[str], revealed: list[str], images: Path, masks: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Return patches (patch, y, x, 1) float32 and one-hot classes (patch, y, x, 3).

    Classes are zero throughout patches without a mask, which is how the package knows them.
    """
    pixels, labels = [], []
    for name in names:
        image = tifffile.imread(images / f"{name}.tif").astype(np.float32)
        mask = np.zeros(image.shape, np.int32)
        if name in revealed:
            mask = tifffile.imread(masks / f"{name}.tif").astype(np.int32)
        pixels.append(cut(image))
        labels.append(cut(mask))
    return np.concatenate(pixels)[..., np.newaxis], convert_to_oneHot(np.concatenate(labels))


def build(x: np.ndarray, job: dict[str, Any], folder: str, **changes: Any) -> DenoiSeg:
    """Return an untrained model of the job's size, otherwise with the package's defaults."""
    config = DenoiSegConfig(
        x,
        n_channel_in=1,
        unet_n_depth=job["depth"],
        unet_n_first=job["filters"],
        train_batch_size=job["batch_size"],
        train_checkpoint=None,  # our own callback keeps weights, without files
        **changes,
    )
    return DenoiSeg(config, "benchmark", basedir=folder)


def flops_per_patch(model: DenoiSeg, side: int) -> float:
    """The count of ``flops.training_flops``, from Keras layers."""
    fixed = tf.keras.models.clone_model(
        model.keras_model, input_tensors=tf.keras.Input((side, side, 1))
    )
    convolutions = [layer for layer in fixed.layers if isinstance(layer, tf.keras.layers.Conv2D)]
    multiply_adds = sum(
        int(np.prod(layer.output_shape[1:3])) * int(np.prod(layer.kernel.shape))
        for layer in convolutions
    )
    return 3.0 * 2.0 * multiply_adds


def trained_values(model: DenoiSeg) -> int:
    """Return the number of trained values."""
    return sum(int(np.prod(weight.shape)) for weight in model.keras_model.trainable_weights)


class Stopwatch(tf.keras.callbacks.Callback):
    """Notes the time after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.times.append(time.perf_counter())


def throughput(job: dict[str, Any]) -> dict[str, Any]:
    """Patches per second of `DenoiSeg.train`, its data generator included."""
    limit_threads(job)
    names = sorted(path.stem for path in Path(job["images"], "images").iterdir())
    folders = Path(job["images"], "images"), Path(job["images"], "masks")
    steps = job["warm_up"] + job["steps"]
    x, y = load_patches(names[1:], names[1:11], *folders)
    # Its generator shows each patch once per epoch, and all steps have to lie in one.
    copies = -(-steps * job["batch_size"] // len(x))
    x, y = np.tile(x, (copies, 1, 1, 1)), np.tile(y, (copies, 1, 1, 1))
    validation = load_patches(names[:1], names[:1], *folders)
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        shape = (job["patch_size"], job["patch_size"])
        model = build(x, job, folder, n2v_patch_shape=shape)
        model.prepare_for_training()
        model.callbacks.append(stopwatch)
        model.train(x, y, validation, epochs=1, steps_per_epoch=steps)
    times = stopwatch.times
    return {
        "patches_per_second": job["steps"]
        * job["batch_size"]
        / (times[-1] - times[job["warm_up"] - 1]),
        "start_up_seconds": seconds_since_launch(job) - (time.perf_counter() - times[0]),
        "parameters": trained_values(model),
        "flops_per_patch": flops_per_patch(model, job["patch_size"]),
        "versions": versions("denoiseg", "tensorflow-cpu"),
    }


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One long training, and predictions with the weights of every time point.

    Training images are cut into patches and augmented eight-fold before the clock starts, as in
    the package's notebooks.
    """
    limit_threads(job)
    np.random.seed(job["seed"])  # noqa: NPY002  what the package draws from
    tf.random.set_seed(job["seed"])
    noisy, masks = Path(job["noisy"]), Path(job["masks"])
    x, y = load_patches(job["train"], job["revealed"], noisy, masks)
    annotated = int(y.any(axis=(1, 2, 3)).sum())
    x_val, y_val = load_patches(job["val"], job["val"], noisy, masks)
    chosen = np.random.default_rng(job["seed"]).permutation(len(x_val))[: job["validation_patches"]]
    print(f"{len(x)} training patches, {annotated} of them annotated, {len(chosen)} for validation")
    x, y = augment_data(x, "SYXC"), augment_data(y, "SYXC")

    keeper = Keeper(job["points"], job["clock"])
    with tempfile.TemporaryDirectory() as folder:
        # Epochs are shorter than the package's, so that there are weights at the time points; the
        # patience of the schedule is kept in steps.
        patience = max(1, round(PATIENCE * EPOCH_STEPS / job["epoch_steps"]))
        schedule = {"monitor": "val_loss", "factor": 0.5, "patience": patience}
        model = build(x, job, folder, train_reduce_lr=schedule)
        model.prepare_for_training()
        model.callbacks.append(keeper)
        validation = (x_val[chosen], y_val[chosen])
        model.train(x, y, validation, epochs=10**6, steps_per_epoch=job["epoch_steps"])
    keeper.snapshots.finish(keeper.minutes())

    taken = keeper.snapshots.taken
    for snapshot in taken:
        model.keras_model.set_weights(snapshot.weights)
        target = Path(job["predictions"], f"{snapshot.point:g}")
        target.mkdir(parents=True)
        for name in job["val"] + job["test"]:
            image = tifffile.imread(noisy / f"{name}.tif").astype(np.float32)
            output = model.predict(image, axes="YX", softmax=True)  # (y, x, 4)
            probabilities = np.moveaxis(output[..., 1:], -1, 0)
            np.savez(target / f"{name}.npz", denoised=output[..., 0], probabilities=probabilities)
    return {
        "points": [[snapshot.point, snapshot.minutes, snapshot.step] for snapshot in taken],
        "patches": len(x) // 8,
        "annotated_patches": annotated,
        "validation_patches": len(chosen),
        "versions": versions("denoiseg", "tensorflow-cpu"),
    }


def build_untrained(job: dict[str, Any], folder: str) -> DenoiSeg:
    """Return a model with random weights, for images of the mean and deviation of the job's."""
    statistics = np.random.default_rng(0).normal(128, 30, (1, *job["patch"], 1))
    return build(statistics.astype(np.float32), job, folder)


def show_a_batch(model: DenoiSeg, job: dict[str, Any]) -> None:
    """Do what ``batch_statistics.keep_last_batch`` says, with a batch of noise."""
    for layer in model.keras_model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    batch = tf.random.normal((job["batch_size"], *job["patch"], 1), seed=0)
    model.keras_model(batch, training=True)


def apply(model: DenoiSeg, image: np.ndarray, tile: Sequence[int]) -> np.ndarray:
    """Return the denoised image and the class probabilities ([z,] y, x, 4)."""
    axes = "ZYX"[-image.ndim :]
    n_tiles = tuple(-(-size // side) for size, side in zip(image.shape, tile, strict=True))
    return model.predict(image, axes=axes, softmax=True, n_tiles=n_tiles)


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Prediction of one tif file by a model with random weights, labels included."""
    limit_threads(job)
    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        model = build_untrained(job, folder)

        def predict_file(path: str) -> None:
            output = apply(model, tifffile.imread(path).astype(np.float32), job["tile"])
            labels, _ = compute_labels(output[..., 1:], 0.5)
            tifffile.imwrite(f"{folder}/denoised.tif", output[..., 0].astype(np.float32))
            tifffile.imwrite(f"{folder}/labels.tif", labels.astype(np.uint32), compression="zlib")

        measured = timed_prediction(job, predict_file)
    return {
        **measured,
        "parameters": trained_values(model),
        "versions": versions("denoiseg", "tensorflow-cpu"),
    }


def seams(job: dict[str, Any]) -> dict[str, Any]:
    """By how much an image denoised in tiles differs from the one denoised as a whole."""
    limit_threads(job)
    image = tifffile.imread(job["seam_image"]).astype(np.float32)
    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        model = build_untrained(job, folder)
        show_a_batch(model, job)
        tiled = apply(model, image, [job["seam_tile"]] * image.ndim)[..., 0]
        return {"seams": share_of_range(tiled, apply(model, image, image.shape)[..., 0])}


if __name__ == "__main__":
    main(throughput=throughput, train=train, predict=predict, seams=seams)
