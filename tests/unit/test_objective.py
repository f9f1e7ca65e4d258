"""What each method is trained to do: which pixels the loss looks at, and what they should be."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from denoiseg_flow.labels import IGNORE
from denoiseg_flow.losses import consistency_loss, segmentation_loss
from denoiseg_flow.masking import fill_grid, grid_mask
from denoiseg_flow.methods import Method
from denoiseg_flow.objective import Objective
from denoiseg_flow.sampling import Batch

SIDE, COUNT = 13, 12
N2S = Method("n2s", target="blind_spot", masking="grid_zero", alpha=1)
SINGLE = replace(N2S, each_image=True)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def batch(rng):
    """Patches from different places of their images, under different symmetries, with targets."""
    patches, targets = torch.randn(2, COUNT, SIDE, SIDE, generator=rng)
    classes = torch.randint(-1, 3, patches.shape, generator=rng)
    classes[classes < 0] = IGNORE
    corner = torch.randint(50, (2, COUNT, 1, 1), generator=rng)
    ramp = torch.arange(SIDE).expand(COUNT, SIDE, SIDE)
    down, right = corner[0] + ramp.mT, corner[1] + ramp
    turned = (torch.arange(COUNT) % 2 == 0)[:, None, None]
    return Batch(
        patches,
        classes,
        targets,
        torch.stack([torch.where(turned, right, down), torch.where(turned, down, right)], dim=1),
    )


class Output(nn.Module):
    """A network that predicts what it is told to, and remembers what it was shown."""

    def __init__(self, values):
        super().__init__()
        self.values, self.seen = nn.Parameter(values), None

    def forward(self, x):
        self.seen = x
        return self.values


@pytest.fixture
def network(rng):
    return Output(torch.randn(COUNT, 4, SIDE, SIDE, generator=rng))


@pytest.fixture
def look(network, make_recipe, rng):
    """Return the losses of a method, and their gradient by the denoised patches."""

    def look(method, batch, **options):
        network.zero_grad()
        losses = Objective(method, make_recipe(), torch.device("cpu"))(
            network, batch, rng, **options
        )
        losses[0].backward()
        return losses.tolist(), network.values.grad[:, 0].clone()

    return look


# Targets


@pytest.mark.parametrize("target", ["clean", "second_noisy"])
def test_a_target_is_looked_at_everywhere(look, network, batch, target):
    """And nothing is hidden: the noise of the patch tells nothing about that of the target."""
    (total, denoise, *others), gradient = look(Method("m", target=target, alpha=1), batch)
    error = network.values[:, 0] - batch.targets
    assert total == denoise == pytest.approx(error.square().mean().item(), rel=1e-6)
    assert others == [0, 0]
    torch.testing.assert_close(gradient, 2 * error.detach() / error.numel())
    assert torch.equal(network.seen[:, 0], batch.patches)


@pytest.mark.parametrize("masking", ["uniform", "median", "grid_interpolate", "grid_zero"])
def test_a_blind_spot_should_become_the_noisy_pixel(look, network, batch, masking):
    """At hidden pixels only, which are not shown as they are."""
    method = Method("m", target="blind_spot", masking=masking, alpha=1)
    _, gradient = look(method, batch._replace(targets=None))
    hidden = gradient != 0
    assert 0.5 / 16 < hidden.float().mean() < 1.5 / 16
    error = (network.values[:, 0] - batch.patches).detach()
    torch.testing.assert_close(gradient[hidden], 2 * error[hidden] / hidden.sum())
    shown = network.seen[:, 0]
    assert torch.equal(shown[~hidden], batch.patches[~hidden])
    assert (shown[hidden] != batch.patches[hidden]).float().mean() > 0.9


def test_alpha_weighs_target_and_annotation(look, network, batch):
    method = Method("m", target="clean", alpha=0.3)
    (total, denoise, segment, _), _ = look(method, batch)
    expected = segmentation_loss(network.values[:, 1:], batch.classes, "labelled_pixels")
    assert segment == pytest.approx(expected.item(), rel=1e-6)
    assert total == pytest.approx(0.3 * denoise + 0.7 * segment, rel=1e-6)
    assert denoise > 0


# Grids


def subsets_of(batch, grid):
    """Number of the subset that each pixel belongs to."""
    y, x = batch.place.unbind(dim=1)
    return (y % grid) * grid + x % grid


@pytest.mark.parametrize("masking", ["grid_interpolate", "grid_zero"])
@pytest.mark.parametrize("grid", [3, 4, 5])
def test_one_subset_of_the_grid_is_hidden_in_each_patch(look, network, batch, masking, grid):
    """All of it, at the places that these pixels have in their image."""
    seen = set()
    for _ in range(20):
        _, gradient = look(replace(N2S, masking=masking, grid=grid), batch)
        subsets = subsets_of(batch, grid)
        chosen = torch.tensor([int(s[g != 0][0]) for s, g in zip(subsets, gradient, strict=True)])
        assert torch.equal(gradient != 0, subsets == chosen[:, None, None])
        mask = grid_mask(batch.place, grid, chosen)
        assert torch.equal(network.seen[:, 0], fill_grid(batch.patches, mask, masking))
        seen |= set(chosen.tolist())
    assert seen == set(range(grid**2))


def test_the_network_is_told_what_is_hidden(look, network, batch):
    _, gradient = look(replace(N2S, mask_channel=True), batch)
    assert torch.equal(network.seen[:, 1], (gradient != 0).float())
    look(Method("n2v", target="blind_spot", mask_channel=True, alpha=1), batch)
    assert network.seen.shape == (COUNT, 2, SIDE, SIDE)
    assert 0 < network.seen[:, 1].mean() < 0.2


@pytest.mark.parametrize("grid", [2, 4])
def test_one_subset_of_a_single_image_is_for_validation(look, network, batch, grid):
    """Training reads these pixels as they are, but never compares anything with them."""
    method = replace(SINGLE, grid=grid)
    last = grid_mask(batch.place, grid, torch.full((COUNT,), grid**2 - 1))
    subsets, looked_at = subsets_of(batch, grid), set()
    for _ in range(30):
        _, gradient = look(method, batch)
        assert not gradient[last].any()
        assert torch.equal(network.seen[:, 0][last], batch.patches[last])
        looked_at |= set(subsets[gradient != 0].tolist())
    assert looked_at == set(range(grid**2 - 1))
    for _ in range(3):
        _, gradient = look(method, batch, validating=True)
        assert torch.equal(gradient != 0, last)


def test_other_methods_are_validated_like_they_are_trained(look, batch):
    """Their validation images are others, so that no pixel has to be set aside."""
    seen = set()
    for _ in range(20):
        _, gradient = look(N2S, batch, validating=True)
        seen |= set(subsets_of(batch, 4)[gradient != 0].tolist())
    assert seen == set(range(16))


# Teachers


def test_a_teacher_sees_what_the_network_must_guess(look, make_recipe, network, batch, rng):
    """The patches as they are, with nothing marked as hidden; the annotated ones are not shown."""
    method = Method("m", target="blind_spot", mask_channel=True, alpha=0.5)
    n_labelled = make_recipe().labelled_patches(method)
    teacher = Output(torch.randn(COUNT - n_labelled, 4, SIDE, SIDE, generator=rng))
    (*_, pseudo), _ = look(method, batch, teacher=teacher)
    assert torch.equal(teacher.seen[:, 0], batch.patches[n_labelled:])
    assert not teacher.seen[:, 1].any()
    wanted = teacher.values[:, 1:].softmax(dim=1)
    expected = consistency_loss(network.values[n_labelled:, 1:], wanted).item()
    assert pseudo == pytest.approx(expected, rel=1e-6)
    assert teacher.values.grad is None
