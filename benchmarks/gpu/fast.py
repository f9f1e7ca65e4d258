"""Measure speed, and compare it with the peak of the GPU."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from flops import training_flops, training_numbers
from material import Material, tf32
from phase import Phase, Row

from denoiseg_flow.data.store import create_array
from denoiseg_flow.methods import networks
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.methods.networks import build_network
from denoiseg_flow.models.model import TrainedModel, new_network
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.predict_run import predict_file
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.models.tiled_prediction import predict_tiles
from denoiseg_flow.training import trainer as training
from denoiseg_flow.training.patches import ImageBank
from denoiseg_flow.training.trainer import Trainer

PATCH = 64
BANK_SIDE, BANK_IMAGES = 256, 64
WARM_UP = 6  # steps: plain ones, the recording, and some of its replays
BYTES = {"float32": 4, "tf32": 4, "bf16": 2}


def run(phase: Phase, material: Material) -> None:
    """Measure rates first, then training by what is used, then the variants, then prediction."""
    peaks = {name: phase.do(f"peak {name}", matrix_rate, material, name) for name in BYTES}
    rates = {name: row.get("tflops", float("nan")) for name, row in peaks.items()}
    copied = phase.do("copy", copy_rate, material).get("gb_per_second", float("nan"))
    bank = random_bank(material)
    sizes = list(product(material.scale.networks, material.scale.batches))

    def speed(size: tuple[int, int], batch: int, name: str, how: str, order: str = "last") -> Row:
        depth, filters = size
        item = f"{depth}x{filters}, batch {batch}, {name}, {how}, channels {order}"
        needs = 60 if how == "compiled" else 2
        arguments = (material, bank, size, batch, name, how, order)
        row = phase.do(item, training_speed, *arguments, needs=needs)
        if "ms_per_step" in row:
            row |= floors(size, batch, name, rates[name], copied, row["ms_per_step"])
            phase.save()
        return row

    for size, batch in sizes:
        for how in ("replayed", "plain"):
            speed(size, batch, "bf16", how)
    for side in material.scale.image_sides:
        phase.do(f"prediction of {side}x{side}, array to array", to_array, material, side, needs=5)
        phase.do(f"prediction of {side}x{side}, tif to tif", to_tif, material, side, needs=20)
    phase.do("a step, kernel by kernel", kernels, material, bank)
    for size, batch in sizes:
        for name in ("tf32", "float32"):
            speed(size, batch, name, "replayed")
    for size, batch in sizes:
        speed(size, batch, "bf16", "replayed", "first")
    for size, batch in (sizes[0], sizes[-2]):
        speed(size, batch, "bf16", "compiled")


# Rates


def seconds_per_call(call: Callable[[], Any], device: torch.device, wanted: float) -> float:
    """Return the median time of a call, on the device, repeated for about ``wanted`` seconds."""

    def measure() -> float:
        if device.type != "cuda":
            started = time.perf_counter()
            call()
            return time.perf_counter() - started
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000

    measure()
    count = max(3, min(200, round(wanted / max(measure(), 1e-6))))
    return float(np.median([measure() for _ in range(count)]))


def matrix_rate(material: Material, name: str) -> Row:
    """Measure a matrix product of random numbers."""
    side, dtype = material.scale.matrix_side, torch.bfloat16 if name == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=material.device).to(dtype) for _ in range(2))
    with tf32(name == "tf32"):
        seconds = seconds_per_call(lambda: a @ b, material.device, material.scale.seconds_per_speed)
    return {"tflops": 2e-12 * side**3 / seconds}


def copy_rate(material: Material) -> Row:
    """Measure a copy within the memory of the device, in bytes read and written."""
    source = torch.randn(material.scale.copied_bytes // 4, device=material.device)
    target = torch.empty_like(source)
    seconds = seconds_per_call(
        lambda: target.copy_(source), material.device, material.scale.seconds_per_speed
    )
    return {"gb_per_second": 2e-9 * material.scale.copied_bytes / seconds}


# Training


def random_bank(material: Material) -> ImageBank:
    """Return noise on the device, the first ten images annotated with random classes."""
    rng, shape = np.random.default_rng(0), (BANK_SIDE, BANK_SIDE)
    images = [rng.standard_normal((1, *shape), np.float32) for _ in range(BANK_IMAGES)]
    classes = [[torch.from_numpy(rng.integers(0, 3, shape, np.int8))] for _ in range(10)]
    return ImageBank.load(
        images, [*classes, *[None] * (BANK_IMAGES - 10)], [shape] * BANK_IMAGES, material.device
    )


@contextmanager
def trainer_of(
    material: Material,
    bank: ImageBank,
    size: tuple[int, int],
    batch: int,
    name: str,
    how: str,
    order: str,
) -> Iterator[Trainer]:
    """Make a trainer of denoiseg whose steps are as the names say."""
    depth, filters = size
    recipe = material.recipe(
        depth=depth, filters=filters, patch_size=PATCH, batch_size=batch, validation_patches=1
    )
    device = material.device
    mixed = torch.autocast(device.type, torch.bfloat16) if name == "bf16" else nullcontext()
    memory = torch.channels_last if order == "last" else torch.contiguous_format
    with (
        mock.patch.object(training, "mixed_precision", lambda _: mixed),
        mock.patch.object(networks, "memory_format", lambda _: memory),
        training.side_stream(device),
        tf32(name != "float32"),
    ):
        trainer = Trainer(material.method("denoiseg"), recipe, bank, bank, 1, device)
        trainer.compute_gradients.enabled &= how != "plain"
        if how == "compiled":
            trainer.network = torch.compile(trainer.network)
        # As for most of the training: pseudo-labels, and statistics of each batch.
        trainer.step = trainer.first_pseudo_step
        trainer._set_training_mode()
        yield trainer


def training_speed(material: Material, bank: ImageBank, *variant: Any) -> Row:
    """Measure steps of a training, of which nothing waits for the host."""
    device = material.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with trainer_of(material, bank, *variant) as trainer:
        first = trainer.step

        def step() -> None:
            trainer.step = first + 1  # never the first of a phase again
            trainer._train_step()

        trainer._train_step()
        for _ in range(WARM_UP):
            step()
        count, seconds = 1, 0.0
        while seconds < material.scale.seconds_per_speed:
            count *= 4
            seconds = timed(step, device, count)
        recorded = trainer.compute_gradients.enabled
    batch = trainer.recipe.batch_size
    row = {
        "patches_per_second": batch * count / seconds,
        "ms_per_step": 1000 * seconds / count,
        "replayed": recorded,
    }
    return peak_of(material, row)


def timed(call: Callable[[], Any], device: torch.device, count: int = 1) -> float:
    """Return the seconds that so many calls take, until the device has done all of them."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def floors(
    size: tuple[int, int], batch: int, name: str, tflops: float, copied: float, ms: float
) -> Row:
    """Return the least time of a step by operations and by bytes, in ms, and the share reached.

    The teacher of the pseudo-labels predicts half of the patches: a sixth of the work on top.
    """
    network = build_network("unet", *size)
    share = batch * (1 + 1 / 6)
    by_operations = 1e-9 * share * training_flops(network, PATCH) / tflops
    by_bytes = 1e-6 * share * training_numbers(network, PATCH) * BYTES[name] / copied
    return {
        "floor_operations_ms": by_operations,
        "floor_bytes_ms": by_bytes,
        "share_of_floor": max(by_operations, by_bytes) / ms,
    }


def kernels(material: Material, bank: ImageBank) -> Row:
    """Count the kernels of one plain step of the smallest network, and the time between them."""
    size, batch = material.scale.networks[0], material.scale.batches[0]
    cuda = material.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity
    with trainer_of(material, bank, size, batch, "bf16", "plain", "last") as trainer:
        for _ in range(WARM_UP):
            trainer._train_step()
        with torch.profiler.profile(activities=[kind.CUDA if cuda else kind.CPU]) as profile:
            trainer._train_step()
            if cuda:
                torch.cuda.synchronize()
        plain = timed(trainer._train_step, material.device, 20) / 20
    events = profile.key_averages()
    busy = sum(event.self_device_time_total for event in events) * 1e-6
    longest = sorted(events, key=lambda event: -event.self_device_time_total)[:5]
    return {
        "kernels": sum(event.count for event in events),
        "busy_ms": 1000 * busy,
        "plain_ms": 1000 * plain,
        "share_of_launches": 1 - busy / plain,
        "longest": {event.key[:60]: event.self_device_time_total for event in longest},
    }


# Prediction


def random_model(material: Material, method: Method, recipe: Recipe) -> TrainedModel:
    """Return a model with random weights."""
    torch.manual_seed(0)
    network = new_network(method, recipe).to(material.device).eval()
    identity = {"method": method.name}
    normalisation = Normalisation((128.0,), (30.0,))
    threshold = Threshold(0.5, 0.0, 1) if method.segments else None
    return TrainedModel(
        method, recipe, identity, normalisation, network, threshold=threshold
    )  # fmt: skip


def noise(side: int) -> np.ndarray:
    """Return an image of noise (uint8), of rows that repeat."""
    rows = np.random.default_rng(0).integers(0, 256, (min(side, 512), side), np.uint8)
    return np.tile(rows, (-(-side // len(rows)), 1))[:side]


def peak_of(material: Material, row: Row) -> Row:
    """Add the largest memory of the device to a row."""
    if material.device.type == "cuda":
        row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return row


def to_array(material: Material, side: int) -> Row:
    """Predict denoised image and probabilities into memory."""
    image = noise(side)[None]
    row = {}
    for depth, filters in material.scale.networks:
        recipe = material.recipe(depth=depth, filters=filters)
        model = random_model(material, material.method("denoiseg"), recipe)
        denoised = np.empty(image.shape, np.float32)
        probabilities = np.empty((3, side, side), np.float32)

        def predict() -> None:
            for tile in predict_tiles(model, image):  # noqa: B023
                denoised[:, *tile.place] = tile.denoised  # noqa: B023
                probabilities[:, *tile.place] = tile.probabilities  # noqa: B023

        predict()
        if material.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = min(timed(predict, material.device) for _ in range(3 if side < 4096 else 1))
        row[f"megapixels_per_second_{depth}x{filters}"] = 1e-6 * image.size / seconds
    return peak_of(material, row)


def to_tif(material: Material, side: int) -> Row:
    """Predict from file to files: the denoised image, and of smaller images the labels as well."""
    folder = material.scratch / "tif"
    source = folder / f"{side}.tif"
    image = noise(side)
    create_array(source, image.shape, dtype=np.uint8)[:] = image
    depth, filters = material.scale.networks[0]
    recipe = material.recipe(depth=depth, filters=filters)
    row = {}
    for name in ("n2v", "denoiseg") if side <= 2048 else ("n2v",):
        model = random_model(material, material.method(name), recipe)
        out = Path(folder, name)
        predict_file(model, source, out, False)
        seconds = timed(lambda: predict_file(model, source, out, False), material.device)  # noqa: B023
        row[f"megapixels_per_second_{name}"] = 1e-6 * image.size / seconds
    source.unlink()
    return peak_of(material, row)
