"""A trained model: everything that is needed to use it, in one file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from denoiseg_flow import __version__, checkpoints
from denoiseg_flow.classical import DENOISERS
from denoiseg_flow.errors import InputError, plain, shown
from denoiseg_flow.instances import Threshold
from denoiseg_flow.methods import Method, Recipe, as_dict, method_from_dict, recipe_from_dict
from denoiseg_flow.networks import build_network
from denoiseg_flow.networks.folding import fold_batch_norms
from denoiseg_flow.networks.layout import PLANES, Layout

FORMAT = 3
# 2 is 3 for planes of one channel only and without origin; 1 is 2 without models of single images
# and classical denoisers.
READABLE = (1, 2, 3)
SINCE = "0.1.0"  # the first version of the package that reads this format
_UNFIT = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError),
    *(TypeError, ValueError),
)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the training images, in units of the input.

    Numbers; where there are several channels, one for each of them.
    """

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.asarray([self.mean, self.std], float)
        if not np.isfinite(values).all():
            raise ValueError(f"mean {self.mean} and standard deviation {self.std}")

    @classmethod
    def of_channels(cls, values: Sequence[tuple[float, float]]) -> "Normalisation":
        """Return the normalisation of channels with these means and standard deviations."""
        mean, std = zip(*values, strict=True)
        return cls(mean[0], std[0]) if len(values) == 1 else cls(mean, std)

    def channels(self) -> list[tuple[float, float]]:
        """Return mean and standard deviation of each channel."""
        return list(zip(np.atleast_1d(self.mean), np.atleast_1d(self.std), strict=True))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return an image ([channel,] ...) as float32 with about zero mean and unit variance."""
        mean, std = self._along(image)
        return (image.astype(np.float32) - mean) / std

    def undo(self, image: np.ndarray) -> np.ndarray:
        """Return an image of the network on the scale of the input."""
        mean, std = self._along(image)
        return image * std + mean

    def _along(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 values that are broadcast over all but the channel axis."""
        found = (np.asarray(values, np.float32) for values in (self.mean, self.std))
        mean, std = (
            values.reshape(-1, *[1] * (image.ndim - 1)) if values.ndim else values
            for values in found
        )
        return mean, std


@dataclass
class TrainedModel:
    """A network with its method, recipe, normalisation, threshold and origin.

    Attributes
    ----------
    identity
        dataset, noise, method, n_labelled and seed of the run.
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
    network: nn.Module
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
            "normalisation": asdict(self.normalisation),
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
        See :data:`classical.DENOISERS`.
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


def save_model(model: AnyModel, path: Path) -> None:
    """Write a model of any kind, and the one whose denoised images it reads, to one file."""
    header = {
        "format": FORMAT,
        "software": f"denoiseg-flow {__version__}",
        "readable_by": f"denoiseg-flow {SINCE} or newer",
        "summary": summary(model),
    }
    checkpoints.save_atomically(header | _whole(model), path)


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


def existing_model(path: Path) -> Path:
    """Return the path of a model that a user names; raise InputError if there is no such file."""
    if not path.is_file():
        raise InputError(f"model {path} does not exist or is not a file: correct its path")
    return path


def describe_model(path: Path) -> dict[str, Any]:
    """Return what a model file says of itself, without its weights.

    Raises
    ------
    InputError
        As :func:`load_model`.
    """
    with _refusal(path):
        return _without_tensors(_read(path, "cpu"))


def _without_tensors(value: Any) -> Any:
    """Return plain values only; of named tensors, how many numbers they are."""
    if isinstance(value, list | tuple):
        return [_without_tensors(each) for each in value]
    if not isinstance(value, dict):
        return value
    tensors = [each for each in value.values() if isinstance(each, torch.Tensor)]
    if tensors:
        return f"{sum(each.numel() for each in tensors)} numbers"
    return {key: _without_tensors(each) for key, each in value.items()}


def _whole(model: AnyModel) -> dict[str, Any]:
    return {
        "identity": model.identity,
        "origin": model.origin,
        "method": as_dict(model.method),
        **model.content(),
        "input": _whole(model.input) if model.input else None,
    }


def load_model(path: Path, device: torch.device | str = "cpu") -> AnyModel:
    """Read a model of any kind.

    Raises
    ------
    InputError
        If the file is damaged, was written by a newer version of the package, or is no model.
    """
    with _refusal(path):
        return _rebuild(_read(path, device), device)


@contextmanager
def _refusal(path: Path) -> Iterator[None]:
    """Say of whatever comes of values that no model has that it is none."""
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # of a GPU: RuntimeErrors as well
        raise
    except _UNFIT as error:
        reason = plain(f"{type(error).__name__}: {error}")
        raise InputError(
            f"model {path} is damaged or was not written by denoiseg-flow ({reason}): train it "
            "again, or get it again from where it was trained"
        ) from error


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    try:
        content = checkpoints.load(path, device)
    except ValueError as error:
        raise InputError(f"{error}; delete it and run the workflow again") from error
    if content.get("format") not in READABLE:
        raise InputError(
            f"model {path} has format {shown(content.get('format'))}, but this version of "
            f"denoiseg-flow reads format {FORMAT}; install the version that wrote it "
            f"({plain(content.get('software', 'unknown'))})"
        )
    return content


def _rebuild(content: dict[str, Any], device: torch.device | str) -> AnyModel:
    model = _rebuild_kind(content, device)
    model.origin = content.get("origin", {})
    return model


def _rebuild_kind(content: dict[str, Any], device: torch.device | str) -> AnyModel:
    method, identity = method_from_dict(content["method"]), content["identity"]
    before = _rebuild(content["input"], device) if content.get("input") else None
    if method.classical:
        found = content["parameter"], content["noise_sigma"]
        if method.classical not in DENOISERS or not all(map(_is_number, found)):
            raise ValueError(f"denoiser {method.classical} with {found}")
        return ClassicalModel(method, identity, *found, input=before)
    recipe = recipe_from_dict(content["recipe"])

    def model(part: dict[str, Any]) -> TrainedModel:
        layout = Layout(**part.get("layout", {}))
        weights = part["weights"]
        _check_sizes(weights, method, recipe, layout)
        network = new_network(method, recipe, layout)
        network.load_state_dict(weights)
        normalisation = Normalisation(**part["normalisation"])
        network = network.to(device).eval()
        return TrainedModel(method, recipe, identity, normalisation, network, layout)

    if method.each_image:
        models = {name: model(part) for name, part in content["images"].items()}
        return ImageModels(method, recipe, identity, models, before)
    trained = model(content)
    trained.input = before
    if content["threshold"]:
        trained.threshold = Threshold(**content["threshold"])
    for part in content.get("held_out", []):
        other = model(part)
        other.threshold = trained.threshold
        trained.held_out |= dict.fromkeys(part["images"], other)
    return trained


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def _check_sizes(
    weights: Mapping[str, torch.Tensor], method: Method, recipe: Recipe, layout: Layout
) -> None:
    """Raise an error unless a network of that size has these weights, before it takes memory."""
    if recipe.depth > len(weights):
        raise ValueError(f"{len(weights)} weights for a network of depth {recipe.depth}")
    with torch.device("meta"):
        expected = new_network(method, recipe, layout).state_dict()
    for name, values in expected.items():
        if values.shape != weights[name].shape:
            raise ValueError(f"{name} of shape {list(weights[name].shape)}")


def new_network(method: Method, recipe: Recipe, layout: Layout = PLANES) -> nn.Module:
    """Return a new network of a method, of the size that the recipe tells."""
    return build_network(method.network, recipe.depth, recipe.filters, method.mask_channel, layout)
