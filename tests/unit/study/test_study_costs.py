"""Costs of runs in advance: the work is exact, the rest grows as it must."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from denoiseg_flow.data import manifest, splitting
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.size import extent
from denoiseg_flow.data.store import write_array
from denoiseg_flow.methods.networks import NETWORKS, build_network
from denoiseg_flow.models import tiled_prediction, tiled_threshold
from denoiseg_flow.study import costs
from denoiseg_flow.study.costs import Cost, Estimates, training_bytes, work
from denoiseg_flow.study.grid import Grid
from denoiseg_flow.training import fitting, patches, trainer

SPLIT = {"val": 0.25, "test": 0.25, "seed": 0}


def counted(network, inputs, side=16):
    """Floating point operations and values of a network for each pixel, from its own layers."""
    flops = values = 0

    def count(layer, _, output):
        nonlocal flops, values
        flops += 2 * output.numel() * layer.weight[0].numel()
        values += output.numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, inputs, side, side))
    return flops / side**2, values / side**2


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("depth", "filters", "inputs"), [(2, 8, 1), (1, 4, 2), (4, 2, 1)])
def test_work_is_that_of_the_layers(network, depth, filters, inputs):
    built = build_network(network, depth, filters, mask_channel=inputs == 2)
    found = work(network, depth, filters, inputs, 2)
    assert (found.flops, found.values) == pytest.approx(counted(built, inputs))
    parameters = sum(each.numel() for each in built.parameters() if each.dim() > 1)
    assert found.parameters == parameters


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("depth", "filters"), [(2, 8), (3, 16)])
def test_memory_of_a_training_is_more_than_its_way_back_keeps(network, depth, filters):
    """But not many times more: what the layers store, and gradients come on top."""
    built, kept = build_network(network, depth, filters), {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        built.train()(torch.randn(16, 1, 32, 32))
    stored = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    told = training_bytes(work(network, depth, filters, 1, 2), 32**2, batch_size=16)
    assert stored < told < 4 * stored


def test_memory_of_a_training_has_room_for_the_validation():
    """Whose patches are never few: below some size, a smaller batch saves nothing."""
    each = work("unet", 2, 8, 1, 2)
    patch = 64**2 * costs.VALUE_BYTES * each.values
    one, ten, twenty, forty = (training_bytes(each, 64**2, size) for size in (1, 10, 20, 40))
    assert one == ten < twenty
    assert forty - twenty == pytest.approx(20 * patch)
    for size, validation in [(1, 32), (20, 32), (48, 48)]:
        both = training_bytes(each, 64**2, size, recorded=True)
        expected = (size + validation / 3) * patch + 32 * each.parameters
        assert both == pytest.approx(expected)


@pytest.fixture
def grid(config):
    config["save_probabilities"] = True
    return Grid(config)


@pytest.fixture
def estimates(grid, tmp_path):
    return Estimates(grid, tmp_path)


def run_of(grid, method):
    return next(run for run in grid.runs if run.method == method)


def changed(grid, tmp_path, **recipe):
    grid.recipes = {name: replace(each, **recipe) for name, each in grid.recipes.items()}
    return Estimates(grid, tmp_path)


def test_time_of_a_training_is_in_proportion_to_its_steps(grid, tmp_path):
    run = run_of(grid, "n2v")
    plain = {"validation_patches": 0}

    def seconds(**recipe):
        cost = changed(grid, tmp_path, **plain, **recipe).training(run)
        return cost.core_seconds - costs.START_SECONDS

    once = seconds(steps_per_epoch=100)
    assert seconds(steps_per_epoch=300) == pytest.approx(3 * once)
    size = grid.recipe_of(grid.methods["n2v"]).batch_size
    assert seconds(steps_per_epoch=100, batch_size=2 * size) == pytest.approx(2 * once)


def test_larger_work_needs_more_of_everything(grid, tmp_path, estimates):
    run = run_of(grid, "denoiseg")
    small = estimates.training(run), estimates.prediction(run)
    larger = changed(grid, tmp_path, filters=64, batch_size=128)
    for before, after in zip(small, (larger.training(run), larger.prediction(run)), strict=True):
        assert after.core_seconds > before.core_seconds
        assert after.gpu_seconds > before.gpu_seconds
        assert after.memory_mb > before.memory_mb
    assert larger.training(run).output_bytes > small[0].output_bytes


def test_outputs_are_counted_in_bytes(grid, estimates):
    """Twelve test images of 128x128 pixels: denoised 4, labels 2, probabilities 12 bytes each."""
    pixels = 12 * 128**2
    assert estimates.prediction(run_of(grid, "baseline")).output_bytes == 14 * pixels
    assert estimates.prediction(run_of(grid, "denoiseg")).output_bytes == 18 * pixels
    assert (
        estimates.prediction(run_of(grid, "n2v")).output_bytes == 4 * 48 * 128**2
    )  # read by others


def test_cross_validated_runs_train_a_network_for_each_part(config, tmp_path):
    nuclei = config["datasets"]["nuclei"]
    nuclei |= {"annotated": 6, "split": SPLIT}
    config["grid"]["n_annotated"] = [3]
    grid = Grid(config)
    one = Estimates(grid, tmp_path).training(run_of(grid, "baseline"))
    nuclei["split"] = SPLIT | {"cross_validate_below": 8}
    # With fewer masks than there are, the images of the others are one more part.
    for n_annotated, method, count in ((6, "baseline", 4), (3, "baseline", 5), (3, "n2v", 4)):
        config["grid"]["n_annotated"] = [n_annotated]
        grid = Grid(config)
        several = Estimates(grid, tmp_path).training(run_of(grid, method))
        assert several.output_bytes == count * one.output_bytes
        assert several.core_seconds > one.core_seconds


def test_segmenters_cost_more_with_more_to_do(config, tmp_path):
    config["methods"] |= {
        "otsu": {"segmenter": "otsu"},
        "forest": {"segmenter": "pixel_classifier"},
    }
    config["grid"]["methods"] = ["otsu", "forest", "baseline"]
    grid = Grid(config)
    estimates = Estimates(grid, tmp_path)
    otsu, forest, network = (
        (estimates.training(run_of(grid, name)), estimates.prediction(run_of(grid, name)))
        for name in ("otsu", "forest", "baseline")
    )
    for less, more in zip(otsu, forest, strict=True):
        assert less.core_seconds < more.core_seconds
        assert less.gpu_seconds is None and more.gpu_seconds is None
    # A threshold has no probabilities to keep.
    assert forest[1].output_bytes == network[1].output_bytes == 7 * otsu[1].output_bytes
    config["datasets"]["nuclei"] |= {"annotated": 6, "split": SPLIT | {"cross_validate_below": 8}}
    config["grid"]["n_annotated"] = [6]
    grid = Grid(config)
    crossed = Estimates(grid, tmp_path).training(run_of(grid, "forest"))
    assert crossed.output_bytes == 4 * forest[0].output_bytes


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (tiled_prediction, ["TILE", "TILE_VOXELS"]),
        (trainer, ["VALIDATION_BATCH"]),
        (fitting, ["CALIBRATION_IMAGES", "CALIBRATION_SIDE"]),
        (patches, ["RESIDENT_BYTES"]),
        (tiled_threshold, ["PIECE"]),
    ],
)
def test_what_is_estimated_is_what_is_done(module, names):
    """The modules that do the work need torch, and so estimates repeats their constants."""
    for name in names:
        assert getattr(costs, name) == getattr(module, name), name


def test_what_jobs_ask_for():
    cost = Cost(core_seconds=36000, gpu_seconds=3600, memory_mb=1000, output_bytes=0)
    assert cost.asked_minutes(on_gpu=False) == 2 * 600
    assert cost.asked_minutes(on_gpu=True) == 4 * 60
    assert cost.asked_mb(on_gpu=False) == 1560
    assert cost.asked_mb(on_gpu=True) == 4560
    small = Cost(1.0, None, 10, 0)
    assert (small.asked_minutes(True), small.asked_mb(True)) == (30, 1000)


def test_extent_of_simulated_images(config, tmp_path):
    found = extent(config["datasets"], "nuclei", tmp_path)
    assert (found.n_train, found.n_val, found.n_test) == (29, 7, 12)
    assert found.shape == (128, 128) and found.known


def test_extent_of_folders(tmp_path):
    for kind in ("images", "masks"):
        for number in range(8):
            image = np.full((30, 40), number, np.uint8)
            write_array(tmp_path / kind / f"{number}.tif", image, Metadata("YX"))
    spec = {"source": "folder", "split": SPLIT}
    spec |= {kind: str(tmp_path / kind) for kind in ("images", "masks")}
    found = extent({"cells": spec}, "cells", tmp_path)
    assert (found.n_train, found.n_val, found.n_test) == (4, 2, 2)
    assert found.shape == (30, 40) and found.known


def test_extent_of_a_split_of_the_user(tmp_path):
    table = tmp_path / "splits.csv"
    subsets = ["train"] * 4 + ["val"] + ["test"] * 3
    table.write_text("image,subset\n" + "".join(f"{k},{s}\n" for k, s in enumerate(subsets)))
    for number in range(8):
        stack = np.full((3, 30, 40), number, np.uint8)
        write_array(tmp_path / "images" / f"{number}.tif", stack, Metadata("ZYX"))
    spec = {"source": "folder", "images": str(tmp_path / "images"), "dimensions": 2}
    spec["split"] = SPLIT | {"file": str(table)}
    found = extent({"cells": spec}, "cells", tmp_path)
    assert (found.n_train, found.n_val, found.n_test) == (12, 3, 9)


def test_extent_of_an_archive_is_a_guess_until_it_is_prepared(tmp_path):
    spec = {"source": "remote", "format": "denoiseg_npz", "split": splitting.GIVEN}
    assert not extent({"archive": spec}, "archive", tmp_path).known
    row = {"height": 20, "width": 30, "depth": 1, "dtype": "uint8", "annotated": 1, "n_objects": 1}
    subsets = ["train"] * 5 + ["val"] * 2 + ["test"]
    table = pd.DataFrame(
        [
            row | {"image": f"i{k}", "clean": 1, "given_subset": subset, "source": "x"}
            for k, subset in enumerate(subsets)
        ]
    )
    manifest.write(table, tmp_path / "archive/prepared/manifest.tsv")
    found = extent({"archive": spec}, "archive", tmp_path)
    assert (found.n_train, found.n_val, found.n_test) == (5, 2, 1)
    assert found.shape == (20, 30) and found.known
