"""A trained model: everything that is needed to use it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import (
    Method,
    Recipe,
    as_dict,
)
from denoiseg_flow.methods.networks import build_network
from denoiseg_flow.methods.networks.folding import fold_batch_norms
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.methods.networks.network import Network
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.threshold import Threshold


@dataclass
class TrainedModel:
    """A network with its method, recipe, normalisation, threshold and origin.

    Attributes
    ----------
    identity
        dataset, noise, method, n_annotated and seed of the run.
    layout
        The images that the network is for.
    threshold
        None until it is chosen, and for methods that do not segment.
    input
        The model whose denoised images this one reads; None: it reads the noisy images.
    held_out
        Where the annotated images are cross-validated: for each of them, by name, a model that was
        trained without it.
    origin
        What it was trained on and by, in plain values, see :func:`fitting.fit`.
    """

    method: Method
    recipe: Recipe
    identity: dict[str, Any]
    normalisation: Normalisation
    network: Network
    layout: Layout = PLANES
    threshold: Threshold | None = None
    input: "AnyModel | None" = None
    held_out: "dict[str, TrainedModel]" = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    _folded: tuple[Any, nn.Module] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def predictor(self) -> nn.Module:
        """The network to predict with, which has the batch normalisation in its convolutions.

        It is made when it is first asked for, and anew after the weights have changed. Nothing is
        trained or stored but ``network``.
        """
        values = [*self.network.parameters(), *self.network.buffers()]
        # PyTorch counts the changes of each tensor.
        state = self.network, [(each.data_ptr(), each._version) for each in values]
        if self._folded is None or self._folded[0] != state:
            self._folded = state, fold_batch_norms(self.network)
        return self._folded[1]

    def for_image(self, name: str) -> "TrainedModel":
        """Return the model that predicts the image of that name: one that was not trained on it.

        That is the model itself, but for images that are cross-validated.
        """
        return self.held_out.get(name, self)

    def content(self) -> dict[str, Any]:
        """Return the model as tensors and plain values."""
        threshold = asdict(self.threshold) if self.threshold else None
        held_out = [
            model.part()
            | {"images": [name for name, each in self.held_out.items() if each is model]}
            for model in {id(model): model for model in self.held_out.values()}.values()
        ]
        plain = {"recipe": as_dict(self.recipe), "threshold": threshold}
        return self.part() | plain | {"held_out": held_out}

    def part(self) -> dict[str, Any]:
        """Return what a training found, as tensors on the CPU and plain values."""
        return {
            "normalisation": self.normalisation.plain(),
            "weights": {key: value.cpu() for key, value in self.network.state_dict().items()},
            "layout": asdict(self.layout),
        }


@dataclass
class ImageModels:
    """The models of a method that trains a network on each image alone, by the image's name."""

    method: Method
    recipe: Recipe
    identity: dict[str, Any]
    models: dict[str, TrainedModel]
    input: "AnyModel | None" = None
    origin: dict[str, Any] = field(default_factory=dict)

    def for_image(self, name: str) -> TrainedModel:
        """Return the model that was trained on the image of that name."""
        if name not in self.models:
            raise InputError(
                f"method '{self.method.name}' has a network for each image it was trained on, and "
                f"'{name}' is none of them; train again with that image"
            )
        return self.models[name]

    def content(self) -> dict[str, Any]:
        """Return all of them as tensors and plain values."""
        images = {name: model.part() for name, model in self.models.items()}
        return {"recipe": as_dict(self.recipe), "images": images}


@dataclass
class ClassicalModel:
    """A classical denoiser with its parameter.

    Attributes
    ----------
    parameter
        See :data:`~denoiseg_flow.methods.classical.DENOISERS`.
    noise_sigma
        Standard deviation of the noise in grey levels; None: estimated from each image.
    """

    method: Method
    identity: dict[str, Any]
    parameter: float | None
    noise_sigma: float | None
    input: "AnyModel | None" = None
    origin: dict[str, Any] = field(default_factory=dict)

    def for_image(self, name: str) -> "ClassicalModel":
        """Return the model that predicts the image of that name: this one."""
        return self

    def content(self) -> dict[str, Any]:
        """Return the choice as plain values."""
        return {"parameter": self.parameter, "noise_sigma": self.noise_sigma}


AnyModel = TrainedModel | ImageModels | ClassicalModel


def chain(model: AnyModel) -> list[AnyModel]:
    """Return the models that one after the other lead to the result, the given one last."""
    return [*(chain(model.input) if model.input else []), model]


def denoises(models: Sequence[AnyModel]) -> bool:
    """Whether denoised images come of a :func:`chain` of models."""
    return any(model.method.denoises for model in models)


def purpose(models: Sequence[AnyModel]) -> str:
    """Say what a :func:`chain` of models does: that it denoises, segments, or both."""
    does = {"denoises": denoises(models), "segments": models[-1].method.segments}
    return " and ".join(verb for verb, done in does.items() if done).capitalize()


def summary(model: AnyModel) -> str:
    """Say in a sentence what a model does, to which images."""
    images = "planes and volumes"
    if isinstance(model, TrainedModel):
        layout = model.layout
        images = "volumes" if layout.dimensions == 3 else "planes"
        images += " plane by plane" if layout.plane_by_plane else ""
        images += f" of {layout.channels} channels" if layout.channels > 1 else ""
    elif isinstance(model, ImageModels):
        images = f"the {len(model.models)} images that it was trained on"
    return f"{purpose(chain(model))} {images}."


def new_network(method: Method, recipe: Recipe, layout: Layout = PLANES) -> Network:
    """Return a new network of a method, of the size that the recipe tells."""
    return build_network(method.network, recipe.depth, recipe.filters, method.mask_channel, layout)
