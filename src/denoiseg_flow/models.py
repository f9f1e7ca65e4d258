"""A trained model: everything that is needed to use it, in one file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from denoiseg_flow import __version__, checkpoints
from denoiseg_flow.errors import InputError
from denoiseg_flow.instances import Threshold
from denoiseg_flow.methods import Method, Recipe, as_dict, method_from_dict, recipe_from_dict
from denoiseg_flow.networks import build_network

FORMAT = 1


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the training images, in units of the input."""

    mean: float
    std: float

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the image as float32 with about zero mean and unit variance."""
        return (image.astype(np.float32) - np.float32(self.mean)) / np.float32(self.std)

    def undo(self, image: np.ndarray) -> np.ndarray:
        """Return an image of the network on the scale of the input."""
        return image * np.float32(self.std) + np.float32(self.mean)


@dataclass
class TrainedModel:
    """A network with its method, recipe, normalisation, threshold and origin.

    Attributes
    ----------
    identity
        dataset, noise, method, n_labelled and seed of the run.
    threshold
        None until it is chosen, and for methods that do not segment.
    """

    method: Method
    recipe: Recipe
    identity: dict[str, Any]
    normalisation: Normalisation
    network: nn.Module
    threshold: Threshold | None = None

    def save(self, path: Path) -> None:
        """Write the model to ``path``."""
        content = {
            "format": FORMAT,
            "software": f"denoiseg-flow {__version__}",
            "method": as_dict(self.method),
            "recipe": as_dict(self.recipe),
            "identity": self.identity,
            "normalisation": asdict(self.normalisation),
            "threshold": asdict(self.threshold) if self.threshold else None,
            "weights": {key: value.cpu() for key, value in self.network.state_dict().items()},
        }
        checkpoints.save_atomically(content, path)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> "TrainedModel":
        """Read a model.

        Raises
        ------
        InputError
            If the file is damaged, or was written by a newer version of the package.
        """
        try:
            content = checkpoints.load(path, device)
        except ValueError as error:
            raise InputError(f"{error}; delete it and run the workflow again") from error
        if content.get("format") != FORMAT:
            raise InputError(
                f"model {path} has format {content.get('format')}, but this version of "
                f"denoiseg-flow reads format {FORMAT}; install the version that wrote it"
            )
        method = method_from_dict(content["method"])
        recipe = recipe_from_dict(content["recipe"])
        network = build_network(method.network, recipe.depth, recipe.filters)
        network.load_state_dict(content["weights"])
        threshold = content["threshold"]
        return cls(
            method=method,
            recipe=recipe,
            identity=content["identity"],
            normalisation=Normalisation(**content["normalisation"]),
            network=network.to(device).eval(),
            threshold=Threshold(**threshold) if threshold else None,
        )
