"""Record a chain of models as one TorchScript network, which runs without denoiseg-flow.

PyTorch has deprecated the format, but programs outside Python read it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path

import numpy as np
import torch
from torch import nn

from denoiseg_flow.data.files.metadata import SPATIAL
from denoiseg_flow.methods.classes import DISTANCE
from denoiseg_flow.models.model import TrainedModel, denoises
from denoiseg_flow.models.tiled_prediction import apply_network, predict_tiles

# Minimum sides of the test image, by the number of spatial axes. Volumes are small to save space:
# just deep enough for the network and wide enough for the cover image.
TEST_SIDES = {2: (256, 256), 3: (4, 64, 64)}
TOLERANCE = 1e-4  # of recorded outputs, in standard deviations of the images or in probability


@dataclass(frozen=True)
class Axis:
    """Lengths of a spatial axis that a network accepts, in pixels.

    Attributes
    ----------
    name
        ``"z"``, ``"y"`` or ``"x"``.
    step
        Lengths are multiples of the step.
    halo
        Number of pixels at either end that depend on padding beyond the image.
    side
        Minimum length of the test image.
    """

    name: str
    step: int
    halo: int
    side: int = 1

    @property
    def smallest(self) -> int:
        """Smallest length with at least one pixel outside the halos."""
        return self.fitting(2 * self.halo + 1)

    @property
    def tested(self) -> int:
        """Length of the test image, different from the smallest, which is used for recording."""
        return self.fitting(max(self.side, self.smallest + 1))

    def fitting(self, length: int) -> int:
        """Return the smallest multiple of the step that is no less than ``length``."""
        return -(-length // self.step) * self.step


class PackagedNetwork(nn.Module):
    """The networks of a chain combined into one, with the normalisations between them.

    Parameters
    ----------
    models
        The result of :func:`model.chain`; each model reads the denoised images of the previous one.
    """

    def __init__(self, models: Sequence[TrainedModel]) -> None:
        super().__init__()
        self.models = models
        self.networks = nn.ModuleList(model.network for model in models)  # weights to save
        for number, model in enumerate(models):
            # Buffers move with the network to another device; traced constants would not.
            scale = model.normalisation.scale(model.layout.dimensions)
            for name, values in zip(("mean", "std"), scale, strict=True):
                self.register_buffer(f"{name}{number}", values)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...] | torch.Tensor:
        """Map images (batch, channel, [z,] y, x) to the outputs named by :func:`outputs_of`.

        ``x`` is normalised by the first model. Denoised images have the shape of ``x`` and the
        intensity scale of the original images; probabilities are (batch, 3, [z,] y, x), distances
        (batch, 1, [z,] y, x). A single output is returned without a tuple.
        """
        image, found = None, {}
        for number, model in enumerate(self.models):
            mean, std = self.get_buffer(f"mean{number}"), self.get_buffer(f"std{number}")
            if image is not None:
                x = (image - mean) / std
            denoised, maps = apply_network(model, model.network, x)
            found["probabilities"], found["distance"] = maps.tensor_split([DISTANCE], dim=1)
            image = denoised * std + mean
            if model.method.denoises:
                found["denoised"] = image
        outputs = tuple(found[name] for name in outputs_of(self.models))
        return outputs if len(outputs) > 1 else outputs[0]


def outputs_of(models: Sequence[TrainedModel]) -> list[str]:
    """Return the names of the outputs of a chain of models, in the order of the package."""
    yielded = {
        "denoised": denoises(models),
        "probabilities": models[-1].method.segments,
        "distance": models[-1].method.segments and models[-1].n_maps > DISTANCE,
    }
    return [name for name, wanted in yielded.items() if wanted]


def axes_of(models: Sequence[TrainedModel]) -> list[Axis]:
    """Return the spatial axes of a chain of models: [z,] y and x."""
    dimensions = models[0].layout.dimensions
    strides = zip(*(model.stride for model in models), strict=True)
    halos = zip(*(model.halo for model in models), strict=True)
    return [
        Axis(name, lcm(*steps), sum(reaches), side)
        for name, steps, reaches, side in zip(
            SPATIAL[-dimensions:].lower(), strides, halos, TEST_SIDES[dimensions], strict=True
        )
    ]


def record_network(
    models: Sequence[TrainedModel], noisy: np.ndarray, path: Path
) -> dict[str, np.ndarray]:
    """Write a chain as TorchScript; return the outputs of the file, each (channel, [z,] y, x).

    Raises
    ------
    RuntimeError
        If these differ from the outputs of the models for the image ``noisy``
        (channel, [z,] y, x).
    """
    axes = axes_of(models)
    mean, std = (
        values.numpy() for values in models[0].normalisation.scale(models[0].layout.dimensions)
    )
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
        # Rounding errors grow with the intensity.
        same = np.isclose(outputs[name], expected, rtol=1e-6, atol=tolerance)
        if not same[:, *inside].all():
            raise RuntimeError(f"the packaged network and the model differ in their {name} output")
    return outputs


def _predict(models: Sequence[TrainedModel], image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of a chain for an image (channel, [z,] y, x), each of such a shape."""
    found = {}
    for model in models:
        denoised = np.empty(image.shape, np.float32)
        maps = np.empty((model.n_maps, *image.shape[1:]), np.float32)
        found["probabilities"], found["distance"] = maps[:DISTANCE], maps[DISTANCE:]
        for tile in predict_tiles(model, image):
            denoised[:, *tile.place] = tile.denoised
            maps[:, *tile.place] = tile.maps
        image = denoised
        if model.method.denoises:
            found["denoised"] = denoised
    return {name: found[name] for name in outputs_of(models)}
