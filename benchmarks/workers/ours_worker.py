"""Jobs of this package."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batch_statistics import keep_last_batch
from flops import parameter_count, training_flops
from job import CLOCKS, main, seconds_since_launch, share_of_range, timed_prediction, versions

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.store import open_image
from denoiseg_flow.jobs.devices import select_device
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.methods.networks import build_network
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.models.model import AnyModel, TrainedModel, new_network
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.predict_run import predict_file, predict_folder
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.models.tiled_prediction import check_tile, predict_tiles
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.fitting import RunData, fit
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.trainer import train
from denoiseg_flow.training.training_images import TrainingImages

CHECKPOINT_SECONDS = 60  # the default of the workflow
PEAK_SIDE = 2048  # of the square matrices that the peak is measured with


def plan(job: dict[str, Any]) -> tuple[Method, Recipe]:
    """Return the method and the recipe of a job."""
    return Method(**job["method"]), Recipe(**job["recipe"])


def run_of(job: dict[str, Any]) -> Run:
    """Return what a training is known by."""
    axes = {"dataset": "benchmark", "noise": "as given", "n_annotated": 10, "seed": 1}
    axes |= {key: job[key] for key in axes if key in job}
    return Run(method=job["method"]["name"], **axes)


def timed_training(
    method: Method,
    recipe: Recipe,
    job: dict[str, Any],
    device: torch.device,
    make: Callable[[TrainingJob], tuple[AnyModel, Any]],
) -> tuple[AnyModel, float]:
    """Return a model and the seconds that its whole training took, checkpoints included."""
    clock = CLOCKS[job.get("clock", "wall")]
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder, "checkpoint.pt"), CHECKPOINT_SECONDS)
        started = clock()
        model, _ = make(TrainingJob(run_of(job), method, recipe, checkpoints, device))
        return model, clock() - started


def throughput(job: dict[str, Any]) -> dict[str, Any]:
    """Patches per second of `train`, from two trainings that differ only in their length.

    Whatever happens once per training cancels out: reading images, the validation at the end of
    the only epoch, the choice of the threshold.
    """
    device = select_device(job["device"], job["threads"])
    method, recipe = plan(job)
    names = sorted(path.name for path in Path(job["images"], "images").iterdir())
    images = [Path(job["images"], "images", name) for name in names]
    masks = [Path(job["images"], "masks", name) for name in names]
    revealed = [mask if number < 10 else None for number, mask in enumerate(masks[1:])]
    files = TrainingImages(images[1:], revealed, images[:1], masks[:1])
    if not method.segments:
        files = TrainingImages(images[1:], [None] * len(revealed), images[:1], [None])

    def seconds(steps: int) -> float:
        once = replace(recipe, epochs=1, steps_per_epoch=steps, validation_patches=1)
        return timed_training(method, once, job, device, lambda plan: train(plan, files))[1]

    seconds(job["warm_up"])
    start_up = seconds_since_launch(job)
    steps = job["warm_up"] + job["steps"]
    before, long, after = (seconds(count) for count in (job["warm_up"], steps, job["warm_up"]))
    # The faster of two short ones: a disturbed short training would make the steps look cheap.
    short = min(before, after)
    network = build_network(method.network, recipe.depth, recipe.filters)
    return {
        "patches_per_second": job["steps"] * recipe.batch_size / (long - short),
        "seconds_short_long_short": [before, long, after],
        "start_up_seconds": start_up,
        "parameters": parameter_count(network),
        "flops_per_patch": training_flops(network, recipe.patch_size),
        "versions": versions("denoiseg-flow", "torch"),
    }


def peak(job: dict[str, Any]) -> dict[str, Any]:
    """GFLOP/s of a float32 matrix product, the best of several."""
    device = select_device(job["device"], job["threads"])
    a, b = torch.randn(2, PEAK_SIDE, PEAK_SIDE, device=device)

    def seconds() -> float:
        started = time.perf_counter()
        product = a @ b
        product[0, 0].item()  # waits for the device
        return time.perf_counter() - started

    return {"gflops": 2e-9 * PEAK_SIDE**3 / min(seconds() for _ in range(job["repeats"]))}


def train_once(job: dict[str, Any]) -> dict[str, Any]:
    """One training on prepared data, timed as a whole, and its predictions of the test images."""
    device = select_device(job["device"], job["threads"])
    method, recipe = plan(job)
    split = manifest.read(Path(job["split"]))
    data = RunData(split, PreparedData(Path(job["masks"]).parent), Path(job["noisy"]))
    model, seconds = timed_training(method, recipe, job, device, lambda plan: fit(plan, data))
    if job["predictions"]:
        test = split.loc[split["subset"] == "test", "image"]
        predict_folder(model, Path(job["noisy"]), test, Path(job["predictions"]), False)
    return {
        "seconds": seconds,
        "steps": recipe.steps,
        "versions": versions("denoiseg-flow", "torch"),
    }


def random_model(job: dict[str, Any]) -> TrainedModel:
    """Return a joint model with random weights, for images with as many axes as the patch."""
    device = select_device(job["device"], job["threads"])
    method, recipe = plan(job)
    layout = PLANES
    if len(job["patch"]) == 3:
        # The peers halve all axes alike.
        layout = Layout(3, patch_depth=job["patch"][0], z_factors=(2,) * recipe.depth)
    torch.manual_seed(0)
    return TrainedModel(
        method=method,
        recipe=recipe,
        identity=run_of(job).as_dict(),
        normalisation=Normalisation((128.0,), (30.0,)),
        network=new_network(method, recipe, layout).to(device).eval(),
        layout=layout,
        threshold=Threshold(0.5, 0.0, 1),
    )


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Prediction of one tif file."""
    model = random_model(job)
    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        measured = timed_prediction(
            job, lambda path: predict_file(model, Path(path), Path(folder), False)
        )
    return {
        **measured,
        "parameters": parameter_count(model.network),
        "versions": versions("denoiseg-flow", "torch"),
    }


def seams(job: dict[str, Any]) -> dict[str, Any]:
    """By how much an image denoised in tiles differs from the one denoised as a whole."""
    model, image = random_model(job), open_image(job["seam_image"])
    device = next(model.network.parameters()).device
    keep_last_batch(model.network)
    with torch.inference_mode():
        model.network.train()(torch.randn(job["batch_size"], 1, *job["patch"], device=device))
    model.network.eval()

    def denoise(kept: tuple[int, ...]) -> np.ndarray:
        denoised = np.empty(image.shape, np.float32)
        for tile in predict_tiles(model, image, kept):
            denoised[:, *tile.place] = tile.denoised
        return denoised

    tiled = denoise(check_tile(model, job["seam_tile"]))
    return {"seams": share_of_range(tiled, denoise(image.shape[1:]))}


if __name__ == "__main__":
    main(throughput=throughput, peak=peak, train=train_once, predict=predict, seams=seams)
