"""Blind spots: choose the pixels that are masked in the input of the network, and replace them.

Masked pixels are stored as *places*: flat indices into a patch, the same number for each patch of a
batch; an index equal to the number of pixels means "none". A list of variable length would
force the host to wait for the GPU at every step.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layers import convolve


def mask_pixels(
    patches: torch.Tensor,
    method: Method,
    fraction: float,
    structure: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask pixels like Noise2Void and its successors (all maskings except grids).

    Parameters
    ----------
    patches
        (batch, y, x) or (batch, z, y, x), float.
    fraction
        Fraction of masked pixels, including those of struct masks.
    structure
        From :func:`struct_offsets`, on the device of the patches.

    Returns
    -------
    The patches with masked pixels replaced, and a boolean mask of the same shape of the pixels in
    the loss: only the centre of each struct mask (structN2V, Broaddus et al. 2020).
    """
    places = stratified_places(tuple(patches.shape), fraction / len(structure), generator)
    masked = _shifted(places, structure, patches.shape[1:]).flatten(1)
    replace = REPLACEMENTS[method.masking]
    values = replace(patches, masked, method.neighbourhood, generator)
    flat = functional.pad(patches.flatten(1), (0, 1))
    if len(structure) > 1:
        values = _last_of_each(values, masked, flat.shape[1])
    flat = flat.scatter(1, masked, values)
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
        Fraction of pixels to choose, in any number of dimensions. Cells have a volume of
        ``1 / fraction`` on average; if a side is not an integer, some cells are one pixel longer
        than others. With a random phase for each patch, every position is chosen equally often,
        also near the border, which truncates cells.

    Returns
    -------
    (batch, cells), int64: the places; cells whose pixel lies outside the patch have none.
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
    """Give all entries of the same place the value of the last one: (batch, places), below size.

    Struct masks may overlap. A GPU would write an arbitrary one of several values for a pixel,
    which would make trainings irreproducible.
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

    In volumes they lie in one plane, because noise is correlated along the lines read by a camera
    or scanner.
    """
    mask = torch.tensor([[1]] if struct_mask is None else struct_mask)
    offsets = mask.nonzero() - torch.tensor(mask.shape) // 2
    return functional.pad(offsets, (dimensions - 2, 0))


def _shifted(places: torch.Tensor, offsets: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return (batch, places, offsets): places shifted by offsets; none outside the patch."""
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
    """Return the values around each place, (batch, places, neighbours), and which are usable.

    Masked neighbours are not, because their true values would reach the network as replacements.
    """
    sizes = patches.shape[1:]
    reaches = [
        torch.arange(-reach, reach + 1, device=places.device) for reach in _reach(side, len(sizes))
    ]
    offsets = torch.cartesian_prod(*reaches)
    around = _shifted(places, offsets, sizes)
    values = functional.pad(patches.flatten(1), (0, 1))
    # One additional element for places outside the patch.
    usable = functional.pad(~as_mask(places, patches.shape).flatten(1), (0, 1))
    flat = around.flatten(1)
    return values.gather(1, flat).view(around.shape), usable.gather(1, flat).view(around.shape)


def _reach(side: int, dimensions: int) -> list[int]:
    """Return the radius of a neighbourhood along each axis; along z, one z-slice.

    Z-slices are usually farther apart than pixels, and a cube would contain hundreds of voxels
    unrelated to its centre.
    """
    return [1] * (dimensions - 2) + [side // 2] * 2


def _uniform(
    patches: torch.Tensor, places: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """Return random pixels of the neighbourhoods, cropped at the patch border (Krull et al. 2019).

    As published (``uniform_withCP`` of the n2v package), a neighbourhood includes the pixel itself
    and other masked pixels, so one in ``side**2`` masked pixels keeps its value.
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
    """Return random pixels of the neighbourhoods that are not masked."""
    values, usable = _neighbours(patches, places, side)
    lot = torch.rand(values.shape, generator=generator, device=values.device) * usable
    chosen = lot.argmax(dim=-1, keepdim=True)
    return torch.where(usable, values, 0).gather(-1, chosen).squeeze(-1)


def _mean(
    patches: torch.Tensor, places: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """Return the means over the pixels of the neighbourhoods that are not masked."""
    values, usable = _neighbours(patches, places, side)
    return torch.where(usable, values, 0).sum(dim=-1) / usable.sum(dim=-1).clamp(min=1)


def _median(
    patches: torch.Tensor, places: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """Return the medians over the pixels of the neighbourhoods that are not masked (N2V2)."""
    values, usable = _neighbours(patches, places, side)
    ordered = torch.where(usable, values, math.inf).sort(dim=-1).values
    count = usable.sum(dim=-1, keepdim=True).clamp(min=1)
    middle = (ordered.gather(-1, (count - 1) // 2) + ordered.gather(-1, count // 2)) / 2
    return torch.where(usable.any(dim=-1), middle.squeeze(-1), 0)


def _gaussian(
    patches: torch.Tensor, places: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw from normal distributions fitted to the pixels that are not masked."""
    values, usable = _neighbours(patches, places, side)
    count = usable.sum(dim=-1).clamp(min=1)
    values = torch.where(usable, values, 0)
    mean = values.sum(dim=-1) / count
    variance = (values.square().sum(dim=-1) / count - mean.square()).clamp(min=0)
    draw = torch.randn(places.shape, generator=generator, device=places.device)
    return mean + variance.sqrt() * draw


Replacement = Callable[[torch.Tensor, torch.Tensor, int, torch.Generator], torch.Tensor]

# Functions that return the replacements of masked pixels, (batch, places), given patches
# (batch, ...), places (batch, places) and the side of the neighbourhood. Without a usable
# neighbour the value is 0, the mean of the patches.
REPLACEMENTS: dict[str, Replacement] = {
    "uniform": _uniform,
    "uniform_without_centre": _uniform_without_centre,
    "mean": _mean,
    "median": _median,
    "gaussian": _gaussian,
}


def grid_mask(place: torch.Tensor, grid: int, subset: torch.Tensor) -> torch.Tensor:
    """Return a mask of the pixels in one subset of the grid partition (Noise2Self).

    In volumes, the grid is shifted from z-slice to z-slice, which leaves the pixels above and below
    a masked one unmasked.

    Parameters
    ----------
    place
        (batch, axis, [z,] y, x), int64: position of each pixel in its image.
    grid
        Distance of the pixels of a subset; there are ``grid**2`` subsets.
    subset
        (batch,), int64: number of the subset for each patch.
    """
    *above, y, x = place.unbind(dim=1)
    for z in above:
        y, x = y + z, x + 2 * z
    return (y % grid) * grid + x % grid == subset.view(-1, *[1] * (y.dim() - 1))


def last_subset(grid: int, count: int, device: torch.device | None = None) -> torch.Tensor:
    """Return (count,), the subset that training on a single image reserves for validation."""
    return torch.full((count,), grid**2 - 1, device=device)


def fill_grid(patches: torch.Tensor, mask: torch.Tensor, masking: str) -> torch.Tensor:
    """Return patches (batch, [z,] y, x) with masked pixels interpolated, or set to 0.

    A pixel is interpolated from its eight neighbours, direct ones with twice the weight (as in the
    code of Noise2Self), and in volumes also from those right above and below it; 0 without any
    neighbour. Masked pixels and pixels beyond the border do not count, because in images one pixel
    wide, padding by reflection would copy the masked pixel itself.
    """
    if masking == "grid_zero":
        return torch.where(mask, 0, patches)
    dimensions = patches.dim() - 1
    ring = patches.new_full((1, 1, 3, 3), 1.0)
    # In-place fills: assigning a number would synchronise host and GPU at every step.
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
