"""What one training is told: its run, method and recipe, and where it computes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class TrainingJob:
    """A run on its way to a model.

    Attributes
    ----------
    run
        Its seed decides every random draw.
    recipe
        None for classical denoisers.
    checkpoints
        Where the state of the training is kept while it runs. A training that finds one there
        continues; the caller removes them once the model is safely written.
    part
        For one of several networks that a run trains: ``{"fold": number}`` of a cross-validation,
        or ``{"image": name}`` of a method that trains on each image alone.
    """

    run: Run
    method: Method
    recipe: Recipe | None
    checkpoints: Checkpoints
    device: torch.device
    part: Mapping[str, int | str] = field(default_factory=dict)

    def for_part(self, kind: str, value: int | str) -> "TrainingJob":
        """Return the training of one of several networks, with checkpoints of its own."""
        checkpoints = self.checkpoints.beside(f"{kind}_{value}")
        return replace(self, part={kind: value}, checkpoints=checkpoints)

    @property
    def identity(self) -> dict[str, Any]:
        """Return dataset, noise, method, n_annotated and seed, and the part."""
        return self.run.as_dict() | self.part

    @property
    def name(self) -> str:
        """Return the name for progress bars and logs."""
        part = [f"{kind} {value}" for kind, value in self.part.items()]
        return " ".join([*map(str, self.run.as_dict().values()), *part])
