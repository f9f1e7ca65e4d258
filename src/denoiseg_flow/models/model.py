"""Trained models, with everything needed to use them."""

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
from denoiseg_flow.methods.pixel_classifier import PixelClassifier
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.precision_curve import PrecisionCurve
from denoiseg_flow.models.threshold import Threshold

CERTAINTY_WINDOW = 17  # pixels, odd: side of the square in which the certainty of two sizes counts


@dataclass
class TrainedModel:
    """A network with its method, recipe, normalisation, threshold and origin.

    Attributes
    ----------
    identity
        dataset, noise, method, n_annotated and seed of the run.
    layout
        Layout of the images that the network reads.
    threshold
        None until it is chosen, and for methods that do not segment.
    precision
        Share of correct objects by their confidence; None if too few annotated objects tell.
    input
        The model whose denoised images this model reads; None: it reads the noisy images.
    held_out
        With cross-validation: for each annotated image, by name, a model trained without it.
    origin
        Software and images of the training, as plain values, see :func:`fitting.fit`.
    """

    method: Method
    recipe: Recipe
    identity: dict[str, Any]
    normalisation: Normalisation
    network: Network
    layout: Layout = PLANES
    threshold: Threshold | None = None
    precision: PrecisionCurve | None = None
    input: "AnyModel | None" = None
    held_out: "dict[str, TrainedModel]" = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    _folded: tuple[Any, nn.Module] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def predictor(self) -> nn.Module:
        """The network for prediction, with batch normalisation folded into the convolutions.

        Created at the first use, and again after the weights have changed. Only ``network`` is
        trained and stored.
        """
        values = [*self.network.parameters(), *self.network.buffers()]
        # PyTorch counts the changes of each tensor.
        state = self.network, [(each.data_ptr(), each._version) for each in values]
        if self._folded is None or self._folded[0] != state:
            self._folded = state, fold_batch_norms(self.network)
        return self._folded[1]

    @property
    def multiscale(self) -> bool:
        """Whether the network also segments the image at half its size."""
        return self.recipe.multiscale and self.method.segments

    @property
    def halving(self) -> tuple[int, ...]:
        """How many times smaller that image is, along each spatial axis; z-slices are kept."""
        return (1,) * (self.layout.dimensions - 2) + (2, 2)

    @property
    def stride(self) -> tuple[int, ...]:
        """Sides of what the network reads are multiples of this, along each spatial axis."""
        if not self.multiscale:
            return self.network.stride
        return tuple(
            step * factor for step, factor in zip(self.network.stride, self.halving, strict=True)
        )

    @property
    def halo(self) -> tuple[int, ...]:
        """Radius of the receptive field of a prediction in pixels, along each spatial axis."""
        if not self.multiscale:
            return self.network.halo
        # Interpolation reads the neighbouring pixel.
        return tuple(
            (reach + 1) * factor + CERTAINTY_WINDOW // 2 if factor > 1 else reach
            for reach, factor in zip(self.network.halo, self.halving, strict=True)
        )

    @property
    def n_maps(self) -> int:
        """Number of maps of segmentation, see :class:`tiled_prediction.PredictedTile`."""
        return self.recipe.n_maps

    def for_image(self, name: str) -> "TrainedModel":
        """Return the model that predicts the image ``name`` and was not trained on its mask.

        For cross-validated images this is a held-out model, otherwise the model itself.
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
        precision = asdict(self.precision) if self.precision else None
        plain = {"recipe": as_dict(self.recipe), "threshold": threshold, "precision": precision}
        return self.part() | plain | {"held_out": held_out}

    def part(self) -> dict[str, Any]:
        """Return the result of a training as tensors on the CPU and plain values."""
        return {
            "normalisation": self.normalisation.plain(),
            "weights": {key: value.cpu() for key, value in self.network.state_dict().items()},
            "layout": asdict(self.layout),
        }


@dataclass
class ImageModels:
    """The models of a method that trains a network on each image alone, by image name."""

    method: Method
    recipe: Recipe
    identity: dict[str, Any]
    models: dict[str, TrainedModel]
    input: "AnyModel | None" = None
    origin: dict[str, Any] = field(default_factory=dict)

    def for_image(self, name: str) -> TrainedModel:
        """Return the model trained on the image ``name``."""
        if name not in self.models:
            raise InputError(
                f"method '{self.method.name}' trains a network for each image, but has none for "
                f"'{name}'; train again with that image"
            )
        return self.models[name]

    def content(self) -> dict[str, Any]:
        """Return all models as tensors and plain values."""
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
        """Return the model that predicts the image ``name``: itself."""
        return self

    def content(self) -> dict[str, Any]:
        """Return the model as plain values."""
        return {"parameter": self.parameter, "noise_sigma": self.noise_sigma}


@dataclass
class ThresholdModel:
    """A segmentation by a threshold, see :mod:`~denoiseg_flow.methods.thresholding`.

    Attributes
    ----------
    layout
        Layout of its images.
    scales
        Standard deviation of each channel in the images of the study; negative for colour images,
        where objects are dark.
    """

    method: Method
    identity: dict[str, Any]
    layout: Layout
    scales: tuple[float, ...]
    input: "AnyModel | None" = None
    origin: dict[str, Any] = field(default_factory=dict)

    def for_image(self, name: str) -> "ThresholdModel":
        """Return the model that predicts the image ``name``: itself."""
        return self

    def content(self) -> dict[str, Any]:
        """Return the model as plain values."""
        return {"layout": asdict(self.layout), "scales": self.scales}


AnyModel = TrainedModel | ImageModels | ClassicalModel | ThresholdModel


def chain(model: AnyModel) -> list[AnyModel]:
    """Return all models to apply one after the other, ending with the given one."""
    return [*(chain(model.input) if model.input else []), model]


def reads_colour(model: AnyModel) -> bool | None:
    """Return whether a model, or one before it, reads colour images; None if it reads any."""
    known = [step.layout.colour for step in chain(model) if hasattr(step, "layout")]
    return any(known) if known else None


def denoises(models: Sequence[AnyModel]) -> bool:
    """Return whether a :func:`chain` of models yields denoised images."""
    return any(model.method.denoises for model in models)


def purpose(models: Sequence[AnyModel]) -> str:
    """Describe what a :func:`chain` of models does: "Denoises", "Segments" or both."""
    does = {"denoises": denoises(models), "segments": models[-1].method.segments}
    return " and ".join(verb for verb, done in does.items() if done).capitalize()


def summary(model: AnyModel) -> str:
    """Describe in a sentence what a model does, and for which images."""
    images = "planes and volumes"
    if isinstance(model, TrainedModel | ThresholdModel):
        layout = model.layout
        images = "volumes" if layout.dimensions == 3 else "planes"
        images += " plane by plane" if layout.plane_by_plane else ""
        if layout.channels > 1:
            images += " in colour" if layout.colour else f" with {layout.channels} channels"
        images += f" {layout.size_read}" if layout.size_read else ""
    elif isinstance(model, ImageModels):
        images = f"the {len(model.models)} images it was trained on"
    return f"{purpose(chain(model))} {images}."


def new_network(method: Method, recipe: Recipe, layout: Layout = PLANES) -> Network:
    """Return a new network of a method, with the size given in the recipe, or its classifier."""
    if method.segmenter == "pixel_classifier":
        return PixelClassifier(layout)
    return build_network(
        method.network,
        recipe.depth,
        recipe.filters,
        method.mask_channel,
        layout,
        recipe.n_maps,
    )
