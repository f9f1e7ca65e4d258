"""Blind spots: how many, where, and that nothing of the hidden pixel reaches the network."""

import numpy as np
import pytest
import torch

from denoiseg_flow.masking import MASKINGS, NEIGHBOURHOOD, replace_uniform, stratified_mask
from denoiseg_flow.networks import build_network


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("side", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(64, 64), (13, 29), (8, 8), (5, 3)])
def test_every_position_is_equally_likely(rng, side, shape):
    """Each with the fraction asked for, also beside the border and where cells are cut."""
    n_patches = 4000
    mask = stratified_mask((n_patches, *shape), side**-2, rng)
    assert (mask.shape, mask.dtype) == ((n_patches, *shape), torch.bool)
    often = mask.float().mean(dim=0)
    sigma = (side**-2 * (1 - side**-2) / n_patches) ** 0.5
    assert often.mean().item() == pytest.approx(side**-2, rel=0.03)
    assert (often - side**-2).abs().max().item() <= 5 * sigma


@pytest.mark.parametrize("fraction", [0.25, 0.1, 0.05, 0.03, 0.0198, 1 / 64, 0.01, 0.005])
def test_fraction_is_close_to_the_one_asked_for(rng, fraction):
    """Cells have whole sides, so that the fraction can be off by a half side at most."""
    found = stratified_mask((200, 64, 64), fraction, rng).float().mean().item()
    side = found**-0.5
    assert abs(side - fraction**-0.5) < 0.55
    if round(fraction**-0.5) ** -2 == pytest.approx(fraction):
        assert found == pytest.approx(fraction, rel=0.02)


@pytest.mark.parametrize("side, height, width", [(4, 16, 16), (4, 21, 10), (8, 64, 64)])
def test_at_most_one_in_each_cell(rng, side, height, width):
    """For some phase of the grid, no cell holds two, and cells within the patch hold one."""
    for mask in stratified_mask((30, height, width), side**-2, rng).numpy():
        y, x = np.nonzero(mask)
        fitting = []
        for phase_y, phase_x in np.ndindex(side, side):
            cells = np.zeros((height // side + 2, width // side + 2), int)
            np.add.at(cells, ((y + phase_y) // side, (x + phase_x) // side), 1)
            whole_y = slice(phase_y > 0, (height + phase_y) // side)
            whole_x = slice(phase_x > 0, (width + phase_x) // side)
            if cells.max() <= 1 and (cells[whole_y, whole_x] == 1).all():
                fitting.append((phase_y, phase_x))
        assert fitting


def test_patches_differ_and_seeds_repeat(rng):
    mask = stratified_mask((8, 32, 32), 1 / 16, rng)
    assert len({patch.numpy().tobytes() for patch in mask}) == 8
    again = stratified_mask((8, 32, 32), 1 / 16, torch.Generator().manual_seed(0))
    assert torch.equal(mask, again)


def positions(height, width):
    """A patch whose every value tells where it stands."""
    return torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)


@pytest.mark.parametrize("height, width", [(40, 40), (11, 30), (4, 7), (1, 9)])
def test_replacements_are_drawn_evenly_from_the_cut_neighbourhood(rng, height, width):
    """Every pixel in reach is drawn, the pixel itself among them, and none out of reach."""
    reach = NEIGHBOURHOOD // 2
    for y, x in {(0, 0), (height // 2, width // 2), (height - 1, width - 1), (0, width - 1)}:
        mask = torch.zeros(1, height, width, dtype=torch.bool)
        mask[0, y, x] = True
        many = 12_000
        patches = positions(height, width).expand(many, -1, -1)
        replaced = replace_uniform(patches, mask.expand(many, -1, -1), rng)
        drawn = replaced[:, y, x].long().numpy()
        low_y, high_y = max(0, y - reach), min(height - 1, y + reach)
        low_x, high_x = max(0, x - reach), min(width - 1, x + reach)
        allowed = [
            row * width + column
            for row in range(low_y, high_y + 1)
            for column in range(low_x, high_x + 1)
        ]
        counts = np.bincount(drawn, minlength=height * width)
        assert set(np.flatnonzero(counts)) == set(allowed)
        expected = many / len(allowed)
        assert np.abs(counts[allowed] - expected).max() < 5 * expected**0.5


def test_only_masked_pixels_change(rng):
    patches = torch.randn(6, 33, 47, generator=rng)
    before = patches.clone()
    mask = stratified_mask((6, 33, 47), 1 / 16, rng)
    replaced = replace_uniform(patches, mask, rng)
    assert torch.equal(patches, before)
    assert torch.equal(replaced[~mask], patches[~mask])
    # One in 121 is replaced by itself, more beside the border.
    assert (replaced[mask] != patches[mask]).float().mean() > 0.9


def test_replacements_stay_in_their_own_patch(rng):
    patches = torch.arange(50.0)[:, None, None].expand(50, 20, 20)
    mask = stratified_mask((50, 20, 20), 1 / 4, rng)
    assert torch.equal(replace_uniform(patches, mask, rng), patches)


@pytest.mark.parametrize("masking", MASKINGS)
def test_hidden_pixels_do_not_reach_the_network(rng, masking):
    """The gradient of every output with respect to a hidden value is exactly zero.

    Except where the hidden value was drawn as a replacement, of the pixel itself (once in 121) or
    of a neighbouring hidden one: uniform_withCP of the reference allows both. With distinct
    values the input of the network tells which ones these are.
    """
    torch.manual_seed(0)
    network = build_network("unet", depth=1, filters=2).train()
    patches = torch.randn(2, 16, 16, generator=rng)
    n_hidden = n_itself = 0
    for _ in range(12):
        mask = stratified_mask((2, 16, 16), 1 / 16, rng)
        source = patches.clone().requires_grad_()
        inputs = MASKINGS[masking](source, mask, rng)
        output = network(inputs[:, None])[:, 0]  # (batch, y, x)
        for place in mask.nonzero().tolist():
            place = tuple(place)
            (gradient,) = torch.autograd.grad(output[place], source, retain_graph=True)
            visible = (inputs == patches[place]).any().item()
            if not visible:
                assert gradient[place].item() == 0
                n_hidden += 1
            elif inputs[place] == patches[place]:
                n_itself += gradient[place].item() != 0
    # Both cases have been seen, so that neither of the two statements is empty.
    assert n_hidden > 100
    assert n_itself > 0
