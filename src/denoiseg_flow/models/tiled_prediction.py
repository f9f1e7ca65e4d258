"""Predict images of any size with a network: tile by tile, without seams, in batches of tiles."""

import ctypes
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, islice, product
from operator import itemgetter

import numpy as np
import torch
from torch.nn import functional

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.tiles import Place, box_shape, boxes, equal_spans, within
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.devices import is_out_of_memory
from denoiseg_flow.methods.classes import DISTANCE
from denoiseg_flow.methods.masking import fill_grid, grid_mask
from denoiseg_flow.methods.networks import as_input, channels_last, split_output
from denoiseg_flow.methods.networks.resized import interpolate, means_of_blocks
from denoiseg_flow.models.model import CERTAINTY_WINDOW, TrainedModel

# Side of the kept part of a tile in 2D, in pixels. Memory grows with the tile, not with the image.
# The halo around it is computed twice, so larger tiles are more efficient.
TILE = 704
# Maximum number of voxels of a tile in 3D, including its halo, unless halos would fill most of it.
TILE_VOXELS = 5 * 2**20
# Pixels computed at once, including halos, or a single larger tile. With fewer, a GPU is idle
# between the layers of a network; more only take memory. On a CPU this holds for small images only:
# from 256x256 pixels on, its caches are better used by one image than by two.
BATCH_PIXELS = {"cuda": 2**22, "cpu": 2**16}
# By how much the logit of the weight of a size grows with its lead in certainty.
PREFERENCE = 30

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


@dataclass(frozen=True)
class PredictedTile:
    """The prediction of one box of an image.

    Attributes
    ----------
    place
        One slice for each spatial axis.
    denoised
        (channel, [z,] y, x) float32 on the scale of the input.
    j_invariant
        The same, each pixel predicted while it is masked; None for methods that mask no grid.
    maps
        (3, [z,] y, x) float32: probabilities of background, foreground and border; (4, ...) with
        the relative distance, for networks that predict it.
    """

    place: Place
    denoised: np.ndarray
    j_invariant: np.ndarray | None
    maps: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """The class probabilities (3, [z,] y, x)."""
        return self.maps[:DISTANCE]


@dataclass(frozen=True)
class _Tile:
    """A box of an image to predict, and the part of it to keep."""

    number: int  # of the image
    image: np.ndarray
    kept: Place
    computed: Place  # may end beyond the image, which is padded by reflection
    full: Place  # what the network reads at full size; all of it, unless the model is multiscale


class Transfer:
    """Copy between host and device; copies to and from a GPU are asynchronous.

    Attributes
    ----------
    device
    overlaps
        Whether host and device work in parallel.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.overlaps = device.type == "cuda"

    def empty(self, shape: Sequence[int]) -> torch.Tensor:
        """Allocate host memory, float32, from which :meth:`to_device` can copy."""
        return torch.empty(shape, pin_memory=self.overlaps)

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        """Return a copy on the device, or the values themselves if they already are there."""
        return values.to(self.device, non_blocking=True)

    def to_host(self, values: torch.Tensor) -> np.ndarray:
        """Start a copy to the host; it is complete after calling the result of :meth:`mark`."""
        return self.empty(values.shape).copy_(values, non_blocking=True).numpy()

    def mark(self) -> Callable[[], object]:
        """Return a function that waits until all work so far is done."""
        if not self.overlaps:
            return lambda: None
        event = torch.cuda.Event()
        event.record()
        return event.synchronize


@cache
def _keep_freed_memory() -> None:
    """Make glibc, if it is the C library, reuse the memory freed by one layer for the next.

    By default it returns tensors above 32 MB to the system, which clears all pages before reuse.
    This takes a third of the time of a prediction.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def tile_shape(shape: Sequence[int], halo: Sequence[int], copies: int = 1) -> tuple[int, ...]:
    """Return the shape of the kept part of the tiles of an image ([z,] y, x).

    The axes of volumes are divided into two, three, and so on, until tiles have at most
    :data:`TILE_VOXELS`. The next axis to divide is the one with the least additional computation in
    halos relative to the reduction of the tile. At least half of each side is kept.

    Parameters
    ----------
    copies
        Pixels that the network computes for each pixel of the image.
    """
    if len(shape) == 2:
        side = int(TILE / math.sqrt(copies))
        return side, side
    parts = (1,) * len(shape)
    sides = tuple(shape)  # with the halo

    def finer(axis: int) -> tuple[float, tuple[int, ...], tuple[int, ...]]:
        """Return the price of dividing an axis once more, with the new parts and sides."""
        count, reach = parts[axis] + 1, halo[axis]
        side = -(-(shape[axis] + 2 * reach * (count - 1)) // count)
        if side >= sides[axis] or side < 4 * reach:
            return math.inf, parts, sides
        shrinking = math.log(sides[axis] / side)
        growth = math.log(count * side / (parts[axis] * sides[axis]))
        parts_now = (*parts[:axis], count, *parts[axis + 1 :])
        sides_now = (*sides[:axis], side, *sides[axis + 1 :])
        return growth / shrinking, parts_now, sides_now

    while math.prod(sides) * copies > TILE_VOXELS:
        price, parts, sides = min(map(finer, range(len(shape))))
        if price == math.inf:
            break
    return tuple(
        side - 2 * reach if count > 1 else side
        for side, reach, count in zip(sides, halo, parts, strict=True)
    )


def check_tile(model: TrainedModel, side: int) -> tuple[int, ...]:
    """Return the shape of the kept part of tiles with ``side`` pixels a side.

    Raises
    ------
    InputError
        If the tile is smaller than the receptive field of the network.
    """
    halo, stride = _halo(model), model.stride
    # Halos and kept parts are rounded to multiples of the stride.
    around = [2 * -(-reach // step) * step for reach, step in zip(halo, stride, strict=True)]
    least = max(beside + step for beside, step in zip(around, stride, strict=True))
    if side < least:
        raise InputError(
            f"tile size {side} is smaller than the receptive field of method "
            f"'{model.method.name}'; set 'tile' (--tile) to at least {least}"
        )
    return tuple(
        (side - beside) // step * step for beside, step in zip(around, stride, strict=True)
    )


def _halo(model: TrainedModel) -> list[int]:
    """Return the radius of the receptive field along each axis; interpolation adds one pixel."""
    return [reach + model.method.masks_grid for reach in model.halo]


def predict_tiles(
    model: TrainedModel, image: np.ndarray, tile: Sequence[int] | None = None
) -> Iterator[PredictedTile]:
    """Predict an image tile by tile, in raster order, see :func:`predict_images`."""
    return map(itemgetter(1), predict_images(model, [image], tile))


def predict_images(
    model: TrainedModel,
    images: Iterable[np.ndarray],
    tile: Sequence[int] | None = None,
    batch: int | None = None,
) -> Iterator[tuple[int, PredictedTile]]:
    """Predict images one after the other, each tile by tile in raster order.

    Tiles have a halo as wide as the receptive field of the network, and start and end at multiples
    of its stride. Together they equal the prediction of the whole image, in every orientation, up
    to rounding in float32.

    Tiles of equal shape, of one or several images, are computed in batches. While a GPU computes
    one batch, the next is read and the results of the previous one are used.

    Parameters
    ----------
    images
        (channel, [z,] y, x) each, may be memory-mapped: only what is computed at once is read at
        a time, and images are asked for only then.
    tile
        Shape of the kept part of a tile in pixels; by default that of :func:`tile_shape`. Tiles at
        the borders of an image have no outer halo and keep more instead.
    batch
        Number of tiles computed at once; by default as many as have :data:`BATCH_PIXELS`.

    Yields
    ------
    The number of the image, from 0, and the result for one tile.
    """
    transfer = Transfer(next(model.network.parameters()).device)
    if not transfer.overlaps:
        _keep_freed_memory()
    under_way: deque[_Results] = deque()
    pixels = BATCH_PIXELS["cuda" if transfer.overlaps else "cpu"] // model.layout.copies
    for tiles in _batches(_cut(model, images, tile), batch, pixels):
        under_way.extend(_compute(model, tiles, transfer))
        while len(under_way) > transfer.overlaps:
            yield from under_way.popleft()
    while under_way:
        yield from under_way.popleft()


def _cut(
    model: TrainedModel, images: Iterable[np.ndarray], tile: Sequence[int] | None
) -> Iterator[_Tile]:
    halo, stride = _halo(model), model.stride
    for number, image in enumerate(images):
        shape = image.shape[1:]
        kept = tile or tile_shape(shape, halo, model.layout.copies)
        for place in boxes(shape, kept, halo, stride, equal_spans):
            yield _Tile(number, image, *place, _at_full_size(model, *place))


def _at_full_size(model: TrainedModel, kept: Place, computed: Place) -> Place:
    """Return which part of a tile is read at full size: the halo of half size is twice as wide."""
    if not model.multiscale or model.recipe.test_time_augmentation:
        return computed
    spans = []
    for inner, outer, reach, step in zip(
        kept, computed, model.network.halo, model.stride, strict=True
    ):
        around = reach + CERTAINTY_WINDOW // 2
        start = (inner.start - around) // step * step
        stop = -(-(inner.stop + around) // step) * step
        spans.append(slice(max(start, outer.start), min(stop, outer.stop)))
    return tuple(spans)


def _batches(tiles: Iterable[_Tile], batch: int | None, pixels: int) -> Iterator[list[_Tile]]:
    """Yield batches of consecutive tiles with the same shape, by number or by their pixels."""
    shapes = groupby(
        tiles, lambda tile: (box_shape(tile.computed), within(tile.full, tile.computed))
    )
    for (shape, _), alike in shapes:
        while together := list(islice(alike, batch or max(pixels // math.prod(shape), 1))):
            yield together


class _Results:
    """The results of some tiles, possibly still being copied from the device.

    Parameters
    ----------
    found
        Results by attribute of :class:`PredictedTile`, each (tile, ...).
    """

    def __init__(
        self, tiles: Sequence[_Tile], found: Mapping[str, torch.Tensor], transfer: Transfer
    ) -> None:
        self._tiles = tiles
        self._found = {kind: transfer.to_host(values) for kind, values in found.items()}
        self._wait = transfer.mark()

    def __iter__(self) -> Iterator[tuple[int, PredictedTile]]:
        self._wait()
        for row, tile in enumerate(self._tiles):
            inside = within(tile.kept, tile.full)
            kept = {kind: values[row][..., *inside] for kind, values in self._found.items()}
            yield (
                tile.number,
                PredictedTile(tile.kept, kept["denoised"], kept.get("j_invariant"), kept["maps"]),
            )


def _compute(model: TrainedModel, tiles: list[_Tile], transfer: Transfer) -> list[_Results]:
    """Compute tiles of one shape; if the device has too little memory, compute them in halves."""
    try:
        return [_compute_at_once(model, tiles, transfer)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error, transfer.device):
            raise
        if len(tiles) == 1:
            size = "x".join(map(str, box_shape(tiles[0].computed)))
            raise InputError(
                f"{transfer.device} has too little free memory for a tile of {size} pixels; lower "
                "'tile' (--tile), or run fewer jobs at once"
            ) from error
    half = len(tiles) // 2
    return [*_compute(model, tiles[:half], transfer), *_compute(model, tiles[half:], transfer)]


# Nothing in this function waits for the device.
@torch.inference_mode()
def _compute_at_once(model: TrainedModel, tiles: Sequence[_Tile], transfer: Transfer) -> _Results:
    first = tiles[0]
    x = transfer.empty((len(tiles), first.image.shape[0], *box_shape(first.computed)))
    for target, tile in zip(x.numpy(), tiles, strict=True):
        _read(tile, target)
    mean, std = map(transfer.to_device, model.normalisation.scale(model.layout.dimensions))
    x = transfer.to_device(x).sub_(mean).div_(std)
    full = within(first.full, first.computed)
    denoised, maps = apply_network(model, _predictor(model), x, full)
    found = {"denoised": denoised, "maps": maps}
    if model.method.masks_grid:
        places = [transfer.to_device(_places(tile)) for tile in tiles]
        found["j_invariant"] = _cropped(_apply_j_invariant(model, x, torch.stack(places)), full)
    for kind in found.keys() - {"maps"}:
        found[kind] = found[kind] * std + mean
    return _Results(tiles, found, transfer)


def _read(tile: _Tile, target: np.ndarray) -> None:
    """Read (channel, [z,] y, x) of a tile, mirrored beyond the end of the image."""
    sizes = tile.image.shape[1:]
    spans = [
        (along.start, min(along.stop, size), max(along.stop - size, 0))
        for along, size in zip(tile.computed, sizes, strict=True)
    ]
    found = tile.image[:, *(slice(start, stop) for start, stop, _ in spans)]
    if any(missing for *_, missing in spans):
        found = np.pad(found, [(0, 0), *((0, missing) for *_, missing in spans)], mode="reflect")
    target[...] = found
    release(tile.image)


def _places(tile: _Tile) -> torch.Tensor:
    """Return the position in the image of each pixel of a tile: (axis, [z,] y, x).

    It allows masking the reflected copies of a pixel beyond the border together with the pixel.
    """
    sizes = tile.image.shape[1:]
    along = [
        torch.from_numpy(np.pad(np.arange(size), (0, max(box.stop - size, 0)), mode="reflect")[box])
        for box, size in zip(tile.computed, sizes, strict=True)
    ]
    return torch.stack(torch.meshgrid(*along, indexing="ij"))


def _predictor(model: TrainedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    predictor = model.predictor
    return lambda x: predictor(channels_last(x))


def apply_network(
    model: TrainedModel,
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    full: Place = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply the network of a model to normalised images (batch, channel, [z,] y, x).

    With test-time augmentation in the recipe, results are means over eight orientations. If it is
    multiscale, the network also segments the image at half its size, and maps are weighted means,
    mostly of the size at which the network is more certain nearby: large objects fall apart at full
    size, and there is less noise at half of it.

    Parameters
    ----------
    full
        The part of the images to predict, all by default; a multiscale model needs more around it
        at half the size than at full size. Not with test-time augmentation.

    Returns
    -------
    The denoised images, of the same shape, and the maps of segmentation (batch, 3 or 4, [z,] y, x):
    class probabilities, and the relative distance if the network predicts it.
    """
    if not model.recipe.test_time_augmentation:
        return _run_at_sizes(model, network, x, full)
    denoised: list[torch.Tensor] = []
    maps: list[torch.Tensor] = []
    for mirrored, turns in product((False, True), range(4)):
        view = torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))
        results = _run_at_sizes(model, network, view)
        for values, found in zip(results, (denoised, maps), strict=True):
            turned = torch.rot90(values, -turns, (-2, -1))
            found.append(turned.flip(-1) if mirrored else turned)
    return torch.stack(denoised).mean(dim=0), torch.stack(maps).mean(dim=0)


def _run_at_sizes(
    model: TrainedModel,
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    full: Place = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the network makes of images in one orientation, as :func:`apply_network`."""
    denoised, maps = _run(model, network, _cropped(x, full))
    if not model.multiscale:
        return denoised, maps
    _, smaller = _run(model, network, means_of_blocks(x, model.halving))
    of_half = _cropped(interpolate(smaller, model.halving), full)
    weight = torch.sigmoid(PREFERENCE * (_certainty(maps) - _certainty(of_half)))
    return denoised, torch.lerp(of_half, maps, weight)


def _cropped(values: torch.Tensor, place: Place) -> torch.Tensor:
    """Return a box of (..., [z,] y, x); the whole for an empty one."""
    for axis, along in zip(range(-len(place), 0), place, strict=True):
        values = values.narrow(axis, along.start, along.stop - along.start)
    return values


def _certainty(maps: torch.Tensor) -> torch.Tensor:
    """Return how certain the classes near each pixel are, from 0 to 1: (batch, 1, [z,] y, x).

    That is 1 minus the mean entropy relative to that of equal probabilities.
    """
    classes = maps[:, :DISTANCE]
    certain = 1 + torch.xlogy(classes, classes).sum(dim=1, keepdim=True) / math.log(DISTANCE)
    planes = certain.reshape(-1, 1, *certain.shape[-2:])
    reach = CERTAINTY_WINDOW // 2
    for side, beside in (((CERTAINTY_WINDOW, 1), (reach, 0)), ((1, CERTAINTY_WINDOW), (0, reach))):
        planes = functional.avg_pool2d(
            planes, side, stride=1, padding=beside, count_include_pad=False
        )
    return planes.view(certain.shape)


def _run(
    model: TrainedModel,
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    masked: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the network makes of images with masked pixels, as :func:`apply_network`."""
    output = network(as_input(x, masked, model.method.mask_channel))
    denoised, maps = split_output(output, model.layout.channels)
    probabilities = maps[:, :DISTANCE].softmax(dim=1)
    if model.n_maps == DISTANCE:
        return denoised, probabilities
    return denoised, torch.cat([probabilities, maps[:, DISTANCE:]], dim=1)


def _apply_j_invariant(model: TrainedModel, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return denoised images (batch, channel, ...), predicted one subset of the grid at a time.

    ``place`` (batch, axis, ...) is the position of each pixel, see :func:`_places`.
    """
    method, network = model.method, _predictor(model)
    denoised = torch.empty_like(x)
    n_subsets, channels = method.grid**2, model.layout.channels
    # Like in training, a pixel masked in one channel is visible in the others.
    apart = torch.arange(channels, device=x.device) * n_subsets // channels
    place = place.repeat_interleave(channels, dim=0)
    for subset in range(n_subsets):
        subsets = ((subset + apart) % n_subsets).repeat(len(x))
        mask = grid_mask(place, method.grid, subsets).view(x.shape)
        filled = fill_grid(x.flatten(0, 1), mask.flatten(0, 1), method.masking).view(x.shape)
        denoised = torch.where(mask, _run(model, network, filled, mask)[0], denoised)
    return denoised
