"""Jobs of Noise2Void in CAREamics."""

import sys
import tempfile
import time
import types
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch
import numpy as np
import tifffile
import torch
import torchmetrics  # noqa: F401  looks for torchvision, and must not find the stand-in
from batch_statistics import keep_last_batch
from flops import parameter_count, training_flops
from job import main, seconds_since_launch, share_of_range, timed_prediction, versions

if find_spec("torchvision") is None:
    # CAREamics imports it for its variational networks, and allows no version that goes with
    # this torch. Noise2Void calls nothing of it, so that an empty module will do.
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchvision"].__version__ = "absent"
    sys.modules["torchvision.transforms"].functional = sys.modules[name]

from careamics import CAREamist
from careamics.config.factories.n2v_factory import create_advanced_n2v_config

OVERLAP = 48  # of neighbouring tiles: the default along y and x; along z there is none


class Stopwatch(lightning.pytorch.Callback):
    """Notes the time after every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.times.append(time.perf_counter())


def axes_of(shape: Sequence[int]) -> str:
    """Return YX or ZYX."""
    return "ZYX"[-len(shape) :]


def build(
    job: dict[str, Any],
    patch: Sequence[int],
    folder: str,
    steps: int,
    stopwatch: Stopwatch,
    workers: int,
) -> CAREamist:
    """Return an untrained N2V with a U-Net of the job's size, for patches ([z,] y, x)."""
    config = create_advanced_n2v_config(
        experiment_name="benchmark",
        data_type="array",
        axes="S" + axes_of(patch),
        patch_size=list(patch),
        batch_size=job["batch_size"],
        num_epochs=1,
        num_steps=steps,
        masked_pixel_percentage=100 * job["masked_fraction"],
        model_params={
            "depth": job["depth"],
            "num_channels_init": job["filters"],
            "use_batch_norm": True,
        },
        trainer_params={"accelerator": "gpu" if job["device"] == "cuda" else job["device"]},
        num_workers=workers,
        seed=1,
    )
    return CAREamist(config, work_dir=folder, callbacks=[stopwatch], enable_progress_bar=False)


def throughput(job: dict[str, Any]) -> dict[str, Any]:
    """Patches per second of `CAREamist.train`, within one epoch."""
    torch.set_num_threads(job["threads"])
    files = sorted(Path(job["images"], "images").iterdir())
    images = np.stack([tifffile.imread(path) for path in files[1:]]).astype(np.float32)
    # An epoch must not end before the last step.
    patches = len(images) * (images.shape[1] // job["patch_size"]) ** 2
    steps = job["warm_up"] + job["steps"]
    images = np.tile(images, (-(-steps * job["batch_size"] // patches) + 1, 1, 1))
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        patch = [job["patch_size"]] * 2
        careamist = build(job, patch, folder, steps, stopwatch, job["workers"])
        careamist.train(train_data=images)
        times = stopwatch.times
        start_up = seconds_since_launch(job) - (time.perf_counter() - times[0])
    if len(times) != steps:
        raise RuntimeError(f"CAREamics made {len(times)} steps instead of {steps}")
    network = careamist.model.model
    return {
        "patches_per_second": job["steps"]
        * job["batch_size"]
        / (times[-1] - times[job["warm_up"] - 1]),
        "start_up_seconds": start_up,
        "parameters": parameter_count(network),
        "flops_per_patch": training_flops(network, job["patch_size"]),
        "versions": versions("careamics", "torch"),
    }


def train_a_step(job: dict[str, Any], folder: str) -> CAREamist:
    """Return a model after the training step that it cannot predict without."""
    torch.set_num_threads(job["threads"])
    shape = 8, *(2 * side for side in job["patch"])
    noise = np.random.default_rng(0).normal(128, 30, shape)
    careamist = build(job, job["patch"], folder, 1, Stopwatch(), 0)
    keep_last_batch(careamist.model.model)
    careamist.train(train_data=noise.astype(np.float32))
    return careamist


def tiles_of(shape: Sequence[int], tile: Sequence[int], stride: int) -> dict[str, tuple[int, ...]]:
    """Return the arguments of ``predict`` for an image that is cut into tiles of such sides.

    CAREamics wants tiles that are square in y and x, and multiples of the stride of the network.
    """
    square = min(*tile[-2:], *shape[-2:])
    sides = [min(tile[0], shape[0]), square, square][-len(shape) :]
    sides = [-(-side // stride) * stride for side in sides]
    overlaps = [OVERLAP if side < length else 0 for side, length in zip(sides, shape, strict=True)]
    return {"tile_size": tuple(sides), "tile_overlap": tuple(overlaps)}


def denoise(careamist: CAREamist, image: np.ndarray, **tiles: Any) -> np.ndarray:
    """Return the denoised image ([z,] y, x)."""
    axes = axes_of(image.shape)
    denoised, _ = careamist.predict(image, axes=axes, batch_size=1, num_workers=0, **tiles)
    return np.squeeze(denoised[0])


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Prediction of one tif file."""
    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        careamist = train_a_step(job, folder)

        def predict_file(path: str) -> None:
            image = tifffile.imread(path).astype(np.float32)
            tiles = tiles_of(image.shape, job["tile"], 2 ** job["depth"])
            tifffile.imwrite(f"{folder}/denoised.tif", denoise(careamist, image, **tiles))

        measured = timed_prediction(job, predict_file)
    return {
        **measured,
        "parameters": parameter_count(careamist.model.model),
        "versions": versions("careamics", "torch"),
    }


def seams(job: dict[str, Any]) -> dict[str, Any]:
    """By how much an image denoised in tiles differs from the one denoised as a whole."""
    image = tifffile.imread(job["seam_image"]).astype(np.float32)
    tiles = tiles_of(image.shape, [job["seam_tile"]] * image.ndim, 2 ** job["depth"])
    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        careamist = train_a_step(job, folder)
        untiled = denoise(careamist, image)
        return {"seams": share_of_range(denoise(careamist, image, **tiles), untiled)}


if __name__ == "__main__":
    main(throughput=throughput, predict=predict, seams=seams)
