"""Data and settings of the phases: packed datasets and small simulated images."""

import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.noise import add_noise_to_folder
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.methods.classes import encode_classes
from denoiseg_flow.methods.definition import Method, Recipe, recipe_from_dict
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.models.model import AnyModel
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.fitting import RunData, fit
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.patches import ImageBank

DATASET = "packed"
NO_CHECKPOINTS = 1e9  # seconds between two
VOLUME = Layout(3, patch_depth=8, z_factors=(1, 2))
TWO_CHANNELS = Layout(channels=2)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let a GPU compute matrix products and convolutions of float32 in tf32, or not."""
    kinds = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [kind.allow_tf32 for kind in kinds]
    for kind in kinds:
        kind.allow_tf32 = allowed
    try:
        yield
    finally:
        for kind, was in zip(kinds, before, strict=True):
            kind.allow_tf32 = was


@dataclass(frozen=True)
class Scale:
    """How large things are: as asked for on a GPU, and as small as they get in a rehearsal."""

    networks: tuple[tuple[int, int], ...]  # depth, filters
    batches: tuple[int, ...]
    seconds_per_speed: float
    matrix_side: int
    copied_bytes: int
    image_sides: tuple[int, ...]
    predicted_images: int
    child_steps: int
    child: Mapping[str, int]  # changes of the recipe
    huge_batch: int
    good_network: tuple[int, int]
    good_steps: int
    n_draws: int
    n_annotated: tuple[int, ...]
    noises: tuple[str, ...]


SCALES = {
    "cuda": Scale(
        networks=((2, 16), (4, 32)),
        batches=(16, 128, 512),
        seconds_per_speed=0.4,
        matrix_side=8192,
        copied_bytes=2**32,
        image_sides=(2048, 16384),
        predicted_images=20,
        child_steps=600,
        child={},
        huge_batch=12288,
        good_network=(4, 32),
        good_steps=1600,
        n_draws=8,
        n_annotated=(2, 10),
        noises=("n20", "n10"),
    ),
    "cpu": Scale(
        networks=((1, 2), (2, 2)),
        batches=(2, 4),
        seconds_per_speed=0.02,
        matrix_side=256,
        copied_bytes=2**22,
        image_sides=(128, 192),
        predicted_images=2,
        child_steps=40,
        child={"filters": 2, "batch_size": 2, "patch_size": 16, "validation_patches": 2},
        huge_batch=2**30,
        good_network=(1, 4),
        good_steps=20,
        n_draws=1,
        n_annotated=(2,),
        noises=("n20",),
    ),
}


class Material:
    """The packed data, unpacked; settings; and where to write.

    Parameters
    ----------
    pack
        Folder that ``pack.sh`` wrote.
    scratch
        Empty folder for images and models.
    device
        That is measured.
    """

    def __init__(self, pack: Path, scratch: Path, device: torch.device) -> None:
        self.scratch = scratch
        self.device = device
        self.scale = SCALES[device.type]
        self.settings: dict[str, Any] = json.loads((pack / "settings.json").read_text())
        with tarfile.open(pack / "data.tar.xz") as archive:
            archive.extractall(scratch / "data", filter="data")
        self.prepared = PreparedData(scratch / "data" / "prepared")
        (self.prepared.folder / "clean").symlink_to("images")

    def method(self, name: str) -> Method:
        """Return a method of config/config.yaml."""
        return Method(**self.settings["methods"][name])

    def recipe(self, name: str = "fast", **changes: Any) -> Recipe:
        """Return a recipe of config/config.yaml, changed."""
        return replace(recipe_from_dict(self.settings["recipes"][name]), **changes)

    def short_recipe(self, steps: int, **changes: Any) -> Recipe:
        """Return the recipe ``fast`` for so many steps, in epochs of at most 100."""
        epochs = max(1, round(steps / 100))
        return self.recipe(**{"epochs": epochs, "steps_per_epoch": steps // epochs} | changes)

    @property
    def draws(self) -> list[int]:
        """Return the seeds that there are splits for."""
        return sorted(
            int(path.stem.removeprefix("seed"))
            for path in (self.prepared.folder.parent / "split").glob("seed*.tsv")
        )

    def split(self, seed: int) -> pd.DataFrame:
        """Return the split of a draw."""
        return manifest.read(self.prepared.folder.parent / "split" / f"seed{seed}.tsv")

    def noisy(self, noise: str) -> Path:
        """Return the folder of noisy images; they are made when they are first asked for."""
        folder = self.scratch / "data" / "noisy" / noise
        if not folder.exists():
            level = self.settings["noises"][noise]
            add_noise_to_folder(self.prepared, level, noise, folder)
        return folder

    def fit(
        self,
        method: Method,
        recipe: Recipe,
        seed: int,
        n_annotated: int,
        noise: str = "n20",
        images: Path | None = None,
    ) -> AnyModel:
        """Train one run on the packed data, as ``workflow/scripts/train.py`` does."""
        folder = self.scratch / "checkpoints"
        checkpoints = Checkpoints(folder / "checkpoint.pt", NO_CHECKPOINTS)
        run = Run(DATASET, noise, method.name, n_annotated, seed)
        data = RunData(
            split=self.split(seed),
            prepared=self.prepared,
            images=images or self.noisy(noise),
            level=self.settings["noises"][noise],
        )
        model, _ = fit(TrainingJob(run, method, recipe, checkpoints, self.device), data)
        shutil.rmtree(folder)
        return model

    def bank(self, layout: Layout, device: torch.device, target: str = "none") -> ImageBank:
        """Return simulated images, normalised, every second one annotated, on a device.

        Parameters
        ----------
        target
            Of a method: ``clean`` and ``second_noisy`` give the images something to be denoised
            towards.
        """
        clean, masks = zip(*self._simulated[layout], strict=True)
        rng = np.random.default_rng(0)

        def noisy() -> list[np.ndarray]:
            return [image + rng.normal(0, 20, image.shape) for image in clean]

        def classes(mask: np.ndarray) -> list[torch.Tensor]:
            return [encode_classes(torch.from_numpy(mask))]

        bank = ImageBank.load(
            noisy(),
            [None if number % 2 else classes(mask) for number, mask in enumerate(masks)],
            [mask.shape for mask in masks],
            device,
            {"clean": clean, "second_noisy": noisy()}.get(target),
            layout.channels,
        )
        bank.normalise(bank.measure())
        return bank

    @cached_property
    def _simulated(self) -> dict[Layout, list[tuple[np.ndarray, np.ndarray]]]:
        """Clean images (channel, [z,] y, x) and masks."""
        planes = [(each.clean[None], each.mask) for each in simulate(n_images=4, size=96)]
        volumes = [
            (each.clean[None], each.mask) for each in simulate(n_images=3, size=64, depth=12)
        ]
        others = planes[1:] + planes[:1]
        both = [
            (np.concatenate([image, other]), mask)
            for (image, mask), (other, _) in zip(planes, others, strict=True)
        ]
        return {PLANES: planes, TWO_CHANNELS: both, VOLUME: volumes}
