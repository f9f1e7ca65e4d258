"""The U-Net: shape, size, start and field of view."""

import numpy as np
import pytest
import torch
from torch import nn

from denoiseg_flow.networks import NETWORKS, build_network


def seeded(depth, filters, seed=0):
    torch.manual_seed(seed)
    return build_network("unet", depth, filters)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("depth, height, width", [(1, 16, 16), (2, 4, 12), (3, 8, 40)])
def test_output_has_four_channels_of_the_same_size(name, depth, height, width):
    network = build_network(name, depth, 2)
    assert height % network.stride == width % network.stride == 0
    assert network(torch.zeros(3, 1, height, width)).shape == (3, 4, height, width)


def parameters_by_hand(depth, filters):
    """Two 3x3 convolutions without bias at each level, each with scale and shift; a 1x1 head.

    The bottom and every decoder level end with the filters of the level above; the first decoder
    convolution of a level reads the up-sampled features and the skipped ones.
    """
    convolutions = []
    for level in range(depth):
        width, above = filters * 2**level, filters * 2 ** (level - 1)
        convolutions += [(1 if level == 0 else int(above), width), (width, width)]
    bottom = filters * 2**depth
    convolutions += [(bottom // 2, bottom), (bottom, bottom // 2)]
    for level in range(depth):
        width, above = filters * 2**level, filters * 2 ** max(level - 1, 0)
        convolutions += [(2 * width, width), (width, above)]
    return sum(9 * i * o + 2 * o for i, o in convolutions) + 4 * filters + 4


@pytest.mark.parametrize(
    "depth, filters, expected", [(4, 32, 5_498_084), (2, 16, None), (1, 3, None)]
)
def test_number_of_parameters(depth, filters, expected):
    found = sum(p.numel() for p in seeded(depth, filters).parameters())
    assert found == parameters_by_hand(depth, filters)
    assert expected in (None, found)


def test_network_of_the_paper():
    network = seeded(4, 32)
    assert network.stride == 16
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size for m in convolutions] == [(3, 3)] * 18 + [(1, 1)]
    assert max(m.out_channels for m in convolutions) == 512
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 18
    assert {m.eps for m in norms} == {1e-3}


def test_weights_start_as_in_keras():
    """Glorot uniform, bounded by sqrt(6 / (fan in + fan out)); no bias, or zero."""
    for module in seeded(2, 8).modules():
        if isinstance(module, nn.Conv2d):
            outputs, inputs, height, width = module.weight.shape
            bound = (6 / ((inputs + outputs) * height * width)) ** 0.5
            largest = module.weight.abs().max().item()
            assert largest <= bound
            if module.weight.numel() > 100:
                assert largest > 0.95 * bound
                assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)
            assert module.bias is None or not module.bias.any()


def test_weights_depend_on_the_seed_alone():
    first, again, other = (seeded(2, 4, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def open_network(depth):
    """All weights positive, so that with positive images every path through it is open."""
    network = seeded(depth, 2).eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
    return network


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_halo_holds_everything_that_matters_and_little_more(depth):
    """Change one pixel: outputs farther away than the halo stay as they are, to the last bit.

    The halo is the bound for the worst position of a pixel in its pooling cell. It must not waste
    more than one such cell.
    """
    network = open_network(depth)
    side = 2 * (network.halo + 2 * network.stride)
    side = -(-side // network.stride) * network.stride
    image = torch.rand(1, 1, side, side, dtype=torch.float64) + 1
    farthest = 0
    with torch.inference_mode():
        before = network(image)
        for shift in range(network.stride):
            y = x = side // 2 + shift
            changed = image.clone()
            changed[..., y, x] += 1000
            rows, columns = np.nonzero((network(changed) != before).any(dim=1)[0].numpy())
            distance = np.maximum(np.abs(rows - y), np.abs(columns - x))
            assert distance.max() <= network.halo
            farthest = max(farthest, distance.max())
    assert farthest > network.halo - network.stride


def test_prediction_of_a_patch_does_not_depend_on_its_batch():
    network = seeded(2, 4).eval()
    batch = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(batch)[3:4], network(batch[3:4]))
