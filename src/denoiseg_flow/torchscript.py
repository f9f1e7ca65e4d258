"""A chain of models as one network in TorchScript, which runs without denoiseg-flow.

PyTorch calls the format deprecated, but it is the one that programs outside of Python read.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import lcm
from pathlib import Path

import numpy as np
import torch
from torch import nn

from denoiseg_flow.models import TrainedModel
from denoiseg_flow.prediction import predict_tiles

SPACE = ("y", "x")
TEST_SIDE = 256  # pixels a side of the test image, at least
TOLERANCE = 1e-4  # of what is recorded, in standard deviations of the images or as probability


@dataclass(frozen=True)
class Axis:
    """Which lengths of an axis of space a network takes, in pixels.

    Attributes
    ----------
    name
        ``"y"`` or ``"x"``.
    step
        Lengths are multiples of this.
    halo
        So many pixels at either end depend on what lies beyond the image.
    """

    name: str
    step: int
    halo: int

    @property
    def smallest(self) -> int:
        """The smallest length of which anything is left inside of the halo."""
        return self.fitting(2 * self.halo + 1)

    @property
    def tested(self) -> int:
        """Length of the test image: not the smallest, by which the network was recorded."""
        return self.fitting(max(TEST_SIDE, self.smallest + 1))

    def fitting(self, length: int) -> int:
        """Return the smallest multiple of the step that is no less than ``length``."""
        return -(-length // self.step) * self.step


class PackagedNetwork(nn.Module):
    """The networks of a chain as one, with the normalisations between them.

    Parameters
    ----------
    models
        As :func:`models.chain` returns them; each reads what the one before it denoised.
    """

    def __init__(self, models: Sequence[TrainedModel]) -> None:
        super().__init__()
        self.models = models
        self.networks = nn.ModuleList(model.network for model in models)  # weights to save

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...] | torch.Tensor:
        """Map images (batch, 1, y, x) to what :func:`outputs_of` names, in that order.

        ``x`` has about zero mean and unit variance by the normalisation of the first model. The
        denoised images (batch, 1, y, x) are on the scale of the images as they were recorded;
        probabilities are (batch, 3, y, x). A single output comes without a tuple.
        """
        image, found = None, {}
        for model in self.models:
            scale = model.normalisation
            if image is not None:
                x = (image - scale.mean) / scale.std
            denoised, found["probabilities"] = _apply(model, x)
            image = denoised * scale.std + scale.mean
            if model.method.denoises:
                found["denoised"] = image
        outputs = tuple(found[name] for name in outputs_of(self.models))
        return outputs if len(outputs) > 1 else outputs[0]


def _apply(model: TrainedModel, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the denoised images (batch, 1, y, x) and the probabilities (batch, 3, y, x) of ``x``.

    As :mod:`prediction` does it, means over eight orientations included.
    """
    symmetries = model.recipe.test_time_augmentation
    denoised, probabilities = [], []
    for mirrored, turns in product((False, True), range(4)) if symmetries else [(False, 0)]:
        view = torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))
        if model.method.mask_channel:  # no pixel is hidden
            view = torch.cat([view, torch.zeros_like(view)], dim=1)
        output = torch.rot90(model.network(view), -turns, (-2, -1))  # (batch, 4, y, x)
        output = output.flip(-1) if mirrored else output
        denoised.append(output[:, :1])
        probabilities.append(output[:, 1:].softmax(dim=1))
    return torch.stack(denoised).mean(dim=0), torch.stack(probabilities).mean(dim=0)


def outputs_of(models: Sequence[TrainedModel]) -> list[str]:
    """Return the names of what a chain of models yields, in the order of the package."""
    yielded = {
        "denoised": any(model.method.denoises for model in models),
        "probabilities": models[-1].method.segments,
    }
    return [name for name, wanted in yielded.items() if wanted]


def axes_of(models: Sequence[TrainedModel]) -> list[Axis]:
    """Return the axes of space that a chain of models reads."""
    step = lcm(*(model.network.stride for model in models))
    halo = sum(model.network.halo for model in models)
    return [Axis(name, step, halo) for name in SPACE]


def record_network(
    models: Sequence[TrainedModel], noisy: np.ndarray, path: Path
) -> dict[str, np.ndarray]:
    """Write a chain as TorchScript; return what the file yields, each output (channel, y, x).

    Raises
    ------
    RuntimeError
        If that is not what the models themselves yield for the image ``noisy`` (y, x).
    """
    axes, scale = axes_of(models), models[0].normalisation
    example = torch.zeros(1, 1, *(axis.smallest for axis in axes))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(PackagedNetwork(models).eval(), example, check_trace=False)
        traced.save(path)
        results = torch.jit.load(path)(torch.from_numpy(scale.apply(noisy))[None, None])
    results = results if isinstance(results, tuple) else (results,)
    names = outputs_of(models)
    outputs = {name: result[0].numpy() for name, result in zip(names, results, strict=True)}
    inside = tuple(slice(axis.halo, axis.tested - axis.halo) for axis in axes)
    for name, expected in _predict(models, noisy).items():
        tolerance = TOLERANCE * (scale.std if name == "denoised" else 1)
        # Intensities far from zero are rounded more coarsely than they vary.
        same = np.isclose(outputs[name], expected, rtol=1e-6, atol=tolerance)
        if not same[:, *inside].all():
            raise RuntimeError(f"the packaged network yields other {name} than the model")
    return outputs


def _predict(models: Sequence[TrainedModel], image: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a chain yields for an image (y, x), each output (channel, y, x)."""
    found = {}
    for model in models:
        denoised = np.empty((1, *image.shape), np.float32)
        found["probabilities"] = np.empty((3, *image.shape), np.float32)
        for tile in predict_tiles(model, image):
            denoised[:, *tile.place] = tile.denoised
            found["probabilities"][:, *tile.place] = tile.probabilities
        image = denoised[0]
        if model.method.denoises:
            found["denoised"] = denoised
    return {name: found[name] for name in outputs_of(models)}
