"""Statistics of batch normalisation: found in every network, measured over batches, then kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from denoiseg_flow.methods.networks import NETWORKS, build_network
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.training.batch_norm import batch_norms, freeze, measure

LAYOUTS = {
    "planes": PLANES,
    "volumes": Layout(3, patch_depth=4, z_factors=(2,)),
    "apart": Layout(3, patch_depth=4, plane_by_plane=True),
}
LAYERS = {"unet": 10, "unet_blurpool": 10, "dncnn": 6, "autoencoder": 0}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request):
    return replace(request.param, channels=2)


@pytest.fixture
def network(layout):
    torch.manual_seed(0)
    return build_network("unet", 1, 2, layout=layout)


def batches(layout, count):
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, *layout.patch_shape(8))
    return [torch.randn(shape, generator=generator) * (1 + n) + n for n in range(count)]


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_every_network_are_found(name, layout):
    """Those for planes and those for volumes."""
    found = batch_norms(build_network(name, 2, 2, layout=layout))
    assert len(found) == LAYERS[name]
    kind = nn.BatchNorm3d if layout.patch_shape(8)[:-2] and not layout.plane_by_plane else None
    assert {type(layer) for layer in found} <= {kind or nn.BatchNorm2d}


def test_statistics_become_the_mean_over_batches(network, layout):
    """Those of the first layer, by hand; whatever was kept before is forgotten."""
    first, *others = batch_norms(network)
    first.momentum = 0.37
    shown = batches(layout, 5)
    network.train()(100 + shown[0])
    measure(network, iter(shown))
    convolution = next(
        layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)
    )
    with torch.no_grad():
        planes = [x.transpose(1, 2).flatten(0, 1) if layout.plane_by_plane else x for x in shown]
        seen = [convolution(x).transpose(0, 1).flatten(1) for x in planes]
    mean, variance = (
        torch.stack([getattr(x, of)(dim=1) for x in seen]).mean(dim=0) for of in ("mean", "var")
    )
    torch.testing.assert_close(first.running_mean, mean)
    torch.testing.assert_close(first.running_var, variance)
    assert first.momentum == 0.37
    assert all(layer.momentum == 0.1 for layer in others)
    assert network.training


def test_frozen_statistics_are_kept_in_training(network, layout):
    """Patches are normalised by them then, whatever batch they are in."""
    shown = batches(layout, 3)
    measure(network, shown)
    network.train()
    before = [layer.running_mean.clone() for layer in batch_norms(network)]
    freeze(network)
    with torch.no_grad():
        together, alone = network(shown[2])[:1], network(shown[2][:1])
    torch.testing.assert_close(together, alone)
    kept = [layer.running_mean for layer in batch_norms(network)]
    assert all(map(torch.equal, before, kept))
    assert np.any([mean.numpy().any() for mean in kept])
