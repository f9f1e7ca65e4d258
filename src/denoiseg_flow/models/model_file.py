"""Read and write the files of trained models."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from denoiseg_flow.errors import InputError, plain, shown
from denoiseg_flow.methods.classical import DENOISERS
from denoiseg_flow.methods.definition import (
    Method,
    Recipe,
    as_dict,
    method_from_dict,
    recipe_from_dict,
)
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.methods.networks.network import Network
from denoiseg_flow.models import tensor_file
from denoiseg_flow.models.model import (
    AnyModel,
    ClassicalModel,
    ImageModels,
    ThresholdModel,
    TrainedModel,
    new_network,
    summary,
)
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.precision_curve import PrecisionCurve
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.version import __version__

FORMAT = 4
READABLE = (3, 4)
SINCE = "0.1.0"  # the first version of the package that reads this format
_UNFIT = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError),
    *(TypeError, ValueError),
)


def save_model(model: AnyModel, path: Path) -> None:
    """Write a model of any kind to one file, together with the model it reads images from."""
    header = {
        "format": FORMAT,
        "software": f"denoiseg-flow {__version__}",
        "readable_by": f"denoiseg-flow {SINCE} or newer",
        "summary": summary(model),
    }
    content = header | _whole(model)
    tensor_file.save(content, path, _without_tensors(content))


def existing_model(path: Path) -> Path:
    """Return the path of a model file; raise InputError if it does not exist."""
    if not path.is_file():
        raise InputError(f"model {path} does not exist or is not a file; correct its path")
    return path


def describe_model(path: Path) -> dict[str, Any]:
    """Return the content of a model file without its weights.

    Raises
    ------
    InputError
        Like :func:`load_model`.
    """
    with _refusal(path):
        return _without_tensors(_read(path, "cpu"))


def _without_tensors(value: Any) -> Any:
    """Return plain values only; named tensors become the number of their elements."""
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


def load_model(
    path: Path, device: torch.device | str = "cpu", stored: bytes | None = None
) -> AnyModel:
    """Read a model of any kind.

    Parameters
    ----------
    stored
        See :func:`tensor_file.load`.

    Raises
    ------
    InputError
        If the file is damaged, was written by a newer version of the package, or is not a model.
    """
    with _refusal(path):
        return _rebuild(_read(path, device, stored), device)


@contextmanager
def _refusal(path: Path) -> Iterator[None]:
    """Turn any error due to invalid content into an InputError."""
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # of a GPU: RuntimeErrors as well
        raise
    except _UNFIT as error:
        reason = plain(f"{type(error).__name__}: {error}")
        raise InputError(
            f"model {path} is damaged or was not written by denoiseg-flow ({reason}); train it "
            "again, or copy it again from where it was trained"
        ) from error


def _read(path: Path, device: torch.device | str, stored: bytes | None = None) -> dict[str, Any]:
    try:
        content = tensor_file.load(path, device, stored)
    except ValueError as error:
        raise InputError(f"{error}; delete it and run the workflow again") from error
    if content.get("format") not in READABLE:
        raise InputError(
            f"model {path} has format {shown(content.get('format'))}, but this version of "
            f"denoiseg-flow reads format {FORMAT}; install the version that wrote it "
            f"({plain(content.get('software', 'unknown'))})"
        )
    return _with_new_names(content) if content["format"] == 3 else content


def _with_new_names(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file of format 3 with the names of format 4."""
    new = dict(content)
    for part in ("identity", "recipe"):
        values = content.get(part) or {}
        new[part] = {key.replace("labelled", "annotated"): values[key] for key in values}
    if new["recipe"].get("loss_normalisation") == "labelled_pixels":
        new["recipe"]["loss_normalisation"] = "annotated_pixels"
    if content.get("input"):
        new["input"] = _with_new_names(content["input"])
    return new


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
    if not method.trained:
        layout, scales = Layout(**content["layout"]), tuple(content["scales"])
        if len(scales) != layout.channels or not all(_is_number(each) and each for each in scales):
            raise ValueError(f"{layout.channels} channels with the scales {scales}")
        return ThresholdModel(method, identity, layout, scales, before)
    recipe = recipe_from_dict(content["recipe"])

    def model(part: dict[str, Any]) -> TrainedModel:
        layout = Layout(**part.get("layout", {}))
        normalisation = Normalisation.from_plain(**part["normalisation"])
        network = restore_network(part["weights"], method, recipe, layout).to(device)
        return TrainedModel(method, recipe, identity, normalisation, network, layout)

    if method.each_image:
        models = {name: model(part) for name, part in content["images"].items()}
        return ImageModels(method, recipe, identity, models, before)
    trained = model(content)
    trained.input = before
    if content["threshold"]:
        trained.threshold = Threshold(**content["threshold"])
    if content.get("precision"):
        trained.precision = PrecisionCurve(**content["precision"])
    for part in content.get("held_out", []):
        other = model(part)
        other.threshold, other.precision = trained.threshold, trained.precision
        trained.held_out |= dict.fromkeys(part["images"], other)
    return trained


def restore_network(
    weights: Mapping[str, torch.Tensor], method: Method, recipe: Recipe, layout: Layout
) -> Network:
    """Return the network of a method with these weights, for prediction.

    Raises
    ------
    LookupError, RuntimeError, ValueError
        If the weights are those of another network.
    """
    _check_sizes(weights, method, recipe, layout)
    network = new_network(method, recipe, layout)
    network.load_state_dict(weights)
    return network.eval()


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def _check_sizes(
    weights: Mapping[str, torch.Tensor], method: Method, recipe: Recipe, layout: Layout
) -> None:
    """Raise an error unless the weights match the network, before it allocates memory."""
    if method.has_network and recipe.depth > len(weights):
        raise ValueError(f"{len(weights)} weights for a network of depth {recipe.depth}")
    with torch.device("meta"):
        expected = new_network(method, recipe, layout).state_dict()
    for name, values in expected.items():
        if values.shape != weights[name].shape:
            raise ValueError(f"{name} of shape {list(weights[name].shape)}")
