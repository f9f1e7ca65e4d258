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

from denoiseg_flow.data.files.metadata import SPATIAL
from denoiseg_flow.models.model import TrainedModel, denoises
from denoiseg_flow.models.tiled_prediction import predict_tiles

# Shortest sides of the test image, by the number of spatial axes. Test volumes would soon be huge:
# they are deep enough for the network, and wide enough for a picture on the cover.
TEST_SIDES = {2: (256, 256), 3: (4, 64, 64)}
TOLERANCE = 1e-4  # of what is recorded, in standard deviations of the images or as probability


@dataclass(frozen=True)
class Axis:
    """Which lengths of an axis of space a network takes, in pixels.

    Attributes
    ----------
    name
        ``"z"``, ``"y"`` or ``"x"``.
    step
        Lengths are multiples of this.
    halo
        So many pixels at either end depend on what lies beyond the image.
    side
        The test image is at least so long.
    """

    name: str
    step: int
    halo: int
    side: int = 1

    @property
    def smallest(self) -> int:
        """The smallest length of which anything is left inside of the halo."""
        return self.fitting(2 * self.halo + 1)

    @property
    def tested(self) -> int:
        """Length of the test image: not the smallest, by which the network was recorded."""
        return self.fitting(max(self.side, self.smallest + 1))

    def fitting(self, length: int) -> int:
        """Return the smallest multiple of the step that is no less than ``length``."""
        return -(-length // self.step) * self.step


class PackagedNetwork(nn.Module):
    """The networks of a chain as one, with the normalisations between them.

    Parameters
    ----------
    models
        As :func:`model.chain` returns them; each reads what the one before it denoised.
    """

    def __init__(self, models: Sequence[TrainedModel]) -> None:
        super().__init__()
        self.models = models
        self.networks = nn.ModuleList(model.network for model in models)  # weights to save
        for number, model in enumerate(models):
            # Buffers follow the network to another device; constants of a recording would not.
            for name, values in zip(("mean", "std"), _by_channel(model), strict=True):
                self.register_buffer(f"{name}{number}", torch.from_numpy(values))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...] | torch.Tensor:
        """Map images (batch, channel, [z,] y, x) to what :func:`outputs_of` names, in that order.

        ``x`` has about zero mean and unit variance by the normalisation of the first model. The
        denoised images, of the same shape, are on the scale of the images as they were recorded;
        probabilities are (batch, 3, [z,] y, x). A single output comes without a tuple.
        """
        image, found = None, {}
        for number, model in enumerate(self.models):
            mean, std = self.get_buffer(f"mean{number}"), self.get_buffer(f"std{number}")
            if image is not None:
                x = (image - mean) / std
            denoised, found["probabilities"] = _apply(model, x)
            image = denoised * std + mean
            if model.method.denoises:
                found["denoised"] = image
        outputs = tuple(found[name] for name in outputs_of(self.models))
        return outputs if len(outputs) > 1 else outputs[0]


def _by_channel(model: TrainedModel) -> list[np.ndarray]:
    """Return means and standard deviations, float32, each of shape (channel, [1,] 1, 1)."""
    along = (-1, *[1] * model.layout.dimensions)
    values = np.array(model.normalisation.channels(), np.float32)
    return [column.copy().reshape(along) for column in values.T]


def _apply(model: TrainedModel, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a model makes of images (batch, channel, [z,] y, x) of its scale.

    The denoised images, of the same shape, and the probabilities (batch, 3, [z,] y, x), as
    :mod:`tiled_prediction` does it, means over eight orientations included.
    """
    symmetries, channels = model.recipe.test_time_augmentation, model.layout.channels
    denoised, probabilities = [], []
    for mirrored, turns in product((False, True), range(4)) if symmetries else [(False, 0)]:
        view = torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))
        if model.method.mask_channel:  # no pixel is hidden
            view = torch.cat([view, torch.zeros_like(view)], dim=1)
        # (batch, channels + 3, [z,] y, x)
        output = torch.rot90(model.network(view), -turns, (-2, -1))
        output = output.flip(-1) if mirrored else output
        denoised.append(output[:, :channels])
        probabilities.append(output[:, channels:].softmax(dim=1))
    return torch.stack(denoised).mean(dim=0), torch.stack(probabilities).mean(dim=0)


def outputs_of(models: Sequence[TrainedModel]) -> list[str]:
    """Return the names of what a chain of models yields, in the order of the package."""
    yielded = {
        "denoised": denoises(models),
        "probabilities": models[-1].method.segments,
    }
    return [name for name, wanted in yielded.items() if wanted]


def axes_of(models: Sequence[TrainedModel]) -> list[Axis]:
    """Return the axes of space that a chain of models reads: [z,] y and x."""
    dimensions = models[0].layout.dimensions
    strides = zip(*(model.network.stride for model in models), strict=True)
    halos = zip(*(model.network.halo for model in models), strict=True)
    return [
        Axis(name, lcm(*steps), sum(reaches), side)
        for name, steps, reaches, side in zip(
            SPATIAL[-dimensions:].lower(), strides, halos, TEST_SIDES[dimensions], strict=True
        )
    ]


def record_network(
    models: Sequence[TrainedModel], noisy: np.ndarray, path: Path
) -> dict[str, np.ndarray]:
    """Write a chain as TorchScript; return what the file yields, each output (channel, [z,] y, x).

    Raises
    ------
    RuntimeError
        If that is not what the models themselves yield for the image ``noisy``
        (channel, [z,] y, x).
    """
    axes = axes_of(models)
    mean, std = _by_channel(models[0])
    example = torch.zeros(1, len(noisy), *(axis.smallest for axis in axes))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(PackagedNetwork(models).eval(), example, check_trace=False)
        traced.save(path)
        results = torch.jit.load(path)(torch.from_numpy((noisy - mean) / std)[None])
    results = results if isinstance(results, tuple) else (results,)
    names = outputs_of(models)
    outputs = {name: result[0].numpy() for name, result in zip(names, results, strict=True)}
    inside = tuple(slice(axis.halo, axis.tested - axis.halo) for axis in axes)
    for name, expected in _predict(models, noisy).items():
        tolerance = TOLERANCE * (std if name == "denoised" else 1)
        # Intensities far from zero are rounded more coarsely than they vary.
        same = np.isclose(outputs[name], expected, rtol=1e-6, atol=tolerance)
        if not same[:, *inside].all():
            raise RuntimeError(f"the packaged network yields other {name} than the model")
    return outputs


def _predict(models: Sequence[TrainedModel], image: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a chain yields for (channel, [z,] y, x), each output of such a shape."""
    found = {}
    for model in models:
        denoised = np.empty(image.shape, np.float32)
        found["probabilities"] = np.empty((3, *image.shape[1:]), np.float32)
        for tile in predict_tiles(model, image if len(image) > 1 else image[0]):
            denoised[:, *tile.place] = tile.denoised
            found["probabilities"][:, *tile.place] = tile.probabilities
        image = denoised
        if model.method.denoises:
            found["denoised"] = denoised
    return {name: found[name] for name in outputs_of(models)}
