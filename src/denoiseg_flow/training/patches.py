"""Training patches: random crops of images of any size, cropped on the training device."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from denoiseg_flow.data.files.memory_maps import release, temporary_map
from denoiseg_flow.data.files.tiles import pieces
from denoiseg_flow.data.store import centre_crop
from denoiseg_flow.methods.classes import IGNORE
from denoiseg_flow.models.normalisation import Normalisation

# More training data than this are stored in a temporary file (TMPDIR) instead of memory.
RESIDENT_BYTES = 2 * 2**30

# Pixels processed at once to measure mean and standard deviation: few enough to stay in the CPU
# cache in double precision.
CHUNK = 2**18

PIECE = 2**24  # pixels read at once


class Batch(NamedTuple):
    """Patches of images."""

    patches: torch.Tensor
    """(batch, channel, [z,] y, x), float32, normalised."""
    classes: torch.Tensor | None
    """(batch, [z,] y, x), int64, or None if no image is annotated."""
    targets: torch.Tensor | None
    """Targets of denoising, like patches; None: the patches themselves."""
    place: torch.Tensor
    """(batch, axis, [z,] y, x), int64: position of each pixel in its image."""
    simulated: torch.Tensor | None = None
    """(batch,), bool: patches of simulated images, or None if the bank has none."""
    distances: torch.Tensor | None = None
    """(batch, [z,] y, x), float32, see :func:`classes.relative_distance`; None: not needed."""

    def part(self, place: slice) -> "Batch":
        """Return some of the patches."""
        return Batch(
            self.patches[place],
            None if self.classes is None else self.classes[place],
            None if self.targets is None else self.targets[place],
            self.place[place],
            None if self.simulated is None else self.simulated[place],
            None if self.distances is None else self.distances[place],
        )


@dataclass
class ImageBank:
    """Images of different sizes in one flat buffer, which allows cropping a batch by one gather.

    Attributes
    ----------
    pixels
        (channel, pixels of all images), float32.
    classes
        (pixels of all images,), int8 codes of :mod:`denoiseg_flow.methods.classes`, ``IGNORE`` in
        images without a mask; or None if no image is annotated.
    targets
        Targets of denoising, like pixels, or None. Those of one image follow each other.
    offsets
        (image,), int64: start of each image.
    sizes
        (image, axis), int64: shape ([z,] y, x) of each image.
    annotated
        (image,), bool.
    n_simulated
        Number of images, the last ones, that are simulated.
    distances
        (pixels of all images,), float16, see :func:`classes.relative_distance`; 0 in images without
        a mask. None: not needed.
    exchangeable
        Whether training also learns the image from its targets, and these from each other: all are
        noisy acquisitions.
    n_targets
        (image,), int64: number of targets; None if there is one for each image.
    """

    pixels: torch.Tensor
    classes: torch.Tensor | None
    targets: torch.Tensor | None
    offsets: torch.Tensor
    sizes: torch.Tensor
    annotated: torch.Tensor
    n_simulated: int = 0
    distances: torch.Tensor | None = None
    exchangeable: bool = False
    n_targets: torch.Tensor | None = None

    @classmethod
    def load(
        cls,
        images: Iterable[np.ndarray],
        classes: Iterable[Iterable[torch.Tensor] | None],
        shapes: Sequence[tuple[int, ...]],
        device: torch.device,
        targets: Iterable[np.ndarray] | None = None,
        channels: int = 1,
        n_simulated: int = 0,
        distances: Iterable[np.ndarray | None] | None = None,
        exchangeable: bool = False,
        n_targets: Sequence[int] | None = None,
    ) -> "ImageBank":
        """Copy the images piece by piece to the device.

        Parameters
        ----------
        images
            Arrays (channel, [z,] y, x) of any real pixel type, which may be memory-mapped.
        classes
            Class codes of each image, in consecutive parts, or None if it is not annotated.
        shapes
            Shape ([z,] y, x) of each image.
        targets
            Targets of denoising for each image (target * channel, [z,] y, x), if needed.
        channels
            Number of channels of the images.
        n_simulated
            Number of images, the last ones, that are simulated.
        distances
            Relative distances of each image, or None if it is not annotated; if needed.
        exchangeable
            Whether training also learns the image from its targets.
        n_targets
            Number of targets of each image; None: one.
        """
        counts = [math.prod(shape) for shape in shapes]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        pixels = _fill(images, offsets, channels, device)
        codes = _allocate(int(offsets[-1]), torch.int8, device).fill_(IGNORE)
        annotated = torch.zeros(len(shapes), dtype=torch.bool)
        starts = offsets[:-1].tolist()
        several = None if n_targets is None or set(n_targets) == {1} else np.array(n_targets)
        ends = offsets if several is None else np.concatenate([[0], np.cumsum(several * counts)])
        for index, (annotation, place) in enumerate(zip(classes, starts, strict=True)):
            if annotation is None:
                continue
            for part in annotation:
                codes[place : place + part.numel()] = part.ravel()
                place += part.numel()
            annotated[index] = True
        return cls(
            pixels=pixels,
            classes=codes if annotated.any() else None,
            targets=None if targets is None else _fill(targets, ends, channels, device),
            offsets=torch.from_numpy(offsets[:-1]).to(device),
            sizes=torch.tensor(np.array(shapes)).to(device),
            annotated=annotated.to(device),
            n_simulated=n_simulated,
            distances=None if distances is None else _fill_known(distances, starts, codes),
            exchangeable=exchangeable,
            n_targets=None if several is None else torch.from_numpy(several).to(device),
        )

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return len(self.pixels)

    @property
    def n_annotated(self) -> int:
        """Number of annotated images that are not simulated."""
        return int(self.annotated.sum()) - self.n_simulated

    def centre(self, number: int, side: int) -> torch.Tensor:
        """Return the centre (channel, [z,] y, x) of an image, up to ``side`` pixels in y and x."""
        shape, start = self.sizes[number].tolist(), int(self.offsets[number])
        pixels = self.pixels[:, start : start + math.prod(shape)]
        return centre_crop(pixels.view(self.channels, *shape), side)

    def is_simulated(self, index: torch.Tensor) -> torch.Tensor:
        """Return which of the images with these numbers are simulated, bool."""
        return index >= len(self.sizes) - self.n_simulated

    @property
    def _real_pixels(self) -> int:
        """Number of pixels of images that are not simulated."""
        first = len(self.sizes) - self.n_simulated
        return int(self.offsets[first]) if self.n_simulated else self.pixels.shape[1]

    def measure(self) -> Normalisation:
        """Return mean and standard deviation of each channel over all pixels of real images."""
        real = self.pixels[:, : self._real_pixels]
        return Normalisation.of_channels([_mean_and_deviation(values) for values in real])

    def measure_range(self) -> Normalisation:
        """Return the normalisation that maps targets (or pixels without targets) to [0, 1]."""
        ranges = (torch.aminmax(values) for values in self._wanted)
        return Normalisation.of_channels(
            [(float(low), float(high - low) or 1.0) for low, high in ranges]
        )

    def mean_target(self) -> float:
        """Return the mean of the targets, or of the pixels without targets."""
        return float(self._wanted.mean(dtype=torch.float64))

    @property
    def _wanted(self) -> torch.Tensor:
        return self.pixels if self.targets is None else self.targets

    def normalise(self, real: Normalisation, simulated: Normalisation | None = None) -> None:
        """Normalise all pixels and targets in place; simulated images by their own."""
        for values in (self.pixels, self.targets):
            if values is not None:
                # Simulated images come last, with one target each.
                n_real = values.shape[1] - (self.pixels.shape[1] - self._real_pixels)
                _normalise(values[:, :n_real], real)
                _normalise(values[:, n_real:], simulated or real)

    def gather(
        self,
        index: torch.Tensor,
        place: torch.Tensor,
        acquisitions: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> Batch:
        """Return the pixels at the given positions.

        Parameters
        ----------
        index
            (batch,), numbers of the images.
        place
            (batch, axis, [z,] y, x), positions in these images.
        acquisitions
            (batch,) each: what the patches and their targets show, 0 for the image and 1, 2, ...
            for its targets. None: the image, and its first target.
        """
        patch_axes = [1] * (place.dim() - 2)
        flat = torch.zeros_like(place[:, 0])
        for axis in range(place.shape[1]):
            flat = flat * self.sizes[index, axis].view(-1, *patch_axes) + place[:, axis]
        flat += self.offsets[index].view(-1, *patch_axes)
        if acquisitions is None:
            patches = _take(self.pixels, flat)
            targets = None if self.targets is None else self._take_target(index, flat)
        else:
            patches, targets = (self._take(index, flat, number) for number in acquisitions)
        classes = None if self.classes is None else self.classes[flat].long()
        simulated = self.is_simulated(index) if self.n_simulated else None
        distances = None if self.distances is None else self.distances[flat].float()
        return Batch(patches, classes, targets, place, simulated, distances)

    def _take(self, index: torch.Tensor, flat: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        """Return the pixels of images (``number`` 0) or of their targets (1, 2, ...)."""
        images = _take(self.pixels, flat)
        targets = self._take_target(index, flat, (number - 1).clamp(min=0))
        return torch.where((number > 0).view(-1, *[1] * (images.dim() - 1)), targets, images)

    def _take_target(
        self, index: torch.Tensor, flat: torch.Tensor, number: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the pixels of the targets with these numbers, from 0; None: of the first ones."""
        assert self.targets is not None
        if self.n_targets is not None:
            volumes = self.sizes.prod(dim=1)
            before = ((self.n_targets - 1) * volumes).cumsum(0) - (self.n_targets - 1) * volumes
            further = before[index] + (0 if number is None else number * volumes[index])
            flat = flat + further.view(-1, *[1] * (flat.dim() - 1))
        return _take(self.targets, flat)


def _take(values: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """Return (batch, channel, ...): the values of each channel at the places (batch, ...)."""
    return values[:, flat].transpose(0, 1)


def _mean_and_deviation(values: torch.Tensor) -> tuple[float, float]:
    """Return mean and standard deviation in any intensity unit; 1 if all values are equal."""
    first = float(values[0])  # sums of squares are more precise for values near 0
    total = squares = 0.0
    for part in values.split(CHUNK):
        part = part.double().sub_(first)
        total += float(part.sum())
        squares += float(part.dot(part))
    mean = total / len(values)
    return first + mean, math.sqrt(max(squares / len(values) - mean**2, 0.0)) or 1.0


def _fill_known(
    arrays: Iterable[np.ndarray | None], starts: Sequence[int], like: torch.Tensor
) -> torch.Tensor:
    """Copy the arrays that are known into one buffer of float16 as long as ``like``."""
    values = _allocate(len(like), torch.float16, like.device).zero_()
    for array, start in zip(arrays, starts, strict=True):
        if array is not None:
            values[start : start + array.size] = torch.from_numpy(array.ravel()).to(like.device)
    return values


def _normalise(pixels: torch.Tensor, normalisation: Normalisation) -> None:
    for channel, (mean, std) in zip(pixels, normalisation.channels(), strict=True):
        channel.sub_(mean).div_(std)


def _fill(
    images: Iterable[np.ndarray], offsets: np.ndarray, channels: int, device: torch.device
) -> torch.Tensor:
    """Copy images one after the other into one buffer, at their offsets.

    An image with a multiple of the channels is several images, one after the other.
    """
    total = int(offsets[-1])
    values = _allocate(channels * total, torch.float32, device).view(channels, total)
    for image, start, stop in zip(images, offsets[:-1], offsets[1:], strict=True):
        if image.size != channels * (stop - start) or len(image) % channels:
            raise ValueError(f"image of shape {image.shape} does not fit {channels} channels")
        for number, part in enumerate(image):
            channel = values[number % channels]
            begin = int(start) + number // channels * part.size
            for place in pieces(part.shape, PIECE):
                pixels = torch.from_numpy(np.ravel(part[place]).astype(np.float32))
                channel[begin : begin + len(pixels)] = pixels.to(device)
                begin += len(pixels)
                release(image)
    return values


def _allocate(count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor; on the CPU, a large one is mapped to a temporary file.

    The operating system keeps as much of this file in memory as fits.
    """
    if device.type != "cpu" or count * dtype.itemsize <= RESIDENT_BYTES:
        return torch.empty(count, dtype=dtype, device=device)
    return torch.from_numpy(temporary_map((count,), str(dtype).removeprefix("torch.")))


class PatchSampler:
    """Draw batches of augmented patches.

    Every position of every image is equally likely.

    Parameters
    ----------
    bank
        The images.
    patch_shape
        Shape ([z,] y, x) of the patches in pixels, square in y and x.
    batch_size
        Number of patches in a batch.
    n_annotated
        Number of patches, the first of a batch, drawn from annotated images only; the others are
        drawn from all images that are not simulated.
    n_simulated
        Number of those, the last of them, drawn from simulated images.
    """

    def __init__(
        self,
        bank: ImageBank,
        patch_shape: Sequence[int],
        batch_size: int,
        n_annotated: int,
        n_simulated: int = 0,
    ) -> None:
        self.bank = bank
        self.patch_shape = tuple(patch_shape)
        self.batch_size = batch_size
        volume = bank.sizes.prod(dim=1).float()
        simulated = bank.is_simulated(torch.arange(len(volume), device=volume.device))
        real = volume * ~simulated
        # (axis, image); computed once, because copying from the host would stop the GPU each step.
        self._corners = (bank.sizes - torch.tensor(self.patch_shape).to(bank.sizes) + 1).T
        self._groups = [
            (count, weights)
            for count, weights in [
                (n_annotated - n_simulated, real * bank.annotated),
                (n_simulated, volume * simulated),
                (batch_size - n_annotated, real),
            ]
            if count
        ]

    def draw(self, generator: torch.Generator) -> Batch:
        """Return a batch of random patches."""
        # At least two: for a single one, PyTorch synchronises the device to check the weights.
        index = torch.cat(
            [
                torch.multinomial(weights, max(count, 2), replacement=True, generator=generator)[
                    :count
                ]
                for count, weights in self._groups
            ]
        )
        places = self._places(index, generator)
        return self.bank.gather(index, places, self._acquisitions(index, generator))

    def _acquisitions(
        self, index: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Draw which acquisition each patch shows, and which other one its target."""
        bank = self.bank
        if not bank.exchangeable and bank.n_targets is None:
            return None

        def draw(count: torch.Tensor) -> torch.Tensor:
            share = torch.rand(len(index), generator=generator, device=index.device)
            return (share * count).long()

        number = torch.ones_like(index) if bank.n_targets is None else bank.n_targets[index]
        shown = number - draw(number + 1) if bank.exchangeable else torch.zeros_like(index)
        step = torch.ones_like(index) if bank.n_targets is None else 1 + draw(number)
        return shown, (shown + step) % (number + 1)

    def _places(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw random positions, with one of eight orientations in y and x and a flip in z.

        The z axis is never exchanged with y or x, because its resolution is lower.
        """
        shape, device = self.patch_shape, index.device
        n_axes = len(shape)
        share = torch.rand(n_axes, len(index), generator=generator, device=device)
        corner = (share * self._corners[:, index]).long()  # (axis, batch)
        flips = torch.randint(
            2, (n_axes + 1, len(index)), generator=generator, device=device
        ).bool()
        flips = flips.view(n_axes + 1, len(index), *[1] * n_axes)
        ramps = [
            torch.arange(length, device=device).view(-1, *[1] * (n_axes - 1 - axis))
            for axis, length in enumerate(shape)
        ]
        *above, down, right = ramps
        inside = [*above, torch.where(flips[0], right, down), torch.where(flips[0], down, right)]
        # In this order, the flips of 2D trainings stay what they were before 3D was added.
        order = [*range(n_axes, 2, -1), 1, 2]
        places = [
            torch.where(flips[flip], length - 1 - ramp, ramp)
            for flip, length, ramp in zip(order, shape, inside, strict=True)
        ]
        return torch.stack(
            [
                start.view(-1, *[1] * n_axes) + place.expand(len(index), *shape)
                for start, place in zip(corner, places, strict=True)
            ],
            dim=1,
        )


def validation_patches(
    bank: ImageBank, patch_shape: Sequence[int], limit: int, generator: torch.Generator
) -> Batch:
    """Divide images into a regular grid of patches and return at most ``limit`` of them.

    If there are more, the choice is random but fixed by the generator, so all validations of a run
    use the same pixels.
    """
    device = generator.device
    corners = [
        (image, *corner)
        for image, size in enumerate(bank.sizes.tolist())
        for corner in product(
            *(
                range(0, length - side + 1, side)
                for length, side in zip(size, patch_shape, strict=True)
            )
        )
    ]
    order = torch.randperm(len(corners), generator=generator, device=device)[:limit]
    index, *starts = torch.tensor(corners, device=device)[order].T
    ramps = torch.meshgrid(
        *(torch.arange(side, device=device) for side in patch_shape), indexing="ij"
    )
    places = [
        start.view(-1, *[1] * len(ramps)) + ramp for start, ramp in zip(starts, ramps, strict=True)
    ]
    return bank.gather(index, torch.stack(places, dim=1))
