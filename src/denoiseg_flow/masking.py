"""Blind spots: which pixels are hidden from the network, and what stands in their place."""

from collections.abc import Callable

import torch

# Side of the square that a replacement pixel is drawn from (DenoiSeg and the n2v package).
NEIGHBOURHOOD = 11


def stratified_mask(
    shape: tuple[int, int, int], fraction: float, generator: torch.Generator
) -> torch.Tensor:
    """Choose one pixel in every cell of a regular grid (Noise2Void, Krull et al. 2019).

    Parameters
    ----------
    shape
        (batch, y, x) of the patches.
    fraction
        Wanted fraction of masked pixels. Cells are squares of ``1 / fraction`` pixels, to the
        nearest whole side; a random phase per patch lets every position be masked, also beside
        the patch border, where cells are cut.

    Returns
    -------
    Boolean tensor of the given shape.
    """
    batch, height, width = shape
    device = generator.device
    side = max(1, round(fraction**-0.5))
    rows, columns = -(-height // side) + 1, -(-width // side) + 1

    def draw(count: int, size: tuple[int, ...]) -> torch.Tensor:
        return torch.randint(count, size, generator=generator, device=device)

    phase_y, phase_x = draw(side, (batch, 1, 1)), draw(side, (batch, 1, 1))
    y = torch.arange(rows, device=device)[:, None] * side - phase_y  # (batch, rows, 1)
    x = torch.arange(columns, device=device) * side - phase_x  # (batch, 1, columns)
    y = y + draw(side, (batch, rows, columns))
    x = x + draw(side, (batch, rows, columns))
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    # Pixels outside the patch are written to an extra element that is cut off again.
    flat = torch.where(inside, y * width + x, height * width).flatten(1)
    mask = torch.zeros(batch, height * width + 1, dtype=torch.bool, device=device)
    mask.scatter_(1, flat, True)
    return mask[:, :-1].unflatten(1, (height, width))


def replace_uniform(
    patches: torch.Tensor, mask: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Replace every masked pixel by a random pixel of its neighbourhood (Krull et al. 2019).

    The neighbourhood is cut at the patch border, and holds the pixel itself, as in the reference
    implementation (``uniform_withCP``). A replacement is drawn for every pixel and used where the
    mask says so: a list of the masked ones would have a length that only a GPU knows, and asking
    for it would stop the host at every step.

    Parameters
    ----------
    patches, mask
        (batch, y, x), float and boolean.
    """
    _, height, width = patches.shape
    device = patches.device

    def neighbours(size: int) -> torch.Tensor:
        """Along one axis, for every pixel of the batch: (batch, y, x), or with x and y swapped."""
        position = torch.arange(size, device=device)
        low = (position - NEIGHBOURHOOD // 2).clamp(min=0)
        count = (position + NEIGHBOURHOOD // 2).clamp(max=size - 1) - low + 1
        shape = (len(patches), height * width // size, size)
        share = torch.rand(shape, generator=generator, device=device)
        return low + torch.minimum((share * count).long(), count - 1)

    y, x = neighbours(height).mT, neighbours(width)
    source = (y * width + x).flatten(1)
    return torch.where(mask, patches.flatten(1).gather(1, source).view(patches.shape), patches)


MASKINGS: dict[str, Callable[..., torch.Tensor]] = {"uniform": replace_uniform}
