"""Training patches: random crops of images of any size, cut on the training device."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from denoiseg_flow.data.memory_maps import temporary_map
from denoiseg_flow.labels import IGNORE
from denoiseg_flow.models import Normalisation

# Training images that take more than this are kept in a temporary file (TMPDIR), not in memory.
RESIDENT_BYTES = 2 * 2**30

# Pixels that are looked at together while mean and standard deviation are measured: few enough to
# stay in the processor's cache in double precision.
CHUNK = 2**18


class Batch(NamedTuple):
    """Patches of images, all of shape (batch, y, x)."""

    patches: torch.Tensor
    """float32, normalised."""
    classes: torch.Tensor | None
    """int64, or None where no image is annotated."""
    targets: torch.Tensor | None
    """float32, normalised like the patches: what denoising them should give; None: themselves."""
    y: torch.Tensor
    x: torch.Tensor
    """int64: where each pixel lies in its image."""

    def part(self, place: slice) -> "Batch":
        """Return some of the patches."""
        return Batch(*(None if values is None else values[place] for values in self))


@dataclass
class ImageBank:
    """Images of different sizes in one flat buffer, so that a batch of crops is a single gather.

    Attributes
    ----------
    pixels
        (pixels of all images,), float32.
    classes
        (pixels of all images,), int8 codes of :mod:`denoiseg_flow.labels`, or None where no image
        is annotated; ``IGNORE`` throughout images without a mask.
    targets
        (pixels of all images,), float32: other images to denoise towards, or None.
    offsets, heights, widths
        (image,), int64: where each image starts, and its shape.
    labelled
        (image,), bool.
    """

    pixels: torch.Tensor
    classes: torch.Tensor | None
    targets: torch.Tensor | None
    offsets: torch.Tensor
    heights: torch.Tensor
    widths: torch.Tensor
    labelled: torch.Tensor

    @classmethod
    def load(
        cls,
        images: Iterable[np.ndarray],
        classes: Iterable[torch.Tensor | None],
        shapes: Sequence[tuple[int, int]],
        device: torch.device,
        targets: Iterable[np.ndarray] | None = None,
    ) -> "ImageBank":
        """Copy the images, one at a time, to the device.

        Parameters
        ----------
        images
            Float32 arrays (y, x).
        classes
            For each image its class codes (y, x) on the device, or None if it is not annotated.
        shapes
            (y, x) of each image.
        targets
            For each image a float32 array of its shape to denoise it towards, if there are any.
        """
        sizes = [height * width for height, width in shapes]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        pixels = _fill(images, offsets, device)
        codes = _allocate(int(offsets[-1]), torch.int8, device).fill_(IGNORE)
        labelled = torch.zeros(len(shapes), dtype=torch.bool)
        places = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        for index, (annotation, place) in enumerate(zip(classes, places, strict=True)):
            if annotation is not None:
                codes[slice(*place)] = annotation.ravel()
                labelled[index] = True
        heights, widths = np.array(shapes).T
        return cls(
            pixels=pixels,
            classes=codes if labelled.any() else None,
            targets=None if targets is None else _fill(targets, offsets, device),
            offsets=torch.from_numpy(offsets[:-1]).to(device),
            heights=torch.from_numpy(heights.copy()).to(device),
            widths=torch.from_numpy(widths.copy()).to(device),
            labelled=labelled.to(device),
        )

    def measure(self) -> Normalisation:
        """Return mean and standard deviation over all pixels."""
        total = squares = 0.0
        for part in self.pixels.split(CHUNK):
            values = part.double()
            total += float(values.sum())
            squares += float(values.dot(values))
        mean = total / len(self.pixels)
        variance = squares / len(self.pixels) - mean**2
        return Normalisation(mean, math.sqrt(max(variance, 1e-12)))

    def measure_range(self) -> Normalisation:
        """Return what scales the targets, or the pixels where there are none, to [0, 1]."""
        low, high = torch.aminmax(self.pixels if self.targets is None else self.targets)
        return Normalisation(float(low), float(high - low) or 1.0)

    def mean_target(self) -> float:
        """Return the mean of the targets, or of the pixels where there are none."""
        values = self.pixels if self.targets is None else self.targets
        return float(values.mean(dtype=torch.float64))

    def normalise(self, normalisation: Normalisation) -> None:
        """Change all pixels and targets as :meth:`Normalisation.apply` does, in place."""
        for values in (self.pixels, self.targets):
            if values is not None:
                values.sub_(normalisation.mean).div_(normalisation.std)

    def gather(self, index: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> Batch:
        """Return what lies at the given places.

        Parameters
        ----------
        index
            (batch,), which image.
        y, x
            (batch, height, width), where in it.
        """
        place = self.offsets[index, None, None] + y * self.widths[index, None, None] + x
        return Batch(
            self.pixels[place],
            None if self.classes is None else self.classes[place].long(),
            None if self.targets is None else self.targets[place],
            y,
            x,
        )


def _fill(images: Iterable[np.ndarray], offsets: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy images one after the other into one buffer, where their offsets say."""
    values = _allocate(int(offsets[-1]), torch.float32, device)
    for image, start, stop in zip(images, offsets[:-1], offsets[1:], strict=True):
        pixels = torch.from_numpy(np.ascontiguousarray(image).ravel())
        values[int(start) : int(stop)] = pixels.to(device)
    return values


def _allocate(count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor; on the CPU, a large one lies in a temporary file.

    The operating system keeps as much of that file in memory as there is room for.
    """
    if device.type != "cpu" or count * dtype.itemsize <= RESIDENT_BYTES:
        return torch.empty(count, dtype=dtype, device=device)
    return torch.from_numpy(temporary_map((count,), str(dtype).removeprefix("torch.")))


class PatchSampler:
    """Draws batches of augmented square patches.

    Every position of every image is equally likely, as if all images had been cut into patches.

    Parameters
    ----------
    bank
        The images.
    patch_size
        Side of the patches in pixels.
    batch_size
        Patches in a batch.
    n_labelled
        How many of them are drawn from annotated images only. They come first; the others are
        drawn from all images alike.
    """

    def __init__(self, bank: ImageBank, patch_size: int, batch_size: int, n_labelled: int) -> None:
        self.bank = bank
        self.patch_size = patch_size
        self.batch_size = batch_size
        area = (bank.heights * bank.widths).float()
        self._groups = [
            (count, weights)
            for count, weights in [
                (n_labelled, area * bank.labelled),
                (batch_size - n_labelled, area),
            ]
            if count
        ]

    def draw(self, generator: torch.Generator) -> Batch:
        """Return a batch of random patches."""
        index = torch.cat(
            [
                torch.multinomial(weights, count, replacement=True, generator=generator)
                for count, weights in self._groups
            ]
        )
        y, x = self._positions(index, generator)
        return self.bank.gather(index, y, x)

    def _positions(
        self, index: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Random corners, under one of the eight symmetries of the square."""
        size, device = self.patch_size, index.device
        share = torch.rand(2, len(index), generator=generator, device=device)
        top = (share[0] * (self.bank.heights[index] - size + 1)).long()
        left = (share[1] * (self.bank.widths[index] - size + 1)).long()
        flips = torch.randint(2, (3, len(index), 1, 1), generator=generator, device=device).bool()
        ramp = torch.arange(size, device=device)
        down, right = ramp[None, :, None], ramp[None, None, :]
        dy = torch.where(flips[0], right, down)
        dx = torch.where(flips[0], down, right)
        dy = torch.where(flips[1], size - 1 - dy, dy)
        dx = torch.where(flips[2], size - 1 - dx, dx)
        return top[:, None, None] + dy, left[:, None, None] + dx


def validation_patches(
    bank: ImageBank, patch_size: int, limit: int, generator: torch.Generator
) -> Batch:
    """Cut images into a regular grid of patches and return at most ``limit`` of them.

    The choice among more patches than ``limit`` is random but fixed by the generator, so that
    every validation of a run sees the same pixels.
    """
    places = [
        (image, top, left)
        for image, (height, width) in enumerate(
            zip(bank.heights.tolist(), bank.widths.tolist(), strict=True)
        )
        for top in range(0, height - patch_size + 1, patch_size)
        for left in range(0, width - patch_size + 1, patch_size)
    ]
    order = torch.randperm(len(places), generator=generator, device=generator.device)[:limit]
    index, top, left = torch.tensor(places, device=generator.device)[order].T
    ramp = torch.arange(patch_size, device=generator.device)
    y = (top[:, None, None] + ramp[:, None]).expand(-1, -1, patch_size)
    x = (left[:, None, None] + ramp).expand(-1, patch_size, -1)
    return bank.gather(index, y, x)
