"""Blind spots: how many, where, and that nothing of the masked pixel reaches the network."""

import numpy as np
import pytest
import scipy
import torch

from denoiseg_flow.methods import masking
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.masking import (
    REPLACEMENTS,
    as_mask,
    fill_grid,
    grid_mask,
    mask_pixels,
    stratified_places,
    struct_offsets,
)
from denoiseg_flow.methods.networks import build_network
from denoiseg_flow.methods.networks.layout import Layout

ROW = [[1] * 9]
PLUS = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def stratified(shape, fraction, rng):
    """The mask of stratified places."""
    return as_mask(stratified_places(shape, fraction, rng), shape)


@pytest.mark.parametrize(
    "side, shape",
    [
        *((1, (13, 29)), (2, (13, 29)), (2.7, (64, 64)), (4, (8, 8)), (8, (64, 64)), (4, (5, 3))),
        *((2, (2, 7, 9)), (2.7, (8, 9, 10)), (4, (5, 12, 12)), (4, (1, 16, 16))),
    ],
)
def test_every_position_is_equally_likely(rng, side, shape):
    """Each with the fraction asked for, also beside the border and where cells are cut."""
    n_patches, fraction = 4000, side ** -len(shape)
    mask = stratified((n_patches, *shape), fraction, rng)
    assert (mask.shape, mask.dtype) == ((n_patches, *shape), torch.bool)
    often = mask.float().mean(dim=0)
    sigma = (fraction * (1 - fraction) / n_patches) ** 0.5
    few = 5 * sigma / often.numel() ** 0.5
    assert often.mean().item() == pytest.approx(fraction, abs=few)
    assert (often - fraction).abs().max().item() <= 5 * sigma


@pytest.mark.parametrize(
    "shape, fraction",
    [
        *(((200, 64, 64), fraction) for fraction in (0.25, 0.05, 0.0198, 1 / 64, 0.005)),
        *(((20, 16, 40, 40), fraction) for fraction in (0.1, 0.03, 0.01)),
    ],
)
def test_fraction_is_the_one_asked_for(rng, shape, fraction):
    """In any number of dimensions, also where the cells have no whole sides."""
    found = stratified(shape, fraction, rng).float().mean().item()
    assert found == pytest.approx(fraction, rel=0.03)


@pytest.mark.parametrize(
    "shape, fraction",
    [
        *(((5, 32, 40), fraction) for fraction in (0.25, 0.01)),
        *(((1, 64, 64), fraction) for fraction in (0.0198, 0.002)),
        *(((64, 64), 0.05), ((16, 24, 24), 1 / 64)),
    ],
)
def test_fraction_over_many_draws(rng, shape, fraction):
    """Within the error of the mean, however thin the patches."""
    shares = stratified((2000, *shape), fraction, rng).float().flatten(1).mean(dim=1)
    error = shares.std().item() / len(shares) ** 0.5
    assert shares.mean().item() == pytest.approx(fraction, abs=4 * error)
    assert error < 0.02 * fraction


@pytest.mark.parametrize(
    "side, shape", [(4, (16, 16)), (4, (21, 10)), (8, (64, 64)), (3, (5, 12, 10)), (4, (8, 16, 9))]
)
def test_at_most_one_in_each_cell(rng, side, shape):
    """For some phase of the grid, no cell holds two, and cells within the patch hold one."""
    for mask in stratified((30, *shape), side ** -len(shape), rng).numpy():
        places = np.argwhere(mask)
        fitting = []
        for phase in np.ndindex(*[side] * len(shape)):
            cells = np.zeros([length // side + 2 for length in shape], int)
            np.add.at(cells, tuple(((places + phase) // side).T), 1)
            whole = tuple(
                slice(shift > 0, (length + shift) // side)
                for length, shift in zip(shape, phase, strict=True)
            )
            if cells.max() <= 1 and (cells[whole] == 1).all():
                fitting.append(phase)
        assert fitting


def test_patches_differ_and_seeds_repeat(rng):
    mask = stratified((8, 32, 32), 1 / 16, rng)
    assert len({patch.numpy().tobytes() for patch in mask}) == 8
    again = stratified((8, 32, 32), 1 / 16, torch.Generator().manual_seed(0))
    assert torch.equal(mask, again)


def reach_of(side, dimensions):
    """How far a neighbourhood reaches: in volumes, to the planes above and below."""
    return [1] * (dimensions - 2) + [side // 2] * 2


def window(place, reach):
    """The neighbourhood of a pixel, cut at the border."""
    along = zip(place, reach, strict=True)
    return tuple(slice(max(0, at - far), at + far + 1) for at, far in along)


@pytest.mark.parametrize(
    "shape", [(40, 40), (11, 30), (4, 7), (1, 9), (6, 11, 13), (2, 5, 7), (1, 9, 4)]
)
@pytest.mark.parametrize("side", [5, 11])
def test_uniform_is_drawn_evenly_from_the_cut_neighbourhood(rng, shape, side):
    """Every pixel in reach is drawn, the pixel itself among them, and none out of reach."""
    numbers = np.arange(np.prod(shape)).reshape(shape)
    last, half = (
        tuple(at(length) for length in shape) for at in (lambda n: n - 1, lambda n: n // 2)
    )
    for place in {(0,) * len(shape), half, last, (*(0 for _ in shape[1:]), last[-1])}:
        many = 12_000
        places = torch.full((many, 1), int(numbers[place]))
        patches = torch.from_numpy(numbers).float().expand(many, *shape)
        drawn = REPLACEMENTS["uniform"](patches, places, side, rng)[:, 0].long().numpy()
        allowed = numbers[window(place, reach_of(side, len(shape)))].ravel()
        counts = np.bincount(drawn, minlength=numbers.size)
        assert set(np.flatnonzero(counts)) == set(allowed)
        expected = many / len(allowed)
        assert np.abs(counts[allowed] - expected).max() < 5 * expected**0.5


@pytest.mark.parametrize("side, shape", [(3, (13, 17)), (5, (5, 9, 11)), (7, (1, 9, 11))])
@pytest.mark.parametrize("name", [name for name in REPLACEMENTS if name != "uniform"])
def test_replacements_come_from_pixels_that_are_not_hidden(rng, name, side, shape):
    patches = torch.randn(2, *shape, generator=rng)
    places = stratified_places(patches.shape, 1 / 6, rng)
    masks = as_mask(places, patches.shape).numpy()
    many = [REPLACEMENTS[name](patches, places, side, rng) for _ in range(120)]
    drawn = torch.stack(many).numpy()  # (draw, batch, place)
    for number, patch in enumerate(patches.numpy()):
        for column, place in list(enumerate(places[number].tolist()))[::3]:
            if place == patch.size:
                continue
            seen = window(np.unravel_index(place, shape), reach_of(side, len(shape)))
            values = patch[seen][~masks[number][seen]]
            found = drawn[:, number, column]
            if name != "gaussian":
                assert values.min() - 1e-5 <= found.min() and found.max() <= values.max() + 1e-5
            if name == "mean":
                np.testing.assert_allclose(found, values.mean(), rtol=0, atol=1e-5)
            elif name == "median":
                np.testing.assert_allclose(found, np.median(values), rtol=0, atol=1e-6)
            elif name == "uniform_without_centre":
                assert set(found) <= set(values)
                assert len(set(found)) > 0.6 * len(values)
            elif name == "gaussian":
                error = values.std() / len(found) ** 0.5
                assert abs(found.mean() - values.mean()) < 5 * error + 1e-5
                assert found.std() == pytest.approx(values.std(), rel=0.3)


def make_masked(patches, rng, fraction=1 / 16, **fields):
    """Hide pixels of patches by a masking."""
    method = Method("some", target="blind_spot", alpha=1, **fields)
    structure = struct_offsets(method.struct_mask, patches.dim() - 1)
    return mask_pixels(patches, method, fraction, structure, rng)


@pytest.mark.parametrize("struct_mask", [None, ROW, PLUS], ids=["single", "row", "plus"])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_only_masked_pixels_change(rng, name, struct_mask):
    """Struct masks lie in one plane."""
    for shape in ((33, 47), (5, 20, 31), (1, 33, 47)):
        patches = torch.randn(6, *shape, generator=rng)
        before = patches.clone()
        masked, mask = make_masked(patches, rng, masking=name, struct_mask=struct_mask)
        assert torch.equal(patches, before)
        changed = (masked != patches).numpy()
        structure = np.array([[1]] if struct_mask is None else struct_mask)
        structure = structure.reshape([1] * (patches.dim() - 2) + list(structure.shape))
        blind = scipy.ndimage.binary_dilation(mask.numpy(), structure)
        assert not changed[~blind].any()
        # One in 121 is replaced by itself in "uniform", more beside the border.
        assert changed[blind].mean() > 0.9


@pytest.mark.parametrize("shape", [(60, 64, 64), (60, 5, 32, 32)])
@pytest.mark.parametrize("struct_mask", [None, ROW, PLUS], ids=["single", "row", "plus"])
def test_fraction_counts_all_pixels_of_struct_masks(rng, struct_mask, shape):
    patches = torch.randn(shape, generator=rng)
    masked, mask = make_masked(patches, rng, masking="uniform", struct_mask=struct_mask)
    size = 1 if struct_mask is None else np.sum(struct_mask)
    assert mask.float().mean().item() == pytest.approx(1 / 16 / size, rel=0.05)
    # Masks overlap, and stand out over the border.
    share = (masked != patches).float().mean().item()
    assert 0.75 / 16 < share < 1.02 / 16


def test_overlapping_struct_masks_are_written_in_any_order(rng):
    """A GPU keeps no order: entries of the same pixel have the value of the last of them."""
    places = torch.randint(10, (3, 40), generator=rng)
    values = torch.rand(places.shape, generator=rng)
    settled = masking._last_of_each(values, places, 10)
    for row in range(3):
        last = dict(zip(places[row].tolist(), values[row].tolist(), strict=True))
        assert settled[row].tolist() == [last[place] for place in places[row].tolist()]


def test_struct_masks_have_an_offset_for_every_axis():
    flat = struct_offsets(PLUS)
    assert sorted(flat.tolist()) == [[-1, 0], [0, -1], [0, 0], [0, 1], [1, 0]]
    assert struct_offsets(PLUS, 3).tolist() == [[0, *offset] for offset in flat.tolist()]
    assert struct_offsets(None).tolist() == [[0, 0]]
    assert struct_offsets(None, 3).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_replacements_stay_in_their_own_patch(rng, name):
    for sides in [(20, 20), (5, 9, 9)]:
        numbers = torch.arange(50.0).view(-1, *[1] * len(sides))
        patches = numbers.expand(50, *sides)
        masked, _ = make_masked(patches, rng, fraction=1 / 4, masking=name)
        # The standard deviation of equal numbers is not quite zero.
        assert (masked - patches).abs().max().item() < 1e-2


def test_a_place_without_visible_neighbours_becomes_the_mean(rng):
    """In tiny patches a struct mask may hide everything; nothing undefined comes of it."""
    patches = torch.randn(2, 3, 3, generator=rng)
    for name in REPLACEMENTS:
        everything = [[1] * 5] * 5
        masked, _ = make_masked(patches, rng, 1.0 * 25, masking=name, struct_mask=everything)
        assert torch.isfinite(masked).all()
        assert name == "uniform" or not masked.any()


def blind_network(dimensions):
    torch.manual_seed(0)
    layout = Layout(dimensions, z_factors=(1,))
    return build_network("unet", depth=1, filters=2, layout=layout).train()


def gradients(patches, inputs_of, rng):
    """The gradients of a network's output at masked pixels by the true value there."""
    dimensions = patches.dim() - 1
    source = patches.clone().requires_grad_()
    inputs, mask = inputs_of(source)
    network = blind_network(dimensions)
    output = network(inputs[:, None])[:, 0]  # (batch, [z,] y, x)
    for place in map(tuple, mask.nonzero().tolist()):
        (gradient,) = torch.autograd.grad(output[place], source, retain_graph=True)
        yield place, inputs.detach(), gradient


@pytest.mark.parametrize(
    "shape, struct_mask",
    [((16, 16), None), ((16, 16), ROW), ((5, 8, 12), PLUS)],
    ids=["plane", "plane, row", "volume, plus"],
)
@pytest.mark.parametrize("name", [name for name in REPLACEMENTS if name != "uniform"])
def test_masked_pixels_do_not_reach_the_network(rng, name, struct_mask, shape):
    """The gradient by the true value is exactly zero, there and at all pixels of struct masks."""
    patches = torch.randn(2, *shape, generator=rng)
    n_masked = n_seen = 0
    for _ in range(2):
        found = gradients(
            patches,
            lambda source: make_masked(source, rng, masking=name, struct_mask=struct_mask),
            rng,
        )
        for (number, *place), _, gradient in found:
            blind = torch.tensor(place) + struct_offsets(struct_mask, len(shape))
            blind = blind[((blind >= 0) & (blind < torch.tensor(shape))).all(dim=1)]
            assert not gradient[number][tuple(blind.T)].any()
            n_masked += len(blind)
            n_seen += gradient.any().item()
    assert n_masked > 20 and n_seen > 2


@pytest.mark.parametrize("shape", [(16, 16), (5, 8, 8)], ids=["plane", "volume"])
def test_published_masking_lets_pixels_through(rng, shape):
    """``uniform_withCP`` draws from the pixel itself (once in 121) and other hidden ones.

    With distinct values the input of the network tells where that happened; everywhere else the
    gradient is exactly zero.
    """
    patches = torch.randn(2, *shape, generator=rng)
    n_masked = n_itself = 0
    for _ in range(12):
        for place, inputs, gradient in gradients(
            patches, lambda source: make_masked(source, rng, masking="uniform"), rng
        ):
            visible = (inputs == patches[place]).any().item()
            if not visible:
                assert gradient[place].item() == 0
                n_masked += 1
            elif inputs[place] == patches[place]:
                n_itself += gradient[place].item() != 0
    # Both cases have been seen, so that neither of the two statements is empty.
    assert n_masked > 100
    assert n_itself > 0


# --- grids ----------------------------------------------------------------------------------------


def where(*shape, corner=None):
    """Positions of the pixels of one patch in its image."""
    starts = corner or [0] * len(shape)
    ramps = [torch.arange(start, start + n) for start, n in zip(starts, shape, strict=True)]
    return torch.stack(torch.meshgrid(*ramps, indexing="ij"))[None]


@pytest.mark.parametrize("grid", [2, 3, 4, 5])
def test_subsets_of_a_grid_part_the_image(grid):
    masks = [grid_mask(where(11, 13), grid, torch.tensor([n])) for n in range(grid**2)]
    assert torch.equal(sum(mask.int() for mask in masks), torch.ones(1, 11, 13, dtype=torch.int32))
    # A patch of the image has the same subsets, wherever it was cut.
    part = grid_mask(where(5, 6, corner=(3, 4)), grid, torch.tensor([1]))
    assert torch.equal(part, masks[1][:, 3:8, 4:10])


@pytest.mark.parametrize("grid", [2, 3, 4, 5])
def test_subsets_of_a_grid_part_the_volume(grid):
    """In every plane they are those of an image, shifted so that none lies above another."""
    masks = [grid_mask(where(6, 11, 13), grid, torch.tensor([n])) for n in range(grid**2)]
    assert torch.equal(sum(mask.int() for mask in masks), torch.ones(1, 6, 11, 13).int())
    part = grid_mask(where(3, 5, 6, corner=(2, 3, 4)), grid, torch.tensor([1]))
    assert torch.equal(part, masks[1][:, 2:5, 3:8, 4:10])
    planes = {plane.numpy().tobytes() for mask in masks for plane in mask[0]}
    flat = [grid_mask(where(11, 13), grid, torch.tensor([n])) for n in range(grid**2)]
    assert planes == {mask.numpy().tobytes() for mask in flat}
    assert not any((mask[:, 1:] & mask[:, :-1]).any() for mask in masks)


RING = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]])
ABOVE = np.array([[0, 0, 0], [0, 2, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    "shape, ring",
    [
        ((11, 13), RING),
        ((6, 11, 13), np.stack([ABOVE, RING, ABOVE])),
        ((2, 5, 7), np.stack([ABOVE, RING, ABOVE])),
        ((1, 11, 13), RING[None]),  # there is nothing above and below
        ((9, 1), RING),
        ((1, 1), RING),
    ],
)
def test_interpolation_is_the_mean_of_the_ring(rng, shape, ring):
    patches = torch.randn(1, *shape, generator=rng)
    mask = grid_mask(where(*shape), 3, torch.tensor([4]))
    shown = (~mask[0]).numpy().astype(float)
    sums, weights = (
        scipy.ndimage.convolve(values, ring, mode="constant")
        for values in (shown * patches[0].numpy(), shown)
    )
    means = sums / np.maximum(weights, 1)
    expected = np.where(mask[0], means, patches[0])
    assert np.allclose(fill_grid(patches, mask, "grid_interpolate")[0], expected, atol=1e-6)
    zeroed = fill_grid(patches, mask, "grid_zero")
    assert torch.equal(zeroed, torch.where(mask, 0, patches))


@pytest.mark.parametrize("name", ["grid_interpolate", "grid_zero"])
@pytest.mark.parametrize(
    "grid, shape", [(2, (8, 12)), (5, (8, 12)), (3, (5, 8, 12)), (4, (2, 6, 6)), (4, (1, 8, 12))]
)
def test_none_of_a_grid_reaches_any_output(rng, name, grid, shape):
    """Of all outputs at once, each with a random weight."""
    patches = torch.randn(1, *shape, generator=rng)
    network = blind_network(len(shape))
    for subset in range(grid**2):
        mask = grid_mask(where(*shape), grid, torch.tensor([subset]))
        source = patches.clone().requires_grad_()
        output = network(fill_grid(source, mask, name)[:, None])
        (output * torch.randn(output.shape, generator=rng)).sum().backward()
        assert not source.grad[mask].any()
        assert (source.grad[~mask] != 0).float().mean() > 0.5


def test_every_masking_of_the_schema_exists(schema):
    names = schema["$defs"]["method"]["properties"]["masking"]["enum"]
    assert {name for name in names if not name.startswith("grid_")} == set(masking.REPLACEMENTS)
