"""Read the model that a method starts from, and adapt its weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from denoiseg_flow.errors import InputError, plain
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.methods.initial_model import (
    Source,
    describe_initial_model,
    find_source,
    named,
)
from denoiseg_flow.methods.networks.layers import CONVOLUTION
from denoiseg_flow.methods.networks.layout import PLANES
from denoiseg_flow.methods.networks.network import Network
from denoiseg_flow.methods.networks.plane_by_plane import PlaneByPlane
from denoiseg_flow.models import tensor_file
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.model_file import load_model, restore_network
from denoiseg_flow.models.normalisation import Normalisation


def load_initial_model(
    method: Method, recipe: Recipe, path: Path, device: torch.device | str = "cpu"
) -> tuple[TrainedModel, dict[str, Any]]:
    """Read the model file or package that a method starts from.

    Returns
    -------
    The model, without those of its cross-validation, and its origin as plain values: file,
    checksum, run, and what it started from itself.

    Raises
    ------
    InputError
        If it cannot be used (see :func:`find_source` and :func:`describe_initial_model`), or has
        another network than the method.
    """
    source = find_source(path, named(method))
    told = describe_initial_model(source, named(method))
    told.check_network(method, recipe)
    if source.architecture is None:
        model = load_model(path, device, source.stored)
        assert isinstance(model, TrainedModel)
        model.held_out = {}  # images of another study may have the same names
    else:
        model = _restore(method, recipe, source, device)
    before = model.origin.get("init", model.method.init)
    origin = {"file": str(path), "sha256": told.sha256, **told.identity}
    return model, origin | ({"init": before} if before else {})


def _restore(
    method: Method, recipe: Recipe, source: Source, device: torch.device | str
) -> TrainedModel:
    """Return the network of a mere state dict, which has no normalisation nor threshold."""
    kwargs = source.architecture or {}
    own = Method(source.path.stem, network=method.network, mask_channel=method.mask_channel)
    instances = "distance" if kwargs.get("maps", 3) > 3 else "components"
    recipe = replace(recipe, instances=instances)
    try:
        weights = tensor_file.load(source.path, device, source.stored)
        network = restore_network(weights, own, recipe, PLANES).to(device)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{named(method)}, whose state dict is not that of its architecture ({plain(error)}); "
            "export it again"
        ) from error
    return TrainedModel(own, recipe, {}, Normalisation((0.0,), (1.0,)), network)


def adapted_weights(
    model: TrainedModel, network: Network, channels: int
) -> Mapping[str, torch.Tensor]:
    """Return the weights of a model as the first weights of another network.

    Weights that both have are taken as they are. Otherwise:

    - From one channel to several or the reverse, the first convolution reads the mean of the new
      channels, or the one channel instead of all: equal channels are read like the one. Each new
      denoised channel starts as the mean of the denoised channels of the model.
    - The distance that the model does not predict keeps the first weights of ``network``; one that
      is not asked for is left out.
    - A network that processes volumes plane by plane, or reads images at another size, has the
      weights of the network within.

    Parameters
    ----------
    network
        A new network of the same kind and size, without a change of the size of images.
    channels
        Number of channels of its images.
    """
    old, new = _of_planes(model.network.core), _of_planes(network)
    weights, fresh = dict(old.state_dict()), new.state_dict()
    layers = [name for name, each in new.named_modules() if isinstance(each, _CONVOLUTIONS)]
    known, first, last = model.layout.channels, layers[0], layers[-1]
    read = f"{first}.weight"
    weights[read] = _read_channels(weights[read], known, channels)
    for part in ("weight", "bias"):
        made = f"{last}.{part}"
        weights[made] = _make_channels(weights[made], fresh[made], known, channels)
    prefix = "" if new is network else "network."
    return {f"{prefix}{name}": values for name, values in weights.items()}


_CONVOLUTIONS = tuple(CONVOLUTION.values())


def _of_planes(network: nn.Module) -> nn.Module:
    return network.network if isinstance(network, PlaneByPlane) else network


def _read_channels(weight: torch.Tensor, known: int, channels: int) -> torch.Tensor:
    """Return (filter, input, ...) for another number of channels, of images and of masks."""
    if known == channels:
        return weight
    total = weight.unflatten(1, (-1, known)).sum(dim=2, keepdim=True)
    return (total / channels).repeat_interleave(channels, dim=2).flatten(1, 2)


def _make_channels(
    values: torch.Tensor, fresh: torch.Tensor, known: int, channels: int
) -> torch.Tensor:
    """Return (output, ...) for another number of channels, with the maps of ``fresh``."""
    denoised, maps = values[:known], values[known:]
    if known != channels:
        denoised = denoised.mean(dim=0, keepdim=True).repeat_interleave(channels, dim=0)
    wanted = len(fresh) - channels
    return torch.cat([denoised, maps[:wanted], fresh[channels + len(maps) :]])
