"""Networks that read images of another size."""

import numpy as np
import pytest
import torch

from denoiseg_flow.methods.networks import build_network
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.methods.networks.network import Network
from denoiseg_flow.methods.networks.resized import (
    Magnified,
    Reduced,
    magnify_image,
    reduce_image,
    reduce_labels,
)


class Copy(Network):
    """Returns its input."""

    stride, halo = (1, 1), (0, 0)

    def forward(self, x):
        return x


def test_images_become_means_of_blocks_and_labels_their_centres():
    image = np.arange(35, dtype=np.uint8).reshape(1, 5, 7)
    reduced = reduce_image(image, (2, 3))
    blocks = [
        [[0, 1, 2, 7, 8, 9], [3, 4, 5, 10, 11, 12]],
        [[14, 15, 16, 21, 22, 23], [17, 18, 19, 24, 25, 26]],
    ]
    assert np.allclose(reduced[0], np.mean(blocks, axis=2))
    assert reduced.dtype == np.float32
    assert np.array_equal(reduce_labels(image[0], (2, 3)), [[8, 11], [22, 25]])
    assert reduce_image(image, (1, 1)) is image


@pytest.mark.parametrize(
    "layout, expected",
    [
        (Layout(downscale=3), (3, 3)),
        (Layout(3, z_step=1.0, downscale=3), (3, 3, 3)),
        (Layout(3, z_step=2.0, downscale=4), (2, 4, 4)),
        (Layout(3, z_step=3.0, downscale=4), (1, 4, 4)),
        (Layout(3, z_step=5.0, downscale=4), (1, 4, 4)),
        (Layout(3, plane_by_plane=True, downscale=4), (1, 4, 4)),
    ],
)
def test_blocks_of_volumes_are_at_most_as_long_as_wide(layout, expected):
    assert layout.reduction == expected


def test_the_output_lies_where_the_input_does():
    """A ramp is its own mean and its own interpolation, except at the ends."""
    ramp = torch.arange(12.0).expand(1, 1, 8, 12)
    found = Reduced(Copy(), (2, 3))(ramp)
    assert torch.allclose(found[..., 1:-1], ramp[..., 1:-1], atol=1e-5)


@pytest.mark.parametrize(
    "layout, sides",
    [
        (Layout(downscale=3), (60, 96)),
        (Layout(3, 1, 4, (2,), z_step=1.5, downscale=2), (8, 32, 48)),
        (Layout(downscale=0.5), (20, 33)),
        (Layout(3, 1, 4, (2,), downscale=0.5), (8, 16, 24)),
    ],
)
def test_nothing_beyond_the_halo_matters(layout, sides):
    torch.manual_seed(0)
    network = build_network("unet", 1, 2, layout=layout).eval()
    assert all(side % step == 0 for side, step in zip(sides, network.stride, strict=True))
    image = torch.randn(1, 1, *sides, requires_grad=True)
    output = network(image)
    assert output.shape == (1, 4, *sides)
    middle = [side // 2 for side in sides]
    output[0, :, *middle].square().sum().backward()
    reached = image.grad[0, 0].nonzero()
    assert len(reached)
    for axis, reach in enumerate(network.halo):
        away = (reached[:, axis] - middle[axis]).abs().max()
        assert away <= reach


def test_a_magnifying_network_reads_repeated_pixels_and_returns_means():
    image = np.random.default_rng(0).random((1, 3, 4), dtype=np.float32)
    assert np.array_equal(magnify_image(image, (2, 2))[0], np.kron(image[0], np.ones((2, 2))))
    assert magnify_image(image, (1, 1)) is image

    class Columns(Copy):
        def forward(self, x):
            assert np.array_equal(x[0].numpy(), magnify_image(image, (2, 2)))
            return x + torch.arange(8.0)

    found = Magnified(Columns(), (2, 2))(torch.from_numpy(image)[None])
    assert np.allclose(found[0], image + np.float32([0.5, 2.5, 4.5, 6.5]))


def test_sizes_of_images():
    sizes = {0.5: "at twice their size", 1: "", 3: "at 1/3 of their size"}
    assert {each: Layout(downscale=each).size_read for each in sizes} == sizes
    assert Layout(downscale=0.5).magnification == (2, 2)
    assert Layout(3, downscale=0.5).magnification == (1, 2, 2)
    assert Layout(downscale=3).magnification == (1, 1)
    assert Layout(downscale=0.5).reduction == (1, 1)
    assert [Layout(downscale=each).patch_shape(32) for each in (0.5, 1)] == [(16, 16), (32, 32)]
    with pytest.raises(ValueError, match="invalid layout"):
        Layout(downscale=0.25)


def test_its_core_is_the_network_for_the_reduced_images():
    network = build_network("unet", 1, 2, layout=Layout(downscale=2))
    plain = build_network("unet", 1, 2)
    assert network.core.state_dict().keys() == plain.state_dict().keys()
    assert plain.core is plain
