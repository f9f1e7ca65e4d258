"""The networks: shape, size, start and field of view."""

import numpy as np
import pytest
import torch
from torch import nn

from denoiseg_flow.networks import NETWORKS, as_input, build_network
from denoiseg_flow.networks.unet import MaxBlurPool


def seeded(depth, filters, seed=0, name="unet", **options):
    torch.manual_seed(seed)
    return build_network(name, depth, filters, **options)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("depth, height, width", [(1, 16, 16), (2, 4, 12), (3, 8, 40)])
def test_output_has_four_channels_of_the_same_size(name, depth, height, width):
    for mask_channel in (False, True):
        network = build_network(name, depth, 2, mask_channel)
        assert (height % network.stride[0], width % network.stride[1]) == (0, 0)
        image = torch.zeros(3, 1 + mask_channel, height, width)
        assert network(image).shape == (3, 4, height, width)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_mask_is_a_second_channel(name):
    """Its weights are all that is added, and what it says matters."""
    plain, told = (seeded(2, 4, name=name, mask_channel=known).eval() for known in (False, True))
    sizes = [sum(p.numel() for p in network.parameters()) for network in (plain, told)]
    assert sizes[1] - sizes[0] == 9 * 4
    patches = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    hidden = torch.arange(2 * 16 * 16).view(2, 16, 16) % 7 == 0
    assert torch.equal(as_input(patches, hidden, False), patches[:, None])
    inputs = as_input(patches, hidden, True)
    assert torch.equal(inputs, torch.stack([patches, hidden.float()], dim=1))
    unhidden = as_input(patches, None, True)
    assert torch.equal(unhidden, torch.stack([patches, torch.zeros_like(patches)], dim=1))
    with torch.inference_mode():
        assert not torch.equal(told(inputs), told(unhidden))


def parameters_by_hand(depth, filters, top_skip=True):
    """Two 3x3 convolutions without bias at each level, each with scale and shift; a 1x1 head.

    The bottom and every decoder level end with the filters of the level above; the first decoder
    convolution of a level reads the up-sampled features and the skipped ones, if there is a skip.
    """
    convolutions = []
    for level in range(depth):
        width, above = filters * 2**level, filters * 2 ** (level - 1)
        convolutions += [(1 if level == 0 else int(above), width), (width, width)]
    bottom = filters * 2**depth
    convolutions += [(bottom // 2, bottom), (bottom, bottom // 2)]
    for level in range(depth):
        width, above = filters * 2**level, filters * 2 ** max(level - 1, 0)
        skipped = width if level or top_skip else 0
        convolutions += [(width + skipped, width), (width, above)]
    return sum(9 * i * o + 2 * o for i, o in convolutions) + 4 * filters + 4


@pytest.mark.parametrize(
    "depth, filters, expected", [(4, 32, 5_498_084), (2, 16, None), (1, 3, None)]
)
def test_number_of_parameters(depth, filters, expected):
    found = sum(p.numel() for p in seeded(depth, filters).parameters())
    assert found == parameters_by_hand(depth, filters)
    assert expected in (None, found)


@pytest.mark.parametrize("depth, filters", [(4, 32), (2, 16), (1, 3)])
def test_blurpool_has_no_top_skip(depth, filters):
    found = sum(p.numel() for p in build_network("unet_blurpool", depth, filters).parameters())
    assert found == parameters_by_hand(depth, filters, top_skip=False)
    assert found == parameters_by_hand(depth, filters) - 9 * filters**2


def test_dncnn_by_hand():
    """Eight 3x3 convolutions, six of them with batch normalisation instead of a bias."""
    network = build_network("dncnn", depth=5, filters=64)
    inner = 6 * (9 * 64 * 64 + 2 * 64)
    assert inner == 221_952
    expected = (9 * 64 + 64) + inner + (9 * 64 * 4 + 4)
    assert sum(p.numel() for p in network.parameters()) == expected
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size for m in convolutions] == [(3, 3)] * 8
    kinds = [type(module) for module in network]
    inside = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds == [nn.Conv2d, nn.ReLU, *inside * 6, nn.Conv2d]


def test_dncnn_is_no_residual_network():
    """With its last convolution at zero, the output is zero, and not the input."""
    network = seeded(1, 4, name="dncnn").eval()
    with torch.no_grad():
        for parameter in network[-1].parameters():
            parameter.zero_()
        assert not network(torch.randn(1, 1, 8, 8)).any()


def test_autoencoder_of_the_paper():
    network = build_network("autoencoder", depth=4, filters=64)
    block = [nn.Conv2d, nn.ReLU]
    assert [type(layer) for layer in network.layers] == [
        *(*block, nn.MaxPool2d),
        *(*block, nn.MaxPool2d),
        *block,
        *(nn.Upsample, *block),
        *(nn.Upsample, nn.Conv2d),
    ]
    convolutions = [layer for layer in network.layers if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (1, 64), (64, 64), (64, 64), (64, 64), (64, 4),
    ]  # fmt: skip
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    # Three of the four last channels are for segmentation: the paper's has one.
    own = 3 * (9 * 64 + 1)
    paper = (9 * 64 + 64) + 3 * (9 * 64 * 64 + 64) + (9 * 64 + 1)
    assert sum(p.numel() for p in network.parameters()) == paper + own


@pytest.mark.parametrize("grey, shown", [(0, 0.001), (0.1, 0.1), (0.6, 0.6), (1, 0.999)])
def test_the_autoencoder_starts_at_a_grey(grey, shown):
    """Of an image of zeros, nothing but the last bias reaches the sigmoid."""
    network = seeded(2, 4, name="autoencoder")
    network.start_at(grey)
    with torch.inference_mode():
        output = network(torch.zeros(1, 1, 8, 8))
    assert output[:, 0].numpy() == pytest.approx(shown, abs=1e-6)
    assert not output[:, 1:].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_only_the_autoencoder_is_bounded(name):
    network = seeded(2, 4, name=name).eval()
    with torch.inference_mode():
        output = network(1e3 * torch.randn(4, 1, 32, 32))
    inside = bool(((output[:, 0] >= 0) & (output[:, 0] <= 1)).all())
    assert inside == network.bounded == (name == "autoencoder")
    assert output[:, 1:].abs().max() > 1  # logits are free


def binomial_of_maxima(image):
    """Zhang's pooling, written out, with zeros beyond the border."""
    height, width = image.shape
    grown = np.pad(image, ((0, 1), (0, 1)))
    peaks = np.maximum.reduce(
        [grown[dy : dy + height, dx : dx + width] for dy in (0, 1) for dx in (0, 1)]
    )
    grown = np.pad(peaks, 1)
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    return np.array(
        [
            [(weights * grown[y : y + 3, x : x + 3]).sum() for x in range(0, width, 2)]
            for y in range(0, height, 2)
        ]
    )


@pytest.mark.parametrize("height, width", [(2, 2), (4, 10), (8, 6)])
def test_max_blur_pool_by_hand(height, width):
    images = np.random.default_rng(0).normal(size=(2, 3, height, width))
    found = MaxBlurPool()(torch.from_numpy(images)).numpy()
    expected = [[binomial_of_maxima(image) for image in sample] for sample in images]
    assert found == pytest.approx(np.array(expected), abs=1e-12)


def test_max_blur_pool_changes_little_when_the_image_moves():
    """A bright pixel is never lost, wherever it lies: its blurred sum is the same."""
    sums = set()
    for y, x in np.ndindex(2, 2):
        image = torch.zeros(1, 1, 16, 16)
        image[..., 8 + y, 8 + x] = 1
        sums.add(MaxBlurPool()(image).sum().item())
    assert sums == {1.0}


@pytest.mark.parametrize("name, sharp", [("unet", True), ("unet_blurpool", False)])
def test_a_single_pixel_is_spread_without_the_top_skip(name, sharp):
    """Convolutions that only copy show what the rest does: with a top skip, the pixel remains."""
    network = seeded(2, 1, name=name).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
                module.weight[:, :, module.kernel_size[0] // 2, module.kernel_size[1] // 2] = 1
        image = torch.zeros(1, 1, 16, 16)
        image[..., 8, 8] = 1
        output = network(image)[0, 0]
    around = output.clone()
    around[8, 8] = 0
    assert (output[8, 8] > around.max()) == sharp
    assert around.any()


def test_network_of_the_paper():
    network = seeded(4, 32)
    assert network.stride == (16, 16)
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


def open_network(name, depth):
    """All weights positive, so that with positive images every path through it is open."""
    network = seeded(depth, 2, name=name).eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
    return network


@pytest.mark.parametrize(
    "name, depth",
    [
        *[(name, depth) for name in ("unet", "unet_blurpool") for depth in (1, 2, 3)],
        *[("dncnn", 1), ("autoencoder", 1)],
    ],
)
def test_halo_holds_everything_that_matters_and_little_more(name, depth):
    """Change one pixel: outputs farther away than the halo stay as they are, to the last bit.

    The halo is the bound for the worst position of a pixel in its pooling cell. It must not waste
    more than one such cell.
    """
    network = open_network(name, depth)
    (halo,), (stride,) = set(network.halo), set(network.stride)
    side = 2 * (halo + 2 * stride)
    side = -(-side // stride) * stride
    image = torch.rand(1, 1, side, side, dtype=torch.float64) + 1
    farthest = 0
    with torch.inference_mode():
        before = network(image)
        for shift in range(stride):
            y = x = side // 2 + shift
            changed = image.clone()
            changed[..., y, x] += 1000
            rows, columns = np.nonzero((network(changed) != before).any(dim=1)[0].numpy())
            distance = np.maximum(np.abs(rows - y), np.abs(columns - x))
            assert distance.max() <= halo
            farthest = max(farthest, distance.max())
    assert farthest > halo - stride


def test_every_network_is_tested(schema):
    assert schema["$defs"]["method"]["properties"]["network"]["enum"] == list(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_stride_is_the_least_that_a_shift_may_have(name):
    """Moving an image by it moves the output; by less it does not, but for stride 1."""
    network = open_network(name, 2)
    image = 1e6 * torch.rand(1, 1, 128, 128, dtype=torch.float64)
    centre = slice(48, 80)

    def moved(by):
        return network(image.roll((by, by), (2, 3)))[..., centre, centre]

    with torch.inference_mode():
        output = network(image)
        (stride,) = set(network.stride)
        for by in range(1, stride + 1):
            expected = output.roll((by, by), (2, 3))[..., centre, centre]
            same = torch.allclose(moved(by), expected, rtol=1e-9, atol=0)
            assert same == (by == stride)


def test_prediction_of_a_patch_does_not_depend_on_its_batch():
    network = seeded(2, 4).eval()
    batch = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(batch)[3:4], network(batch[3:4]))
