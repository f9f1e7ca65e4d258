"""Small pieces that several test files share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from snakemake.utils import update_config

from denoiseg_flow import api, cli
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.methods.initial_model import InitialModel
from denoiseg_flow.methods.networks import build_network
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.study import configuration, feasibility, grid

ROOT = Path(__file__).parents[2]

STUDY = """
datasets:
  nuclei: { source: simulate }
noises:
  n0: { kind: none }
  n10: { kind: gaussian, sigma: 10 }
  n20: { kind: gaussian, sigma: 20 }
recipe: fast
recipes:
  fast: &fast
    depth: 2
    filters: 4
    patch_size: 32
    batch_size: 4
    epochs: 2
    steps_per_epoch: 3
    learning_rate: 1.0e-2
    schedule: one_cycle
    weights: last
    annotated_share: 0.5
    loss_normalisation: annotated_pixels
  other: { <<: *fast, batch_norm_momentum: 0.01, validation_patches: 32 }
methods:
  n2v: { target: blind_spot, alpha: 1, published: n2v }
  baseline: { alpha: 0, published: baseline }
  sequential: { input: n2v, alpha: 0, published: sequential }
  denoiseg: { target: blind_spot, alpha: 0.5, published: denoiseg_alpha0.5 }
  denoiseg_warm: { target: blind_spot, alpha: 0.5, init: n2v }
grid:
  datasets: [nuclei]
  noises: [n10, n20]
  methods: [n2v, baseline, sequential, denoiseg, denoiseg_warm]
  n_annotated: [4, 16]
  seeds: [1, 2]
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> None:
    """Sums over several threads may be rounded in another order, and tiny ones only wait."""
    torch.set_num_threads(1)
    for module in (api, cli):
        monkeypatch.setattr(module, "usable_cores", lambda: 1)


@pytest.fixture(scope="session")
def root() -> Path:
    """Folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    """The config schema of the workflow."""
    return yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())


@pytest.fixture(scope="session")
def read_config() -> Callable[..., dict[str, Any]]:
    """Read shipped configs on top of the default one, as Snakemake does, without defaults."""

    @cache
    def parse(name: str) -> dict[str, Any]:
        return yaml.safe_load((ROOT / "config" / name).read_text())

    def read(*names: str) -> dict[str, Any]:
        config: dict[str, Any] = {}
        for name in ("config.yaml", *names):
            update_config(config, deepcopy(parse(name)))
        return config

    return read


@pytest.fixture(scope="session")
def parsed() -> dict[str, Any]:
    """A config like the default one, but independent of it; as a user writes it."""
    return yaml.safe_load(STUDY)


@pytest.fixture(scope="session")
def checked(parsed, schema) -> dict[str, Any]:
    """The same, checked and with its defaults."""
    config = deepcopy(parsed)
    configuration.check(config, schema)
    configuration.fill_defaults(config, schema)
    return config


@pytest.fixture
def study(parsed) -> dict[str, Any]:
    """A config as a user writes it, to be changed by a test."""
    return deepcopy(parsed)


@pytest.fixture
def config(checked) -> dict[str, Any]:
    """The same, checked and with its defaults, to be changed by a test."""
    return deepcopy(checked)


@pytest.fixture
def elsewhere(monkeypatch) -> None:
    """A machine that has what configs may name: BM3D, folders with four masks, and models."""
    model = InitialModel("", {}, "unet", depth=4, filters=16, instances="distance")
    monkeypatch.setattr(grid, "find_source", lambda *_: None)
    monkeypatch.setattr(grid, "describe_initial_model", lambda *_: model)
    monkeypatch.setattr(feasibility, "is_available", lambda name: True)
    monkeypatch.setattr(grid, "annotated_for_training", lambda *_: 4)
    monkeypatch.setattr(grid, "is_cross_validated", lambda *_: False)


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Recipe]:
    """Make a recipe that trains in a fraction of a second."""

    def make(**changes: Any) -> Recipe:
        values = {
            "depth": 1,
            "filters": 2,
            "patch_size": 16,
            "batch_size": 4,
            "epochs": 3,
            "steps_per_epoch": 2,
            "learning_rate": 1e-2,
            "schedule": "one_cycle",
            "weights": "last",
            "batch_norm_momentum": 0.1,
            "freeze_batch_norm": 0.0,
            "ema_decay": 0.9,
            "masked_fraction": 1 / 16,
            "annotated_share": 0.5,
            "pseudo_labels": 0.0,
            "loss_normalisation": "annotated_pixels",
            "validation_patches": 4,
            "instances": "components",
            "preserve_mean": False,
            "test_time_augmentation": False,
        }
        return Recipe(**values | changes)

    return make


@pytest.fixture(scope="session")
def joint() -> Method:
    """DenoiSeg."""
    return Method(name="denoiseg", target="blind_spot", alpha=0.5)


@pytest.fixture(scope="session")
def make_blobs() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Draw a noisy image of discs on a grid, and its instance labels (int32)."""

    def make(size: int, seed: int, sigma: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:size, :size]
        labels = np.zeros((size, size), np.int32)
        for number, corner in enumerate(np.ndindex(size // 16, size // 16), start=1):
            centre = 16 * np.array(corner) + 8 + rng.integers(-1, 2, 2)
            labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= rng.integers(16, 26)] = number
        image = 100 + 80 * (labels > 0) + sigma * rng.standard_normal(labels.shape)
        return image.astype(np.float32), labels

    return make


@pytest.fixture
def make_model(make_recipe, joint) -> Callable[..., TrainedModel]:
    """Make a model with random weights, and batch statistics as after a training."""

    def make(
        method: Method = joint, depth: int = 1, filters: int = 2, layout: Layout | None = None
    ) -> TrainedModel:
        torch.manual_seed(0)
        layout = layout or Layout()
        network = build_network(method.network, depth, filters, method.mask_channel, layout)
        sides = [4, 32, 32][-layout.dimensions :]
        network.train()(torch.randn(4, layout.channels * (1 + method.mask_channel), *sides))
        return TrainedModel(
            method=method,
            recipe=make_recipe(depth=depth, filters=filters),
            identity={
                "dataset": "nuclei",
                "noise": "n10",
                "method": method.name,
                "n_annotated": 4,
                "seed": 1,
            },
            normalisation=Normalisation((100.0,), (25.0,)),
            network=network.eval(),
            layout=layout,
            threshold=Threshold(0.35, 0.75, 3) if method.segments else None,
        )

    return make


@pytest.fixture
def model_file(tmp_path, make_model) -> Path:
    """The file of a joint model that finds objects: the threshold is low."""
    model = make_model()
    model.threshold = Threshold(0.2, 0.5, 1)
    save_model(model, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture(scope="session")
def windows() -> dict[str, str]:
    """The environment of processes that lack what Windows lacks: tests/windows/sitecustomize.py."""
    places = [str(ROOT / "tests/windows"), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONIOENCODING": "cp1252",
        "PYTHONWARNDEFAULTENCODING": "1",  # for its EncodingWarning
    }


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that run a program text; they are killed in the end."""
    started = []

    def start(program: str, *arguments: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
