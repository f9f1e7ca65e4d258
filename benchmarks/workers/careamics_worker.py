"""Jobs of CAREamics' Noise2Void."""

import sys
import tempfile
import time
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch
import numpy as np
import tifffile
import torch
import torchmetrics  # noqa: F401  looks for torchvision, and must not find the stand-in
from flops import parameter_count, training_flops
from job import main, seconds_since_launch, timed_prediction, versions

if find_spec("torchvision") is None:
    # CAREamics imports it for its variational networks, and allows no version that goes with
    # this torch. Noise2Void calls nothing of it, so that an empty module will do.
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchvision"].__version__ = "absent"
    sys.modules["torchvision.transforms"].functional = sys.modules[name]

from careamics import CAREamist
from careamics.config.factories.n2v_factory import create_advanced_n2v_config


class Stopwatch(lightning.pytorch.Callback):
    """Notes the time after every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.times.append(time.perf_counter())


def build(
    job: dict[str, Any], folder: str, steps: int, stopwatch: Stopwatch, workers: int
) -> CAREamist:
    """Return an untrained N2V with a U-Net of the job's size."""
    config = create_advanced_n2v_config(
        experiment_name="benchmark",
        data_type="array",
        axes="SYX",
        patch_size=[job["patch_size"]] * 2,
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
        careamist = build(job, folder, steps, stopwatch, job["workers"])
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


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Prediction of one tif file, after the training step that it cannot do without."""
    torch.set_num_threads(job["threads"])
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 30, (4, 4 * job["patch_size"], 4 * job["patch_size"]))
    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        careamist = build(job, folder, 1, Stopwatch(), 0)
        careamist.train(train_data=noise.astype(np.float32))

        def predict_file(path: str) -> None:
            image = tifffile.imread(path).astype(np.float32)
            size = min(job["tile"], *image.shape)
            denoised, _ = careamist.predict(
                image, axes="YX", batch_size=1, tile_size=(size, size), num_workers=0
            )
            tifffile.imwrite(f"{folder}/denoised.tif", np.squeeze(denoised[0]))

        measured = timed_prediction(job, predict_file)
    return {
        **measured,
        "parameters": parameter_count(careamist.model.model),
        "versions": versions("careamics", "torch"),
    }


if __name__ == "__main__":
    main(throughput=throughput, predict=predict)
