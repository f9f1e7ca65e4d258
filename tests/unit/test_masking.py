"""Blind spots: how many, where, and that nothing of the hidden pixel reaches the network."""

import numpy as np
import pytest
import scipy
import torch

from denoiseg_flow import masking
from denoiseg_flow.masking import (
    REPLACEMENTS,
    as_mask,
    fill_grid,
    grid_mask,
    hide,
    stratified_places,
    struct_offsets,
)
from denoiseg_flow.methods import Method
from denoiseg_flow.networks import build_network

ROW = [[1] * 9]
PLUS = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def stratified(shape, fraction, rng):
    """The mask of stratified places."""
    return as_mask(stratified_places(shape, fraction, rng), shape)


@pytest.mark.parametrize("side", [1, 2, 2.7, 4, 8])
@pytest.mark.parametrize("shape", [(64, 64), (13, 29), (8, 8), (5, 3)])
def test_every_position_is_equally_likely(rng, side, shape):
    """Each with the fraction asked for, also beside the border and where cells are cut."""
    n_patches = 4000
    mask = stratified((n_patches, *shape), side**-2, rng)
    assert (mask.shape, mask.dtype) == ((n_patches, *shape), torch.bool)
    often = mask.float().mean(dim=0)
    sigma = (side**-2 * (1 - side**-2) / n_patches) ** 0.5
    few = 5 * sigma / often.numel() ** 0.5
    assert often.mean().item() == pytest.approx(side**-2, abs=few)
    assert (often - side**-2).abs().max().item() <= 5 * sigma


@pytest.mark.parametrize("fraction", [0.25, 0.1, 0.05, 0.03, 0.0198, 1 / 64, 0.01, 0.005])
@pytest.mark.parametrize("shape", [(200, 64, 64), (20, 16, 40, 40)], ids=["2d", "3d"])
def test_fraction_is_the_one_asked_for(rng, shape, fraction):
    """In any number of dimensions, also where the cells have no whole sides."""
    found = stratified(shape, fraction, rng).float().mean().item()
    assert found == pytest.approx(fraction, rel=0.03)


@pytest.mark.parametrize("side, height, width", [(4, 16, 16), (4, 21, 10), (8, 64, 64)])
def test_at_most_one_in_each_cell(rng, side, height, width):
    """For some phase of the grid, no cell holds two, and cells within the patch hold one."""
    for mask in stratified((30, height, width), side**-2, rng).numpy():
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
    mask = stratified((8, 32, 32), 1 / 16, rng)
    assert len({patch.numpy().tobytes() for patch in mask}) == 8
    again = stratified((8, 32, 32), 1 / 16, torch.Generator().manual_seed(0))
    assert torch.equal(mask, again)


def positions(height, width):
    """A patch whose every value tells where it stands."""
    return torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)


@pytest.mark.parametrize("height, width", [(40, 40), (11, 30), (4, 7), (1, 9)])
@pytest.mark.parametrize("side", [5, 11])
def test_uniform_is_drawn_evenly_from_the_cut_neighbourhood(rng, height, width, side):
    """Every pixel in reach is drawn, the pixel itself among them, and none out of reach."""
    reach = side // 2
    for y, x in {(0, 0), (height // 2, width // 2), (height - 1, width - 1), (0, width - 1)}:
        many = 12_000
        places = torch.full((many, 1), y * width + x)
        patches = positions(height, width).expand(many, -1, -1)
        drawn = REPLACEMENTS["uniform"](patches, places, side, rng)[:, 0].long().numpy()
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


def around(patch, mask, y, x, side):
    """Values of the neighbourhood of one pixel that are not hidden."""
    reach = side // 2
    window = np.s_[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    return patch[window][~mask[window]]


@pytest.mark.parametrize("side", [3, 5, 11])
@pytest.mark.parametrize("name", [name for name in REPLACEMENTS if name != "uniform"])
def test_replacements_come_from_pixels_that_are_not_hidden(rng, name, side):
    patches = torch.randn(3, 13, 17, generator=rng)
    places = stratified_places(patches.shape, 1 / 6, rng)
    masks = as_mask(places, patches.shape).numpy()
    many = [REPLACEMENTS[name](patches, places, side, rng) for _ in range(300)]
    drawn = torch.stack(many).numpy()  # (draw, batch, place)
    for number, patch in enumerate(patches.numpy()):
        for column, place in enumerate(places[number].tolist()):
            if place == patch.size:
                continue
            values = around(patch, masks[number], *divmod(place, patch.shape[1]), side)
            found = drawn[:, number, column]
            if name == "mean":
                assert found == pytest.approx(values.mean(), abs=1e-5)
            elif name == "median":
                assert found == pytest.approx(np.median(values), abs=1e-6)
            elif name == "uniform_without_centre":
                assert set(found) <= set(values)
                assert len(set(found)) > 0.6 * len(values)
            else:
                error = values.std() / len(found) ** 0.5
                assert abs(found.mean() - values.mean()) < 5 * error + 1e-5
                assert found.std() == pytest.approx(values.std(), rel=0.3)


def make_hidden(patches, rng, fraction=1 / 16, **fields):
    """Hide pixels of patches by a masking."""
    method = Method("some", target="blind_spot", alpha=1, **fields)
    return hide(patches, method, fraction, struct_offsets(method.struct_mask), rng)


@pytest.mark.parametrize("struct_mask", [None, ROW, PLUS], ids=["single", "row", "plus"])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_only_hidden_pixels_change(rng, name, struct_mask):
    patches = torch.randn(6, 33, 47, generator=rng)
    before = patches.clone()
    hidden, mask = make_hidden(patches, rng, masking=name, struct_mask=struct_mask)
    assert torch.equal(patches, before)
    changed = (hidden != patches).numpy()
    structure = np.ones((1, 1, 1)) if struct_mask is None else np.array(struct_mask)[None]
    blind = scipy.ndimage.binary_dilation(mask.numpy(), structure)
    assert not changed[~blind].any()
    # One in 121 is replaced by itself in "uniform", more beside the border.
    assert changed[blind].mean() > 0.9


@pytest.mark.parametrize("struct_mask", [None, ROW, PLUS], ids=["single", "row", "plus"])
def test_fraction_counts_all_pixels_of_struct_masks(rng, struct_mask):
    patches = torch.randn(60, 64, 64, generator=rng)
    hidden, mask = make_hidden(patches, rng, masking="gaussian", struct_mask=struct_mask)
    size = 1 if struct_mask is None else np.sum(struct_mask)
    assert mask.float().mean().item() == pytest.approx(1 / 16 / size, rel=0.05)
    # Masks overlap, and stand out over the border.
    share = (hidden != patches).float().mean().item()
    assert 0.75 / 16 < share < 1.02 / 16


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_replacements_stay_in_their_own_patch(rng, name):
    patches = torch.arange(50.0)[:, None, None].expand(50, 20, 20)
    hidden, _ = make_hidden(patches, rng, fraction=1 / 4, masking=name)
    assert (hidden - patches).abs().max().item() < 1e-2  # the standard deviation of equal numbers


def test_a_place_without_visible_neighbours_becomes_the_mean(rng):
    """In tiny patches a struct mask may hide everything; nothing undefined comes of it."""
    patches = torch.randn(2, 3, 3, generator=rng)
    for name in REPLACEMENTS:
        everything = [[1] * 5] * 5
        hidden, _ = make_hidden(patches, rng, 1.0 * 25, masking=name, struct_mask=everything)
        assert torch.isfinite(hidden).all()
        assert name == "uniform" or not hidden.any()


def gradients(patches, inputs_of, rng):
    """The gradients of a network's output at hidden pixels by the true value there."""
    torch.manual_seed(0)
    network = build_network("unet", depth=1, filters=2).train()
    source = patches.clone().requires_grad_()
    inputs, mask = inputs_of(source)
    output = network(inputs[:, None])[:, 0]  # (batch, y, x)
    for place in map(tuple, mask.nonzero().tolist()):
        (gradient,) = torch.autograd.grad(output[place], source, retain_graph=True)
        yield place, inputs.detach(), gradient


@pytest.mark.parametrize("struct_mask", [None, ROW, PLUS], ids=["single", "row", "plus"])
@pytest.mark.parametrize("name", [name for name in REPLACEMENTS if name != "uniform"])
def test_hidden_pixels_do_not_reach_the_network(rng, name, struct_mask):
    """The gradient by the true value is exactly zero, there and at all pixels of struct masks."""
    patches = torch.randn(2, 16, 16, generator=rng)
    n_hidden = n_seen = 0
    for _ in range(4):
        found = gradients(
            patches,
            lambda source: make_hidden(source, rng, masking=name, struct_mask=struct_mask),
            rng,
        )
        for (number, y, x), _, gradient in found:
            for dy, dx in struct_offsets(struct_mask).tolist():
                if 0 <= y + dy < 16 and 0 <= x + dx < 16:
                    assert gradient[number, y + dy, x + dx].item() == 0
                    n_hidden += 1
            n_seen += gradient.any().item()
    assert n_hidden > 50 and n_seen > 5


def test_published_masking_lets_pixels_through(rng):
    """``uniform_withCP`` draws from the pixel itself (once in 121) and other hidden ones.

    With distinct values the input of the network tells where that happened; everywhere else the
    gradient is exactly zero.
    """
    patches = torch.randn(2, 16, 16, generator=rng)
    n_hidden = n_itself = 0
    for _ in range(20):
        for place, inputs, gradient in gradients(
            patches, lambda source: make_hidden(source, rng, masking="uniform"), rng
        ):
            visible = (inputs == patches[place]).any().item()
            if not visible:
                assert gradient[place].item() == 0
                n_hidden += 1
            elif inputs[place] == patches[place]:
                n_itself += gradient[place].item() != 0
    # Both cases have been seen, so that neither of the two statements is empty.
    assert n_hidden > 100
    assert n_itself > 0


# --- grids ----------------------------------------------------------------------------------------


def where(height, width, top=0, left=0):
    """Positions of the pixels of one patch in its image."""
    y, x = torch.meshgrid(
        torch.arange(top, top + height), torch.arange(left, left + width), indexing="ij"
    )
    return torch.stack([y, x])[None]


@pytest.mark.parametrize("grid", [2, 3, 4, 5])
def test_subsets_of_a_grid_part_the_image(grid):
    masks = [grid_mask(where(11, 13), grid, torch.tensor([n])) for n in range(grid**2)]
    assert torch.equal(sum(mask.int() for mask in masks), torch.ones(1, 11, 13, dtype=torch.int32))
    # A patch of the image has the same subsets, wherever it was cut.
    part = grid_mask(where(5, 6, top=3, left=4), grid, torch.tensor([1]))
    assert torch.equal(part, masks[1][:, 3:8, 4:10])


def test_interpolation_is_the_mean_of_the_ring(rng):
    patches = torch.randn(1, 11, 13, generator=rng)
    mask = grid_mask(where(11, 13), 3, torch.tensor([4]))
    ring = np.array([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]]) / 6
    means = scipy.ndimage.convolve(patches[0].numpy(), ring, mode="mirror")
    expected = np.where(mask[0], means, patches[0])
    assert np.allclose(fill_grid(patches, mask, "grid_interpolate")[0], expected, atol=1e-6)
    zeroed = fill_grid(patches, mask, "grid_zero")
    assert torch.equal(zeroed, torch.where(mask, 0, patches))


@pytest.mark.parametrize("name", ["grid_interpolate", "grid_zero"])
@pytest.mark.parametrize("grid", [2, 4])
def test_pixels_of_a_grid_do_not_reach_the_network(rng, name, grid):
    patches = torch.randn(1, 8, 12, generator=rng)
    for subset in range(grid**2):
        mask = grid_mask(where(8, 12), grid, torch.tensor([subset]))
        hidden = mask.nonzero(as_tuple=True)

        def inputs_of(source, mask=mask):
            return fill_grid(source, mask, name), mask

        for _, _, gradient in gradients(patches, inputs_of, rng):
            assert not gradient[hidden].any()


def test_every_masking_of_the_schema_exists(schema):
    names = schema["$defs"]["method"]["properties"]["masking"]["enum"]
    assert {name for name in names if not name.startswith("grid_")} == set(masking.REPLACEMENTS)
