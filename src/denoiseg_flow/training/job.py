"""The inputs of one training: run, method, recipe, checkpoints and device."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class TrainingJob:
    """The training of one run.

    Attributes
    ----------
    run
        Its seed decides every random draw.
    recipe
        None for methods that are not trained.
    checkpoints
        Files for the state of a running training. A training resumes from a checkpoint if there is
        one; the caller removes the checkpoints when the model has been written.
    part
        Identifies one of several networks of a run: ``{"fold": number}`` in a cross-validation, or
        ``{"image": name}`` for a method that trains on each image alone.
    network
        Number of this network, from 1, and how many the run trains one after the other.
    events
        Folder for TensorBoard event files; None writes none.
    """

    run: Run
    method: Method
    recipe: Recipe | None
    checkpoints: Checkpoints
    device: torch.device
    part: Mapping[str, int | str] = field(default_factory=dict)
    network: tuple[int, int] = (1, 1)
    events: Path | None = None

    def for_part(self, kind: str, value: int | str, network: tuple[int, int]) -> "TrainingJob":
        """Return the training of one of several networks, with separate checkpoints and events."""
        name = f"{kind}_{value}"
        return replace(
            self,
            part={kind: value},
            checkpoints=self.checkpoints.beside(name),
            network=network,
            events=self.events and self.events / name,
        )

    @property
    def network_recipe(self) -> Recipe:
        """The recipe of a method that trains a network."""
        assert self.recipe is not None
        return self.recipe

    @property
    def identity(self) -> dict[str, Any]:
        """Return dataset, noise, method, n_annotated and seed, and the part."""
        return {**self.run.as_dict(), **self.part}

    @property
    def name(self) -> str:
        """Return the name for progress bars and logs."""
        part = [f"{kind} {value}" for kind, value in self.part.items()]
        return " ".join([*map(str, self.run.as_dict().values()), *part])
