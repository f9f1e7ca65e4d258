"""Blind spots: which pixels are hidden from the network, and what stands in their place.

Hidden pixels are kept as *places*: flat indices into a patch, as many in each patch of a batch,
with the number of its pixels standing for "none". A list of the hidden pixels alone would have a
length that only a GPU knows, and asking for it would stop the host at every step.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layers import convolve


def hide(
    patches: torch.Tensor,
    method: Method,
    fraction: float,
    structure: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide pixels as Noise2Void and its successors do (all maskings but the grids).

    Parameters
    ----------
    patches
        (batch, y, x) or (batch, z, y, x), float.
    fraction
        Share of pixels that the network does not see as they are, those of struct masks included.
    structure
        From :func:`struct_offsets`, on the device of the patches.

    Returns
    -------
    The patches with replaced pixels, and the boolean mask, of the same shape, of the pixels that
    the loss looks at: of each struct mask the one in its centre (structN2V, Broaddus et al. 2020).
    """
    places = stratified_places(tuple(patches.shape), fraction / len(structure), generator)
    hidden = _shifted(places, structure, patches.shape[1:]).flatten(1)
    replace = REPLACEMENTS[method.masking]
    values = replace(patches, hidden, method.neighbourhood, generator)
    flat = functional.pad(patches.flatten(1), (0, 1))
    if len(structure) > 1:
        values = _last_of_each(values, hidden, flat.shape[1])
    flat = flat.scatter(1, hidden, values)
    return flat[:, :-1].view_as(patches), as_mask(places, patches.shape)


def stratified_places(
    shape: Sequence[int], fraction: float, generator: torch.Generator
) -> torch.Tensor:
    """Choose one pixel in every cell of a regular grid (Noise2Void, Krull et al. 2019).

    Parameters
    ----------
    shape
        (batch, y, x) or (batch, z, y, x) of the patches.
    fraction
        Wanted share of chosen pixels, in any number of dimensions. Cells have a volume of
        ``1 / fraction`` on average: where a side is no whole number, some cells are a pixel longer
        than others. A random phase for each patch lets every position be chosen equally often,
        also beside the border, where cells are cut.

    Returns
    -------
    (batch, cells), int64: the places; cells whose pixel lies outside of the patch have none.
    """
    batch, *sizes = shape
    device = generator.device
    side = fraction ** (-1 / len(sizes))
    counts = [math.ceil(size / side) + 1 for size in sizes]
    place = torch.zeros(batch, *counts, dtype=torch.int64, device=device)
    inside = torch.ones_like(place, dtype=torch.bool)
    for axis, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        phase = side * torch.rand(batch, 1, generator=generator, device=device)
        edges = (torch.arange(count + 1, device=device) * side - phase).floor().long()
        along = [batch, *(count if other == axis else 1 for other in range(len(sizes)))]
        low, length = edges[:, :-1].view(along), edges.diff(dim=1).view(along)
        share = torch.rand(place.shape, generator=generator, device=device)
        position = low + torch.minimum((share * length).long(), length - 1)
        inside &= (position >= 0) & (position < size)
        place = place * size + position
    return torch.where(inside, place, math.prod(sizes)).flatten(1)


def _last_of_each(values: torch.Tensor, places: torch.Tensor, size: int) -> torch.Tensor:
    """Give entries of the same place the value of the last of them: (batch, places), below size.

    Struct masks may overlap. Of several values for one pixel a GPU would write any one, and no
    training could be repeated.
    """
    order = torch.arange(places.shape[1], device=places.device).expand_as(places)
    last = torch.zeros(len(places), size, dtype=order.dtype, device=places.device)
    last.scatter_reduce_(1, places, order, "amax")
    return values.gather(1, last.gather(1, places))


def as_mask(places: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return the boolean mask of ``shape`` (batch, ...) that is true at ``places``."""
    mask = torch.zeros(shape[0], math.prod(shape[1:]) + 1, dtype=torch.bool, device=places.device)
    mask.scatter_(1, places, True)
    return mask[:, :-1].view(*shape)


def struct_offsets(
    struct_mask: Sequence[Sequence[int]] | None, dimensions: int = 2
) -> torch.Tensor:
    """Return the pixels of a struct mask as offsets from its centre: (pixels, axis), int64.

    In volumes they lie in one plane: noise is structured along the lines that a camera or scanner
    reads.
    """
    mask = torch.tensor([[1]] if struct_mask is None else struct_mask)
    offsets = mask.nonzero() - torch.tensor(mask.shape) // 2
    return functional.pad(offsets, (dimensions - 2, 0))


def _shifted(places: torch.Tensor, offsets: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return (batch, places, offsets): the places so far off; none where that is outside."""
    rest, shifted = places, torch.zeros_like(places)[..., None]
    inside = (places < math.prod(sizes))[..., None]
    stride = 1
    for axis in reversed(range(len(sizes))):
        position = (rest % sizes[axis])[..., None] + offsets[:, axis]
        inside = inside & (position >= 0) & (position < sizes[axis])
        shifted = shifted + position * stride
        rest, stride = rest // sizes[axis], stride * sizes[axis]
    return torch.where(inside, shifted, stride)


def _neighbours(
    patches: torch.Tensor, places: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values around each place, (batch, places, neighbours), and which may be used.

    Those that are hidden themselves may not: through them, a true value would reach the network
    in the place of another.
    """
    sizes = patches.shape[1:]
    reaches = [
        torch.arange(-reach, reach + 1, device=places.device) for reach in _reach(side, len(sizes))
    ]
    offsets = torch.cartesian_prod(*reaches)
    around = _shifted(places, offsets, sizes)
    values = functional.pad(patches.flatten(1), (0, 1))
    # One more element, which stands for the places outside of the patch.
    usable = functional.pad(~as_mask(places, patches.shape).flatten(1), (0, 1))
    flat = around.flatten(1)
    return values.gather(1, flat).view(around.shape), usable.gather(1, flat).view(around.shape)


def _reach(side: int, dimensions: int) -> list[int]:
    """How far a neighbourhood reaches along each axis: in volumes, to the planes next to its own.

    Planes are farther apart than pixels, and a cube would hold hundreds of voxels that tell nothing
    of the one in its centre.
    """
    return [1] * (dimensions - 2) + [side // 2] * 2


def _uniform(
    patches: torch.Tensor, places: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """A random pixel of the neighbourhood, cut at the patch border (Krull et al. 2019).

    The neighbourhood holds the pixel itself and other hidden ones, as published
    (``uniform_withCP`` of the n2v package), so that one in ``side**2`` hidden pixels stays.
    """
    source, rest, stride = torch.zeros_like(places), places, 1
    sizes = patches.shape[1:]
    for size, reach in zip(reversed(sizes), reversed(_reach(side, len(sizes))), strict=True):
        position = rest % size
        low = (position - reach).clamp(min=0)
        count = (position + reach).clamp(max=size - 1) - low + 1
        share = torch.rand(places.shape, generator=generator, device=places.device)
        source += (low + torch.minimum((share * count).long(), count - 1)) * stride
        rest, stride = rest // size, stride * size
    return patches.flatten(1).gather(1, source)


def _uniform_without_centre(
    patches: torch.Tensor, places: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """A random pixel of the neighbourhood that is not hidden."""
    values, usable = _neighbours(patches, places, side)
    lot = torch.rand(values.shape, generator=generator, device=values.device) * usable
    chosen = lot.argmax(dim=-1, keepdim=True)
    return torch.where(usable, values, 0).gather(-1, chosen).squeeze(-1)


def _mean(
    patches: torch.Tensor, places: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """The mean of the pixels of the neighbourhood that are not hidden."""
    values, usable = _neighbours(patches, places, side)
    return torch.where(usable, values, 0).sum(dim=-1) / usable.sum(dim=-1).clamp(min=1)


def _median(
    patches: torch.Tensor, places: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """The median of the pixels of the neighbourhood that are not hidden (N2V2)."""
    values, usable = _neighbours(patches, places, side)
    ordered = torch.where(usable, values, math.inf).sort(dim=-1).values
    count = usable.sum(dim=-1, keepdim=True).clamp(min=1)
    middle = (ordered.gather(-1, (count - 1) // 2) + ordered.gather(-1, count // 2)) / 2
    return torch.where(usable.any(dim=-1), middle.squeeze(-1), 0)


def _gaussian(
    patches: torch.Tensor, places: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """A draw from the normal distribution that fits the neighbourhood (pixels not hidden)."""
    values, usable = _neighbours(patches, places, side)
    count = usable.sum(dim=-1).clamp(min=1)
    values = torch.where(usable, values, 0)
    mean = values.sum(dim=-1) / count
    variance = (values.square().sum(dim=-1) / count - mean.square()).clamp(min=0)
    draw = torch.randn(places.shape, generator=generator, device=places.device)
    return mean + variance.sqrt() * draw


Replacement = Callable[[torch.Tensor, torch.Tensor, int, torch.Generator], torch.Tensor]

# What stands at hidden pixels: patches (batch, ...), places (batch, places) and the side of the
# neighbourhood to values (batch, places). Patches have mean 0, which stands where a neighbourhood
# has no pixel to offer.
REPLACEMENTS: dict[str, Replacement] = {
    "uniform": _uniform,
    "uniform_without_centre": _uniform_without_centre,
    "mean": _mean,
    "median": _median,
    "gaussian": _gaussian,
}


def grid_mask(place: torch.Tensor, grid: int, subset: torch.Tensor) -> torch.Tensor:
    """Return which pixels belong to a subset of the grid partition (Noise2Self).

    In volumes, the grid is shifted from plane to plane, so that the pixels above and below a hidden
    one are not hidden with it.

    Parameters
    ----------
    place
        (batch, axis, [z,] y, x), int64: the position of each pixel in its image.
    grid
        Distance of the pixels of a subset; there are ``grid**2`` subsets.
    subset
        (batch,), int64: which one, of each patch.
    """
    *above, y, x = place.unbind(dim=1)
    for z in above:
        y, x = y + z, x + 2 * z
    return (y % grid) * grid + x % grid == subset.view(-1, *[1] * (y.dim() - 1))


def last_subset(grid: int, count: int, device: torch.device | None = None) -> torch.Tensor:
    """Return (count,), the number of the subset that training on a single image sets aside."""
    return torch.full((count,), grid**2 - 1, device=device)


def fill_grid(patches: torch.Tensor, mask: torch.Tensor, masking: str) -> torch.Tensor:
    """Return patches (batch, [z,] y, x) with interpolated pixels, or 0, where the mask is true.

    A pixel is interpolated from its eight neighbours, the near ones with twice the weight, as in
    Noise2Self's own code, and in volumes from those right above and below it as well; 0 where it
    has none. Neither what lies beyond the border counts nor what is hidden, as the mirrored copies
    of a pixel are in a line of single pixels.
    """
    if masking == "grid_zero":
        return torch.where(mask, 0, patches)
    dimensions = patches.dim() - 1
    ring = patches.new_full((1, 1, 3, 3), 1.0)
    # Not assigned: a number from the host would stop it at every step.
    ring[..., 1, :].fill_(2.0)
    ring[..., 1].fill_(2.0)
    ring[..., 1, 1].zero_()
    if dimensions == 3:
        above = torch.zeros_like(ring)
        above[..., 1, 1].fill_(2.0)
        ring = torch.stack([above, ring, above], dim=2)
    shown = (~mask).to(patches.dtype)
    sums, weights = (
        convolve(values[:, None], ring, padding=1)[:, 0] for values in (patches * shown, shown)
    )
    return torch.where(mask, sums / weights.clamp(min=1), patches)
