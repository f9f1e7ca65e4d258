"""The networks: shape, size, start and field of view."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn

from denoiseg_flow.methods.networks import (
    NETWORKS,
    PlaneByPlane,
    as_input,
    build_network,
    channels_last,
    memory_format,
    split_output,
)
from denoiseg_flow.methods.networks.folding import fold_batch_norms
from denoiseg_flow.methods.networks.layout import PLANES, Layout, strides, volume_layout
from denoiseg_flow.methods.networks.unet import MaxBlurPool

ISOTROPIC = Layout(3, patch_depth=8, z_factors=(2, 2))
COARSE = Layout(3, patch_depth=8, z_factors=(1, 2))
UNSHRUNK = Layout(3, patch_depth=5, z_factors=(1, 1))
APART = Layout(3, patch_depth=5, plane_by_plane=True)
VOLUMES = {"isotropic": ISOTROPIC, "coarse": COARSE, "unshrunk": UNSHRUNK, "apart": APART}
LAYOUTS = {"planes": PLANES, **VOLUMES}
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)

each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
each_volume = pytest.mark.parametrize("layout", VOLUMES.values(), ids=VOLUMES)


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


@each_layout
@pytest.mark.parametrize("name", NETWORKS)
def test_every_channel_is_denoised_beside_three_classes(name, layout):
    for channels, mask_channel in ((1, False), (1, True), (3, True)):
        layout = replace(layout, channels=channels)
        network = build_network(name, 2, 2, mask_channel, layout)
        shape = layout.patch_shape(12)
        along = zip(shape, network.stride, strict=True)
        assert not any(length % stride for length, stride in along)
        output = network(torch.zeros(2, channels * (1 + mask_channel), *shape))
        assert output.shape == (2, channels + 3, *shape)
        denoised, logits = split_output(output, channels)
        assert denoised.shape == (2, channels, *shape)
        assert logits.shape == (2, 3, *shape)
        assert torch.equal(torch.cat([denoised, logits], 1), output)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_masks_follow_the_channels(channels, dimensions):
    """In the order of the channels, each as zeros where nothing is hidden."""
    shape = (2, channels, *(4, 6, 5)[-dimensions:])
    patches = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    masked = patches > 1
    assert torch.equal(as_input(patches, masked, False), patches)
    told = as_input(patches, masked, True)
    assert torch.equal(told, torch.cat([patches, masked.float()], dim=1))
    assert channels_last(told).is_contiguous(memory_format=memory_format(dimensions))
    untold = as_input(patches, None, True)
    assert torch.equal(untold, torch.cat([patches, torch.zeros_like(patches)], dim=1))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_mask_is_a_second_channel(name):
    """Its weights are all that is added, and what it says matters."""
    plain, told = (seeded(2, 4, name=name, mask_channel=known).eval() for known in (False, True))
    sizes = [sum(p.numel() for p in network.parameters()) for network in (plain, told)]
    assert sizes[1] - sizes[0] == 9 * 4
    patches = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    masked = torch.arange(2 * 16 * 16).view(2, 1, 16, 16) % 7 == 0
    inputs, unmasked = as_input(patches, masked, True), as_input(patches, None, True)
    with torch.inference_mode():
        assert not torch.equal(told(inputs), told(unmasked))


def parameters_by_hand(depth, filters, top_skip=True, channels=1, dimensions=2):
    """Two 3x3 convolutions without bias at each level, each with scale and shift; a 1x1 head.

    The bottom and every decoder level end with the filters of the level above; the first decoder
    convolution of a level reads the up-sampled features and the skipped ones, if there is a skip.
    """
    kernel, outputs = 3**dimensions, channels + 3
    convolutions = []
    for level in range(depth):
        width, above = filters * 2**level, filters * 2 ** (level - 1)
        convolutions += [(channels if level == 0 else int(above), width), (width, width)]
    bottom = filters * 2**depth
    convolutions += [(bottom // 2, bottom), (bottom, bottom // 2)]
    for level in range(depth):
        width, above = filters * 2**level, filters * 2 ** max(level - 1, 0)
        skipped = width if level or top_skip else 0
        convolutions += [(width + skipped, width), (width, above)]
    return sum(kernel * i * o + 2 * o for i, o in convolutions) + outputs * (filters + 1)


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("top_skip", [True, False])
def test_number_of_parameters_for_volumes(channels, top_skip):
    """However coarse the planes; as many as for planes where each is looked at by itself."""
    name = "unet" if top_skip else "unet_blurpool"
    for layout in VOLUMES.values():
        network = build_network(name, 2, 4, layout=replace(layout, channels=channels))
        found = sum(p.numel() for p in network.parameters())
        dimensions = 2 if layout.plane_by_plane else 3
        assert found == parameters_by_hand(2, 4, top_skip, channels, dimensions)


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


@each_volume
def test_it_starts_there_with_all_channels(layout):
    network = seeded(2, 4, name="autoencoder", layout=replace(layout, channels=2))
    network.start_at(0.2)
    with torch.inference_mode():
        output = network(torch.zeros(1, 2, *layout.patch_shape(8)))
    assert output[:, :2].numpy() == pytest.approx(0.2, abs=1e-6)
    assert not output[:, 2:].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_only_the_autoencoder_is_bounded(name):
    network = seeded(2, 4, name=name).eval()
    with torch.inference_mode():
        output = network(1e3 * torch.randn(4, 1, 32, 32))
    inside = bool(((output[:, 0] >= 0) & (output[:, 0] <= 1)).all())
    assert inside == network.bounded == (name == "autoencoder")
    assert output[:, 1:].abs().max() > 1  # logits are free


@each_layout
@pytest.mark.parametrize("name", NETWORKS)
def test_all_channels_are_bounded_alike(name, layout):
    network = seeded(2, 4, name=name, layout=replace(layout, channels=2)).eval()
    with torch.inference_mode():
        output = network(1e3 * torch.randn(4, 2, *layout.patch_shape(16)))
    for channel in (0, 1):
        inside = bool(((output[:, channel] >= 0) & (output[:, channel] <= 1)).all())
        assert inside == network.bounded == (name == "autoencoder")
    assert output[:, 2:].abs().max() > 1


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


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2)])
def test_max_blur_pool_of_volumes(factors):
    """As SciPy's maximum and convolution; planes that are not halved stay by themselves."""
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 6, 8))
    found = MaxBlurPool(factors)(torch.from_numpy(images)).numpy()
    binomial = {1: [1], 2: [0.25, 0.5, 0.25]}
    weights = np.einsum("i,j,k->ijk", *(binomial[factor] for factor in factors))
    for place in np.ndindex(2, 3):
        after = [1 - factor for factor in factors]
        peaks = ndimage.maximum_filter(images[place], factors, mode="constant", origin=after)
        expected = ndimage.convolve(peaks, weights, mode="constant")
        expected = expected[tuple(slice(None, None, factor) for factor in factors)]
        assert found[place] == pytest.approx(expected, abs=1e-12)
    if factors[0] == 1:
        plane = torch.from_numpy(images[:, :, 1])
        assert found[:, :, 1] == pytest.approx(MaxBlurPool()(plane).numpy(), abs=1e-12)


@pytest.mark.parametrize("factors", [(2, 2), (2, 2, 2), (1, 2, 2)])
def test_max_blur_pool_changes_little_when_the_image_moves(factors):
    """A bright pixel is never lost, wherever it lies: its blurred sum is the same."""
    sums = set()
    for place in np.ndindex(factors):
        image = torch.zeros(1, 1, *[16] * len(factors))
        image[0, 0][tuple(8 + along for along in place)] = 1
        sums.add(MaxBlurPool(factors)(image).sum().item())
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


@each_layout
def test_weights_start_as_in_keras(layout):
    """Glorot uniform, bounded by sqrt(6 / (fan in + fan out)); no bias, or zero."""
    for module in seeded(2, 8, layout=layout).modules():
        if isinstance(module, CONVOLUTIONS):
            outputs, inputs, *kernel = module.weight.shape
            bound = (6 / ((inputs + outputs) * np.prod(kernel))) ** 0.5
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


def open_network(name, depth, layout=PLANES):
    """All weights positive, so that with positive images every path through it is open."""
    network = seeded(depth, 2, name=name, layout=layout).eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
    return network


@pytest.mark.parametrize(
    "name, depth, layout",
    [
        *[(name, depth, PLANES) for name in ("unet", "unet_blurpool") for depth in (1, 2, 3)],
        *[(name, 1, PLANES) for name in ("dncnn", "autoencoder")],
        *[("unet", 1, layout) for layout in (ISOTROPIC, UNSHRUNK)],
        *[("unet", 2, layout) for layout in (COARSE, APART)],
        *[("unet_blurpool", 1, ISOTROPIC), ("autoencoder", 2, COARSE), ("dncnn", 2, COARSE)],
    ],
)
def test_halo_holds_everything_that_matters_and_little_more(name, depth, layout):
    """Change one pixel: outputs farther away than the halo stay as they are, to the last bit.

    The halo is the bound for the worst position of a pixel in its pooling cell. It must not waste
    more than one such cell.
    """
    network = open_network(name, depth, layout)
    halo, stride = np.array(network.halo), np.array(network.stride)
    assert len(halo) == len(stride) == layout.dimensions
    sides = -(-2 * (halo + 2 * stride) // stride) * stride
    image = torch.rand(1, 1, *sides, dtype=torch.float64) + 1
    farthest = np.zeros_like(halo)
    with torch.inference_mode():
        before = network(image)
        for shift in range(stride.max()):
            place = sides // 2 + shift % stride
            changed = image.clone()
            changed[0, 0][tuple(place)] += 1000
            differs = np.argwhere((network(changed) != before).any(dim=1)[0].numpy())
            distance = np.abs(differs - place).max(axis=0)
            assert (distance <= halo).all()
            farthest = np.maximum(farthest, distance)
    assert (farthest > halo - stride).all()


def test_every_network_is_tested(schema):
    assert schema["$defs"]["method"]["properties"]["network"]["enum"] == list(NETWORKS)


@each_layout
@pytest.mark.parametrize("name", NETWORKS)
def test_the_stride_is_the_least_that_a_shift_may_have(name, layout):
    """Moving an image by it moves the output; by less it does not, but for stride 1."""
    network = open_network(name, 2, layout)
    halo, stride = np.array(network.halo), np.array(network.stride)
    for along in [*([axis] for axis in range(layout.dimensions)), [-2, -1]]:
        sides, centre = 2 * stride, [slice(None)] * layout.dimensions
        for axis in along:  # long enough for a part that the border does not reach
            sides[axis] = -(-(2 * halo + stride + 8) // stride * stride)[axis]
            centre[axis] = slice(halo[axis] + stride[axis], sides[axis] - halo[axis])
        image = 1e6 * torch.rand(1, 1, *sides, dtype=torch.float64)
        axes = [axis % layout.dimensions + 2 for axis in along]
        with torch.inference_mode():
            output = network(image)
            for by in range(1, stride[along[0]] + 1):
                shifts = [by] * len(axes)
                moved = network(image.roll(shifts, axes))[..., *centre]
                expected = output.roll(shifts, axes)[..., *centre]
                same = torch.allclose(moved, expected, rtol=1e-9, atol=0)
                assert same == (by == stride[along[0]])


@each_layout
def test_prediction_of_a_patch_does_not_depend_on_its_batch(layout):
    network = seeded(2, 4, layout=layout).eval()
    shape = (5, 1, *layout.patch_shape(16))
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(batch)[3:4], network(batch[3:4]))


# Volumes


@pytest.mark.parametrize("channels, mask_channel", [(1, False), (2, True)])
@pytest.mark.parametrize("name", NETWORKS)
def test_plane_by_plane_is_the_network_on_each_plane(name, channels, mask_channel):
    """With the weights and statistics that a network for planes has."""
    options = {"name": name, "mask_channel": mask_channel}
    apart, flat = (
        seeded(2, 4, layout=replace(layout, channels=channels), **options)
        for layout in (APART, PLANES)
    )
    assert isinstance(apart, PlaneByPlane)
    images = torch.randn(2, channels * (1 + mask_channel), 3, 16, 20)
    assert apart.train()(images).shape == (2, channels + 3, 3, 16, 20)  # moves the statistics
    flat.train()(images.transpose(1, 2).flatten(0, 1))
    with torch.inference_mode():
        found = apart.eval()(images)
        for z in range(3):
            torch.testing.assert_close(found[:, :, z], flat.eval()(images[:, :, z]))
    assert (apart.stride, apart.halo) == ((1, *flat.stride), (0, *flat.halo))
    assert apart.bounded == flat.bounded


@pytest.mark.parametrize("layout", [ISOTROPIC, COARSE, UNSHRUNK])
@pytest.mark.parametrize("name", NETWORKS)
def test_volumes_are_more_than_their_planes(name, layout):
    """What lies above and below changes a plane, unless each is looked at by itself."""
    images = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    other = images.clone()
    other[:, :, 4:] += 1
    for each, changes in ((layout, True), (APART, False)):
        network = seeded(2, 4, name=name, layout=each).eval()
        with torch.inference_mode():
            below = [network(volume)[:, :, 3] for volume in (images, other)]
        assert torch.equal(*below) != changes


# Layouts


@pytest.mark.parametrize(
    "depth, patch_depth, n_planes, step, factors, found_depth",
    [
        (4, 16, 64, 1.0, (2, 2, 1, 1), 16),  # isotropic, until 4 planes are left
        (4, 32, 64, 1.0, (2, 2, 2, 1), 32),
        (2, 64, 64, 1.9, (2, 2), 64),
        (2, 16, 64, 2.0, (1, 2), 16),  # twice as coarse: rows and columns first
        (4, 16, 64, 3.0, (1, 2, 2, 1), 16),
        (3, 16, 64, 5.0, (1, 1, 2), 16),
        (2, 16, 64, 100.0, (1, 1), 16),
        (4, 16, 5, 1.0, (1, 1, 1, 1), 5),  # a thin stack
        (4, 16, 1, 1.0, (1, 1, 1, 1), 1),
        (4, 16, 11, 1.0, (2, 1, 1, 1), 10),
        (4, 16, 19, 1.0, (2, 2, 1, 1), 16),
        (4, 7, 19, 1.0, (1, 1, 1, 1), 7),
        (0, 16, 11, 1.0, (), 11),
    ],
)  # fmt: skip
def test_layout_of_volumes(depth, patch_depth, n_planes, step, factors, found_depth):
    layout = volume_layout(depth, patch_depth, n_planes, step, channels=2)
    assert layout == Layout(3, 2, found_depth, factors, z_step=step)
    assert layout.z_stride == 2 ** factors.count(2)
    assert layout.factors(depth) == [(factor, 2, 2) for factor in factors]
    assert layout.patch_shape(32) == (found_depth, 32, 32)


@given(st.integers(0, 6), st.integers(1, 99), st.integers(1, 99), st.floats(0.1, 20))
def test_patches_are_no_deeper_than_the_volume(depth, patch_depth, n_planes, step):
    """As deep as they can be, in whole strides, and no axis is halved below four pixels."""
    layout = volume_layout(depth, patch_depth, n_planes, step)
    wanted = min(patch_depth, n_planes)
    assert len(layout.z_factors) == depth
    assert layout.patch_depth % layout.z_stride == 0
    assert wanted - layout.z_stride < layout.patch_depth <= wanted
    assert layout.z_stride == 1 or layout.patch_depth >= 4 * layout.z_stride


def test_networks_know_the_stride_of_their_layout():
    """Also where they shrink an image more or less often than the layout was made for."""
    assert PLANES.factors(3) == [(2, 2)] * 3
    assert COARSE.factors(3) == [(1, 2, 2), (2, 2, 2), (1, 2, 2)]
    assert COARSE.factors(1) == [(1, 2, 2)]
    assert strides(COARSE.factors(3)) == [(1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 8, 8)]
    for depth in (1, 2, 3):
        network = build_network("unet", depth, 2, layout=COARSE)
        assert network.stride == (1 if depth == 1 else 2, 2**depth, 2**depth)


# Folded for prediction


@each_layout
@pytest.mark.parametrize("name", NETWORKS)
def test_folded_networks_predict_the_same(name, layout):
    layout = replace(layout, channels=2)
    network = seeded(2, 4, name=name, layout=layout)
    shape = (2, 2, *layout.patch_shape(24))
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)):
                norm.weight.uniform_(-2, 2, generator=rng)
                norm.bias.uniform_(-1, 1, generator=rng)
        network.train()(3 * torch.randn(shape, generator=rng) + 1)  # statistics of a batch
        before = {key: values.clone() for key, values in network.state_dict().items()}
        folded = fold_batch_norms(network)
        image = torch.randn(shape, generator=rng)
        expected = network.eval()(image)
        found = folded(image)
    assert (found - expected).abs().max() < 1e-5 * (expected.max() - expected.min())
    kinds = (nn.BatchNorm2d, nn.BatchNorm3d)
    assert not any(isinstance(module, kinds) or module.training for module in folded.modules())
    assert all(torch.equal(before[key], values) for key, values in network.state_dict().items())
    for attribute in ("stride", "halo", "bounded"):
        assert getattr(folded, attribute) == getattr(network, attribute)
    # Weights stay channels last, and the last convolution is the last module of its kind.
    pairs = list(zip(network.modules(), folded.modules(), strict=True))
    for plain, each in pairs:
        if isinstance(plain, CONVOLUTIONS):
            assert each.weight.stride() == plain.weight.stride()
            assert not each.weight.requires_grad


def test_only_a_norm_right_after_a_convolution_is_folded():
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    kinds = (nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.Conv2d)
    pairs = zip(fold_batch_norms(layers), kinds, strict=True)
    assert all(isinstance(layer, kind) for layer, kind in pairs)


@each_layout
def test_folded_networks_stay_channels_last(layout):
    """Every layer, in images that are so small that PyTorch by itself would not keep it."""
    folded, seen = fold_batch_norms(seeded(2, 4, layout=layout)), []
    for layer in folded.modules():
        if isinstance(layer, CONVOLUTIONS):
            layer.register_forward_hook(lambda _, __, output: seen.append(output))
    shape = layout.patch_shape(16)
    with torch.inference_mode():
        folded(torch.zeros(1, 1, *shape).to(memory_format=memory_format(layout.dimensions)))
    assert seen and all(
        output.is_contiguous(memory_format=memory_format(output.dim() - 2)) for output in seen
    )
