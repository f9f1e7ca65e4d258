"""What each method is trained to do: which pixels the loss looks at, and what they should be."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from denoiseg_flow.methods.classes import IGNORE
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.losses import consistency_loss, segmentation_loss
from denoiseg_flow.methods.masking import fill_grid, grid_mask
from denoiseg_flow.methods.networks import split_output
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.training.objective import Objective
from denoiseg_flow.training.patches import Batch

SIDE, COUNT = 13, 12
N2S = Method("n2s", target="blind_spot", masking="grid_zero", alpha=1)
SINGLE = replace(N2S, each_image=True)
LAYOUTS = {
    "planes": PLANES,
    "channels": Layout(channels=3),
    "volumes": Layout(3, patch_depth=5),
    "both": Layout(3, channels=2, patch_depth=5),
}


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture
def batch(rng, layout):
    """Patches from different places of their images, under different symmetries, with targets."""
    sides = layout.patch_shape(SIDE)
    patches, targets = torch.randn(2, COUNT, layout.channels, *sides, generator=rng)
    classes = torch.randint(-1, 3, (COUNT, *sides), generator=rng)
    classes[classes < 0] = IGNORE
    corner = torch.randint(50, (len(sides), COUNT, *[1] * len(sides)), generator=rng)
    ramps = torch.meshgrid(*map(torch.arange, sides), indexing="ij")
    *above, down, right = (
        start + ramp.expand(COUNT, *sides) for start, ramp in zip(corner, ramps, strict=True)
    )
    turned = (torch.arange(COUNT) % 2 == 0).view(-1, *[1] * len(sides))
    turns = [torch.where(turned, right, down), torch.where(turned, down, right)]
    return Batch(patches, classes, targets, torch.stack([*above, *turns], dim=1))


class Output(nn.Module):
    """A network that predicts what it is told to, and remembers what it was shown."""

    def __init__(self, values):
        super().__init__()
        self.values, self.seen = nn.Parameter(values), None

    def forward(self, x):
        self.seen = x
        return self.values


@pytest.fixture
def outputs(layout, rng):
    """Return a network with random outputs for so many patches."""

    def outputs(count):
        shape = (count, layout.channels + 3, *layout.patch_shape(SIDE))
        return Output(torch.randn(shape, generator=rng))

    return outputs


@pytest.fixture
def network(outputs):
    return outputs(COUNT)


@pytest.fixture
def parts(layout):
    """Return denoised images and logits of outputs of the network, or of their gradients."""
    return lambda values: split_output(values, layout.channels)


@pytest.fixture
def seen(network, layout):
    """Return what the network was shown, patches and masks."""
    return lambda: network.seen.split(layout.channels, dim=1)


@pytest.fixture
def look(network, make_recipe, rng, layout, parts):
    """Return the losses of a method, and their gradient by the denoised patches."""

    def look(method, batch, **options):
        network.zero_grad()
        losses = Objective(method, make_recipe(), torch.device("cpu"), layout)(
            network, batch, rng, **options
        )
        losses[0].backward()
        return losses.tolist(), parts(network.values.grad)[0].clone()

    return look


# Targets


@pytest.mark.parametrize("target", ["clean", "second_noisy"])
def test_a_target_is_looked_at_everywhere(look, network, parts, seen, batch, target):
    """And nothing is hidden: the noise of the patch tells nothing about that of the target."""
    (total, denoise, *others), gradient = look(Method("m", target=target, alpha=1), batch)
    error = parts(network.values)[0] - batch.targets
    assert total == denoise == pytest.approx(error.square().mean().item(), rel=1e-6)
    assert others == [0, 0]
    torch.testing.assert_close(gradient, 2 * error.detach() / error.numel())
    (shown,) = seen()
    assert torch.equal(shown, batch.patches)


@pytest.mark.parametrize("masking", ["uniform", "median", "grid_interpolate", "grid_zero"])
def test_a_blind_spot_should_become_the_noisy_pixel(look, network, parts, seen, batch, masking):
    """At masked pixels only, which are not shown as they are."""
    method = Method("m", target="blind_spot", masking=masking, alpha=1)
    _, gradient = look(method, batch._replace(targets=None))
    masked = gradient != 0
    assert 0.5 / 16 < masked.float().mean() < 1.5 / 16
    error = (parts(network.values)[0] - batch.patches).detach()
    torch.testing.assert_close(gradient[masked], 2 * error[masked] / masked.sum())
    (shown,) = seen()
    assert torch.equal(shown[~masked], batch.patches[~masked])
    assert (shown[masked] != batch.patches[masked]).float().mean() > 0.9


def test_alpha_weighs_target_and_annotation(look, network, parts, batch):
    method = Method("m", target="clean", alpha=0.3)
    (total, denoise, segment, _), _ = look(method, batch)
    logits = parts(network.values)[1]
    expected = segmentation_loss(logits, batch.classes, "annotated_pixels")
    assert segment == pytest.approx(expected.item(), rel=1e-6)
    assert total == pytest.approx(0.3 * denoise + 0.7 * segment, rel=1e-6)
    assert denoise > 0


# Grids


@pytest.fixture
def subsets_of():
    """Return the number of the subset that each pixel of a batch belongs to."""

    def subsets_of(batch, grid):
        *z, y, x = batch.place.unbind(dim=1)
        for up in z:
            y, x = y + up, x + 2 * up
        subsets = (y % grid) * grid + x % grid
        return subsets[:, None].expand_as(batch.patches)

    return subsets_of


@pytest.mark.parametrize(
    "grid, masking", [(3, "grid_interpolate"), (4, "grid_zero"), (5, "grid_interpolate")]
)
def test_one_subset_of_the_grid_is_hidden_in_each_patch(
    look, layout, seen, subsets_of, batch, masking, grid
):
    """All of it, at the places that these pixels have in their image; in each channel another."""
    found = set()
    subsets = subsets_of(batch, grid).flatten(0, 1)
    patches = batch.patches.flatten(0, 1)
    place = batch.place.repeat_interleave(layout.channels, dim=0)
    for _ in range(20):
        gradient = look(replace(N2S, masking=masking, grid=grid), batch)[1].flatten(0, 1)
        chosen = torch.tensor([int(s[g != 0][0]) for s, g in zip(subsets, gradient, strict=True)])
        wanted = chosen.view(-1, *[1] * layout.dimensions)
        assert torch.equal(gradient != 0, subsets == wanted)
        mask = grid_mask(place, grid, chosen)
        (shown,) = seen()
        assert torch.equal(shown.flatten(0, 1), fill_grid(patches, mask, masking))
        found |= set(chosen.tolist())
    assert found == set(range(grid**2))


def test_the_network_is_told_what_is_hidden(look, network, layout, seen, batch):
    _, gradient = look(replace(N2S, mask_channel=True), batch)
    assert torch.equal(seen()[1], (gradient != 0).float())
    look(Method("n2v", target="blind_spot", mask_channel=True, alpha=1), batch)
    assert network.seen.shape == (COUNT, 2 * layout.channels, *layout.patch_shape(SIDE))
    assert 0 < seen()[1].mean() < 0.2


@pytest.mark.parametrize("grid", [2, 4])
def test_one_subset_of_a_single_image_is_for_validation(look, seen, subsets_of, batch, grid):
    """Training reads these pixels as they are, but never compares anything with them."""
    method = replace(SINGLE, grid=grid)
    subsets, looked_at = subsets_of(batch, grid), set()
    last = subsets == grid**2 - 1
    for _ in range(30):
        _, gradient = look(method, batch)
        assert not gradient[last].any()
        assert torch.equal(seen()[0][last], batch.patches[last])
        looked_at |= set(subsets[gradient != 0].tolist())
    assert looked_at == set(range(grid**2 - 1))
    for _ in range(3):
        _, gradient = look(method, batch, validating=True)
        assert torch.equal(gradient != 0, last)


def test_other_methods_are_validated_like_they_are_trained(look, subsets_of, batch):
    """Their validation images are others, so that no pixel has to be set aside."""
    found = set()
    for _ in range(20):
        _, gradient = look(N2S, batch, validating=True)
        found |= set(subsets_of(batch, 4)[gradient != 0].tolist())
    assert found == set(range(16))


# Channels


@pytest.fixture
def masks_of(rng, make_recipe):
    """Return the masks (batch, channel, ...) of the masked pixels of two channels."""

    def masks_of(method, layout, count=600):
        sides = layout.patch_shape(SIDE)
        ramps = torch.meshgrid(*map(torch.arange, sides), indexing="ij")
        place = torch.stack(ramps).expand(count, -1, *[-1] * len(sides))
        patches = torch.randn(count, 2, *sides, generator=rng)
        objective = Objective(method, make_recipe(), torch.device("cpu"), layout)
        return objective.masked_input(Batch(patches, None, None, place), rng)[1]

    return masks_of


TWO = [Layout(channels=2), Layout(3, channels=2, patch_depth=5)]


@pytest.mark.parametrize("layout", TWO, ids=["planes", "volumes"])
def test_channels_hide_pixels_of_their_own(masks_of, layout):
    """As many in each as were asked for, both at one place as seldom as chance has it."""
    one, other = masks_of(Method("m", target="blind_spot", alpha=1), layout).unbind(dim=1)
    share = 1 / 16
    for found, expected in ((one, share), (other, share), (one & other, share**2)):
        shares = found.float().flatten(1).mean(dim=1)
        error = shares.std().item() / len(shares) ** 0.5
        assert shares.mean().item() == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("layout", TWO, ids=["planes", "volumes"])
def test_channels_hide_subsets_of_their_own(masks_of, layout):
    """Every pair of the four subsets of a grid of 2 is as likely."""
    masks = masks_of(replace(N2S, grid=2), layout).flatten(2)
    first = masks.float().argmax(dim=2)  # tells the subsets from each other
    pairs = first.unique(dim=0, return_counts=True)[1]
    assert len(pairs) == 16
    assert (pairs - 600 / 16).abs().max() < 4 * (600 / 16) ** 0.5


# Teachers


def test_a_teacher_sees_what_the_network_must_guess(
    look, make_recipe, network, outputs, parts, layout, batch
):
    """The patches as they are, with nothing marked as hidden; the annotated ones are not shown."""
    method = Method("m", target="blind_spot", mask_channel=True, alpha=0.5)
    n_annotated = make_recipe().annotated_patches(method)
    teacher = outputs(COUNT - n_annotated)
    (*_, pseudo), _ = look(method, batch, teacher=teacher)
    images, masks = teacher.seen.split(layout.channels, dim=1)
    assert torch.equal(images, batch.patches[n_annotated:])
    assert not masks.any()
    wanted = parts(teacher.values)[1].softmax(dim=1)
    expected = consistency_loss(parts(network.values)[1][n_annotated:], wanted).item()
    assert pseudo == pytest.approx(expected, rel=1e-6)
    assert teacher.values.grad is None
