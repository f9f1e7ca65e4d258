"""Estimate time, memory and disk space of trainings and predictions from their operations.

The constants are rounded measurements by the benchmarks of this repository; other machines differ.
Nothing here imports torch, so planning jobs does not have to load it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from denoiseg_flow.data.size import Extent, extent
from denoiseg_flow.data.sources import is_grouped
from denoiseg_flow.data.splitting import N_FOLDS
from denoiseg_flow.methods.definition import NOISY, Method, Recipe, down_samplings
from denoiseg_flow.study.grid import Grid, Run

# On one core of an Intel Xeon, one thread, 2026-11-22: 258, 126 and 25.3 patches/s (the best of two
# rounds, because the machine was shared) by `python benchmarks/throughput.py --threads 1 --batch 8`
# with `--sizes 2x8 2x16 --steps 60` and `--sizes 4x32 --steps 12`. The two constants together
# reproduce these numbers to within 10%.
SECONDS_PER_GFLOP = 0.0068
SECONDS_PER_MEGAVALUE = 0.0125  # output of convolutions, backward pass included

# All further times are processor time on the same core and day. Per megapixel: labels by watershed,
# and the choice of a threshold, which segments at many levels.
START_SECONDS = 2.0  # to start a process, load PyTorch, read images and write results
LABEL_SECONDS = 0.2
THRESHOLD_SECONDS = 1.4
# One pass of a classical denoiser over 256x256 pixels, with the middle one of its candidates.
CLASSICAL_SECONDS = {
    "raw": 0.0, "median": 0.8, "donut_median": 1.4, "gaussian": 0.02, "nlm": 2.4, "wavelet": 0.04,
    "tv": 0.6, "bm3d": 58.0,
}  # fmt: skip
# For each of at most nine candidates: twice without masking, and twice with each of four subsets
# of the pixels masked.
CALIBRATION_PASSES = 9 * 10

# Segmentation of one megapixel without a network, in 2D: by a threshold, or the probabilities of a
# pixel classifier. Training a classifier takes seconds for each annotated image, too.
SEGMENTER_SECONDS = {"otsu": 0.9, "local_threshold": 1.3, "pixel_classifier": 6.0}
FOREST_SECONDS = 1.0

# Not measured: the published time of a step of the DenoiSeg network (depth 4, 32 filters, 128
# patches of 64x64 pixels), scaled by the operations of a step. A step takes at least the time to
# launch its kernels.
GPU_SECONDS_PER_PAPER_STEP = 0.35
LEAST_GPU_STEP = 0.01
GPU_START_SECONDS = 10.0

BASE_MB = 350  # of a process that has loaded PyTorch and scikit-image
VALUE_BYTES = 17  # kept for the backward pass, for each value that a convolution outputs
RESIDENT_BYTES = 2 * 2**30  # more training images are memory-mapped (patches.RESIDENT_BYTES)
# Of jobs that hold whole images: classical denoisers, scores and checks of results. Scoring one
# image of 1024x1024 pixels takes 0.6 s and 80 MB.
WHOLE_BYTES, WHOLE_SECONDS = 100, 1.0  # per pixel of an image, and per megapixel
FEATURE_BYTES, FOREST_BYTES = 500, 3_700_000  # per pixel of a tile, and in a model file

# The tables of 10,000 runs with 50 test images and 15 scores each take 2.8 GB.
SCORES_BYTES = 15 * 330  # per run and test image

# Safety margins of requested resources. Snakemake itself takes 260 MB in each job. The main memory
# of the CUDA libraries is an assumption.
LEAST_MB, SNAKEMAKE_MB, CUDA_MB, MEMORY_FACTOR = 1000, 260, 3000, 1.3
# A node may be half as fast as that core, and GPUs were not measured. Jobs killed at their time
# limit get twice the time in the next attempt, and a training resumes where it stopped.
LEAST_MINUTES, CORE_FACTOR, GPU_FACTOR = 30, 2, 4

# Copies of constants in modules that import torch: tiled_prediction, trainer and fitting.
TILE, TILE_VOXELS, JUDGEMENTS, VALIDATION_BATCH = 704, 5 * 2**20, 9, 32
CALIBRATION_IMAGES, CALIBRATION_SIDE = 8, 256
PIECE = 2**22  # of tiled_threshold, which is more than its tiles


class Convolution(NamedTuple):
    """One convolution of a network."""

    inputs: int
    outputs: int
    side: int
    """Side of its kernel, along every axis."""
    level: int
    """How often the image was down-sampled before, along each axis."""


@dataclass(frozen=True)
class Cost:
    """Costs of a job.

    Attributes
    ----------
    core_seconds
        Time on one core, without a GPU.
    gpu_seconds
        Time on a GPU, not measured; None if the job does not use one.
    memory_mb
        Peak of main memory.
    output_bytes
        Size of the output files.
    """

    core_seconds: float
    gpu_seconds: float | None
    memory_mb: int
    output_bytes: int

    def asked_mb(self, on_gpu: bool) -> int:
        """Return the main memory to request, with or without a GPU."""
        cuda = CUDA_MB if on_gpu and self.gpu_seconds is not None else 0
        return max(LEAST_MB, round(MEMORY_FACTOR * self.memory_mb + SNAKEMAKE_MB + cuda))

    def asked_minutes(self, on_gpu: bool) -> int:
        """Return the time to request, with or without a GPU."""
        seconds = CORE_FACTOR * self.core_seconds
        if on_gpu and self.gpu_seconds is not None:
            seconds = GPU_FACTOR * self.gpu_seconds
        return max(LEAST_MINUTES, math.ceil(seconds / 60))


def convolutions(
    network: str, depth: int, filters: int, inputs: int = 1, outputs: int = 4
) -> list[Convolution]:
    """Return the convolutions of a network in order, see :mod:`denoiseg_flow.methods.networks`."""
    if network == "dncnn":
        widths = [inputs, *[filters] * 7, outputs]
        return [Convolution(before, after, side=3, level=0) for before, after in pairwise(widths)]
    if network == "autoencoder":
        widths, levels = [inputs, *[filters] * 4, outputs], [0, 1, 2, 1, 0]
        return [
            Convolution(before, after, side=3, level=level)
            for before, after, level in zip(widths[:-1], widths[1:], levels, strict=True)
        ]
    widths = [filters * 2**level for level in range(depth + 1)]
    found = []
    for level in range(depth):
        before = widths[level - 1] if level else inputs
        found += [(before, widths[level], level), (widths[level], widths[level], level)]
    found += [(widths[-2], widths[-1], depth), (widths[-1], widths[-2], depth)]
    for level in reversed(range(depth)):
        joined = 1 if network == "unet_blurpool" and not level else 2
        after = widths[max(level - 1, 0)]
        found += [(joined * widths[level], widths[level], level), (widths[level], after, level)]
    return [
        *(Convolution(before, after, 3, level) for before, after, level in found),
        Convolution(filters, outputs, 1, 0),
    ]


class Work(NamedTuple):
    """Operations of a network in the forward pass, per pixel of its input."""

    flops: float
    values: float
    """Output values of its convolutions."""
    parameters: int
    """Weights of the whole network, not per pixel."""


@cache
def work(network: str, depth: int, filters: int, inputs: int, axes: int, outputs: int = 4) -> Work:
    """Return the work of a network in 2D (2 axes) or 3D (3 axes, z is never down-sampled)."""
    layers = convolutions(network, depth, filters, inputs, outputs)
    weights = [layer.inputs * layer.outputs * layer.side**axes for layer in layers]
    places = [4.0**-layer.level for layer in layers]
    return Work(
        flops=2 * sum(count * place for count, place in zip(weights, places, strict=True)),
        values=sum(layer.outputs * place for layer, place in zip(layers, places, strict=True)),
        parameters=sum(weights),
    )


def work_of(method: Method, recipe: Recipe, axes: int) -> Work:
    """Return the work of the network of a method on images with ``axes`` spatial axes."""
    inputs = 2 if method.mask_channel else 1
    axes = 2 if method.planes else axes
    return work(method.network, recipe.depth, recipe.filters, inputs, axes, 1 + recipe.n_maps)


def training_bytes(each: Work, patch: int, batch_size: int, recorded: bool = False) -> float:
    """Return the memory of a training, without its images.

    Parameters
    ----------
    each
        Work of its network.
    patch
        Pixels of a training patch.
    batch_size
        Patches of a training step. Validation runs the forward pass for as many patches, at least
        ``VALIDATION_BATCH``.
    recorded
        Whether the step is a CUDA graph, which keeps its memory during validation.
    """
    validation = max(batch_size, VALIDATION_BATCH) / 3
    batch = batch_size + validation if recorded else max(batch_size, validation)
    return VALUE_BYTES * each.values * patch * batch + 32 * each.parameters


_PAPER_STEP = 128 * 64**2 * work("unet", 4, 32, 1, 2).flops


class Estimates:
    """Costs of the runs of a study.

    Parameters
    ----------
    grid
        The study.
    data
        Folder of its prepared datasets, see :func:`extent`.
    """

    def __init__(self, grid: Grid, data: Path) -> None:
        self.grid, self.data = grid, data
        self._extents: dict[str, Extent] = {}
        self._costs: dict[tuple[object, ...], Cost] = {}

    def extent(self, dataset: str) -> Extent:
        """Return number and size of the images of a dataset; looked up once."""
        if dataset not in self._extents:
            self._extents[dataset] = extent(self.grid.config["datasets"], dataset, self.data)
        return self._extents[dataset]

    def training(self, run: Run) -> Cost:
        """Return the cost of training or calibrating a run."""
        return self._once("train", run, self._training)

    def prediction(self, run: Run) -> Cost:
        """Return the cost of predicting the images of a run."""
        return self._once("predict_run", run, self._prediction)

    def examination(self, runs: Sequence[Run]) -> Cost:
        """Return the cost of predicting and examining every image with the most expensive run."""
        costs = [self._once("examine", run, self._examination) for run in runs]
        on_gpu = [cost.gpu_seconds for cost in costs if cost.gpu_seconds is not None]
        return Cost(
            max(cost.core_seconds for cost in costs),
            max(on_gpu, default=None),
            max(cost.memory_mb for cost in costs),
            max(cost.output_bytes for cost in costs),
        )

    def handling(self, dataset: str) -> Cost:
        """Return the cost of processing all images of a dataset, each as a whole."""
        images = self.extent(dataset)
        seconds = START_SECONDS + WHOLE_SECONDS * images.n_images * images.pixels * 1e-6
        return Cost(seconds, None, _megabytes(WHOLE_BYTES * images.pixels), 0)

    def gathering(self) -> Cost:
        """Return the cost of reading the scores of all runs."""
        n_images = sum(self.extent(run.dataset).n_test for run in self.grid.scored_runs)
        return Cost(START_SECONDS, None, _megabytes(SCORES_BYTES * n_images), 0)

    def _once(self, what: str, run: Run, estimate: Callable[[Run], Cost]) -> Cost:
        """Return the estimate, cached because it does not depend on noise level and seed."""
        key = (what, run.dataset, run.method, run.n_annotated)
        if key not in self._costs:
            self._costs[key] = estimate(run)
        return self._costs[key]

    def _training(self, run: Run) -> Cost:
        method, images = self.grid.methods[run.method], self.extent(run.dataset)
        if method.classical:
            return _calibration(method, images)
        if not method.trained:
            measured = WHOLE_SECONDS * images.n_images * images.pixels * 1e-6
            return Cost(START_SECONDS + measured, None, _megabytes(WHOLE_BYTES * PIECE), 1000)
        n_networks = self._n_networks(run)
        judged = run.n_annotated if images.cross else images.n_val
        choice = THRESHOLD_SECONDS * judged * images.pixels * 1e-6
        if method.segmenter:
            forests = FOREST_SECONDS * n_networks * run.n_annotated
            predicted = SEGMENTER_SECONDS[method.segmenter] * judged * images.pixels * 1e-6
            seconds = START_SECONDS + forests + predicted + choice
            return Cost(seconds, None, self._classifier_mb(images), FOREST_BYTES * n_networks)
        recipe, each = self.grid.recipe_of(method), self._work(run)
        patch = self._patch(run)
        taught = recipe.steps - recipe.first_pseudo_step(method)
        # Patches with forward and backward pass, and with forward pass only.
        both = recipe.steps * recipe.batch_size
        forth = recipe.epochs * recipe.validation_patches + taught * (
            recipe.batch_size - recipe.annotated_patches(method)
        )
        pixels = n_networks * patch * (both + forth / 3)
        seconds = START_SECONDS + _seconds(each, pixels)
        step = each.flops * patch * recipe.batch_size / _PAPER_STEP * GPU_SECONDS_PER_PAPER_STEP
        gpu = GPU_START_SECONDS + max(step, LEAST_GPU_STEP) * (pixels / patch / recipe.batch_size)
        if method.segments:
            seconds, gpu = seconds + choice, gpu + choice
        copies = 2 if method.target in ("clean", "second_noisy") else 1
        loaded = (4 * copies + method.segments) * images.n_images * images.pixels
        return Cost(
            seconds,
            gpu,
            _megabytes(
                min(loaded, 2 * RESIDENT_BYTES) + training_bytes(each, patch, recipe.batch_size)
            ),
            4 * each.parameters * n_networks * (1 if method.input == NOISY else 2),
        )

    def _n_networks(self, run: Run) -> int:
        """Return how many networks, or classifiers, a run trains."""
        method, images = self.grid.methods[run.method], self.extent(run.dataset)
        if method.each_image:
            return self._n_predicted(run)
        if not images.cross:
            return 1
        folds = min(N_FOLDS, run.n_annotated or images.n_test)
        grouped = is_grouped(self.grid.config["datasets"], run.dataset)
        return 1 + folds + (0 < run.n_annotated < images.n_test and not grouped)

    @staticmethod
    def _classifier_mb(images: Extent) -> int:
        """Return the memory for the features of a tile."""
        tile = TILE_VOXELS if len(images.shape) == 3 else (1.25 * TILE) ** 2
        return _megabytes(FEATURE_BYTES * min(tile, images.pixels) + 4e8)

    def _prediction(self, run: Run) -> Cost:
        return self._predicting(run, self._n_predicted(run))

    def _examination(self, run: Run) -> Cost:
        images = self.extent(run.dataset)
        # The confidence in labels needs each image mirrored, too.
        views = 2 if self.grid.methods[run.method].learns_segmentation else 1
        cost, held = self._predicting(run, views * images.n_images), self.handling(run.dataset)
        return replace(
            cost,
            core_seconds=cost.core_seconds + held.core_seconds,
            gpu_seconds=cost.gpu_seconds and cost.gpu_seconds + held.core_seconds,
            memory_mb=cost.memory_mb + held.memory_mb - BASE_MB,
        )

    def _predicting(self, run: Run, n_images: int) -> Cost:
        method, images = self.grid.methods[run.method], self.extent(run.dataset)
        megapixels = 1e-6 * n_images * images.pixels
        per_pixel = 4 * method.denoises + 2 * method.segments + 4 * method.masks_grid
        if self.grid.config["save_probabilities"]:
            per_pixel += 12 * method.learns_segmentation
        size = round(1e6 * megapixels * per_pixel)
        if method.classical:
            seconds = START_SECONDS + CLASSICAL_SECONDS[method.classical] * megapixels
            return Cost(seconds, None, _megabytes(WHOLE_BYTES * images.pixels), size)
        if not method.trained:
            assert method.segmenter is not None
            seconds = START_SECONDS + SEGMENTER_SECONDS[method.segmenter] * megapixels
            return Cost(seconds, None, _megabytes(WHOLE_BYTES * PIECE), size)
        if method.segmenter:
            per_megapixel = SEGMENTER_SECONDS[method.segmenter] + LABEL_SECONDS
            seconds = START_SECONDS + per_megapixel * megapixels
            return Cost(seconds, None, self._classifier_mb(images), size)
        recipe, each = self.grid.recipe_of(method), self._work(run)
        passes = 8.0 if recipe.test_time_augmentation else 1.0
        passes *= 1.4 if recipe.multiscale and method.segments else 1.0
        passes += method.grid**2 * method.masks_grid
        if self.grid.judged_subsets(run.dataset, run.method):
            passes += JUDGEMENTS
        margin = 1 + 2 * self._halo(method, recipe) / TILE if max(images.shape) > TILE else 1.0
        pixels = 1e6 * megapixels * margin**2 * passes
        labels = LABEL_SECONDS * megapixels * method.segments
        seconds = START_SECONDS + _seconds(each, pixels / 3) + labels
        gpu = (
            GPU_START_SECONDS
            + labels
            + pixels / 3 * each.flops / _PAPER_STEP * GPU_SECONDS_PER_PAPER_STEP
        )
        tile = min(images.pixels, (TILE * margin) ** 2)
        if len(images.shape) == 3 and not method.planes:
            tile = min(images.pixels, TILE_VOXELS)
        return Cost(seconds, gpu, _megabytes(26 * recipe.filters * tile + 4e8), size)

    def _work(self, run: Run) -> Work:
        method, axes = self.grid.methods[run.method], len(self.extent(run.dataset).shape)
        return work_of(method, self.grid.recipe_of(method), axes)

    def _patch(self, run: Run) -> int:
        """Return the pixels of a training patch."""
        method = self.grid.methods[run.method]
        recipe, (*depth, _, _) = self.grid.recipe_of(method), self.extent(run.dataset).shape
        planes = min(recipe.patch_depth, *depth) if depth and not method.planes else 1
        return recipe.patch_size**2 * planes

    def _n_predicted(self, run: Run) -> int:
        images = self.extent(run.dataset)
        everything = "train" in self.grid.predicted_subsets(run.method)
        return images.n_test + everything * (images.n_train + images.n_val)

    @staticmethod
    def _halo(method: Method, recipe: Recipe) -> int:
        """Return the radius of the receptive field, see the networks."""
        last = 2 ** down_samplings(method.network, recipe.depth)
        return 7 * last


def _seconds(each: Work, pixels: float) -> float:
    """Return the time on one core for the forward and backward pass of so many pixels."""
    values = SECONDS_PER_MEGAVALUE * each.values * 1e-6
    return pixels * (3 * SECONDS_PER_GFLOP * each.flops * 1e-9 + values)


def _calibration(method: Method, images: Extent) -> Cost:
    """Return the cost of choosing the parameter of a classical denoiser."""
    assert method.classical is not None
    pixels = min(images.pixels, CALIBRATION_SIDE**2)
    passes = CALIBRATION_PASSES * method.calibrated
    n_images = min(images.n_val or images.n_test, CALIBRATION_IMAGES)
    seconds = CLASSICAL_SECONDS[method.classical] * passes * n_images * pixels * 1e-6
    return Cost(START_SECONDS + seconds, None, _megabytes(WHOLE_BYTES * images.pixels), 1000)


def _megabytes(taken: float) -> int:
    """Return the memory of a process that takes so many bytes on top of ``BASE_MB``."""
    return BASE_MB + round(taken * 1e-6)
