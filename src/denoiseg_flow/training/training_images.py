"""Select and check the images of a training, and load them onto the device."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.reader import open_image_file
from denoiseg_flow.data.files.tiles import pieces, within
from denoiseg_flow.data.layout import PreparedData, image_file, input_folder
from denoiseg_flow.data.manifest import CROSS, TRAINED
from denoiseg_flow.data.noise import draws_noise, noisy_copy
from denoiseg_flow.data.splitting import annotated_images, folds
from denoiseg_flow.data.store import open_image, open_labels, open_repeats, read_metadata
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import checksums
from denoiseg_flow.methods.classes import encode_classes, relative_distance
from denoiseg_flow.methods.definition import NOISY, Method, Recipe, down_samplings
from denoiseg_flow.methods.initial_model import check_channels, check_dimensions
from denoiseg_flow.methods.networks.layout import Layout, volume_layout
from denoiseg_flow.methods.networks.resized import (
    reduce_image,
    reduce_labels,
    reduced_shape,
)
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.training.patches import ImageBank
from denoiseg_flow.training.rehearsal import NO_REHEARSAL, Rehearsal

Item = TypeVar("Item")

PIECE = 2**22  # pixels of a mask encoded at once


@dataclass(frozen=True)
class Target:
    """What denoising is learned from.

    Attributes
    ----------
    read
        Returns the targets of the image with a given name, the channels of one after those of
        another: (target * channel, [z,] y, x).
    exchangeable
        Whether training also learns the image from its targets, and these from each other: all are
        noisy acquisitions.
    count
        Returns the number of targets of an image; None: always one.
    """

    read: Callable[[str], np.ndarray]
    exchangeable: bool = False
    count: Callable[[str], int] | None = None


@dataclass(frozen=True)
class TrainingImages:
    """The files of one training.

    Attributes
    ----------
    train, val
        Input images (tif) for training and validation. Cross-validated images are in both.
    train_masks, val_masks
        Masks (tif) of these images; None if an image is not annotated, or its mask is not used.
    target
        See :func:`find_target`.
    folds
        Names of the images in each fold of a cross-validation; empty without cross-validation.
    """

    train: Sequence[Path]
    train_masks: Sequence[Path | None]
    val: Sequence[Path]
    val_masks: Sequence[Path | None]
    target: Target | None = None
    folds: Sequence[Sequence[str]] = ()

    def without(self, names: Collection[str]) -> "TrainingImages":
        """Return all images except those with these names, without folds."""

        def rest(
            images: Sequence[Path], masks: Sequence[Path | None]
        ) -> tuple[list[Path], list[Path | None]]:
            pairs = list(zip(images, masks, strict=True))
            kept = [(image, mask) for image, mask in pairs if image.stem not in names]
            return [image for image, _ in kept], [mask for _, mask in kept]

        train, train_masks = rest(self.train, self.train_masks)
        val, val_masks = rest(self.val, self.val_masks)
        return TrainingImages(train, train_masks, val, val_masks, self.target)

    @classmethod
    def of_split(
        cls,
        split: pd.DataFrame,
        images: Path,
        prepared: PreparedData,
        n_annotated: int,
        segments: bool,
        target: Target | None = None,
    ) -> "TrainingImages":
        """Select the files according to a split table.

        Parameters
        ----------
        split
            Table of :func:`~denoiseg_flow.data.splitting.split`.
        images
            Folder of the images to read, see :func:`layout.input_folder`.
        prepared
            Where the masks are.
        n_annotated
            Number of annotated training images whose masks are used.
        segments
            Whether the method uses masks.
        target
            See :func:`find_target`.
        """
        train = split.loc[split["subset"].isin(TRAINED), "image"]
        val = split.loc[split["subset"].isin(("val", CROSS))]
        revealed = set(annotated_images(split, n_annotated)) if segments else set()
        own = split.loc[(split["subset"] == "val") & (split["annotated"] == 1), "image"]
        shown = set(own) if segments else set()

        folder = input_folder(images)

        def image(name: str) -> Path:
            return image_file(folder, name)

        def mask(name: str) -> Path | None:
            return prepared.mask(name) if name in revealed | shown else None

        return cls(
            train=[image(name) for name in train],
            train_masks=[mask(name) for name in train],
            val=[image(name) for name in val["image"]],
            val_masks=[mask(name) for name in val["image"]],
            target=target,
            folds=folds(split, n_annotated),
        )


def find_target(
    method: Method, prepared: PreparedData, noise: str, level: Mapping[str, Any]
) -> Target | None:
    """Return what a method learns denoising from.

    None if the target is the image itself, or if the method does not denoise.

    Parameters
    ----------
    noise, level
        Name of the noise level, and its entry in the config.
    """

    def clean(name: str) -> np.ndarray:
        return open_image(prepared.clean(name))

    def second_copy(name: str) -> np.ndarray:
        # Start from the clean image if there is one: two copies would share the noise of an image.
        path = prepared.clean(name)
        image = open_image(path if path.exists() else prepared.image(name))
        return noisy_copy(image, level, noise, name, copy=1)

    def acquisitions(name: str) -> np.ndarray:
        images = open_repeats(prepared.repeats(name))
        if draws_noise(level):
            copies = enumerate(images, start=1)
            images = np.stack([noisy_copy(each, level, noise, name, copy) for copy, each in copies])
        return images.reshape(-1, *images.shape[2:])

    if method.target == "clean":
        return Target(clean)
    if method.target != "second_noisy":
        return None
    if prepared.is_repeated():
        # An image that another method denoised is no acquisition.
        return Target(
            acquisitions,
            exchangeable=method.input == NOISY,
            count=lambda name: len(open_repeats(prepared.repeats(name))),
        )
    return Target(second_copy)


def find_layout(method: Method, recipe: Recipe, found: Layout, downscale: float = 1) -> Layout:
    """Return the layout of images for a network of the method.

    Parameters
    ----------
    found
        That of :func:`read_layout`.
    downscale
        How many times smaller the images are that the network reads; 0.5: twice as large.

    Raises
    ------
    InputError
        If their axes or numbers of channels differ.
    """
    found = replace(found, downscale=downscale)
    if found.dimensions == 2:
        return found
    if method.planes:
        return replace(found, patch_depth=1, plane_by_plane=True)
    depth = down_samplings(method.network, recipe.depth)
    along_z, *_ = found.reduction
    thinnest, step = found.patch_depth // along_z, found.z_step * along_z / downscale
    layout = volume_layout(depth, recipe.patch_depth, thinnest, step, found.channels)
    return replace(layout, z_step=found.z_step, downscale=downscale, colour=found.colour)


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return up to ``most`` items, evenly spread: similar images are often side by side."""
    places = np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)
    return [items[place] for place in places.tolist()]


def read_layout(images: Sequence[Path]) -> Layout:
    """Return the layout of some images, with the z-slices of the thinnest and the median z step.

    Raises
    ------
    InputError
        If their axes or numbers of channels differ.
    """
    kinds, depths, steps = [], [], []
    for path in images:
        checksums.verify(path)
        with open_image_file(path, colour=None) as file:
            kinds.append((file.metadata.axes, file.length("C"), file.metadata.colour))
            depths.append(file.length("Z"))
            steps.append(file.metadata.plane_step())
    axes, channels, colour = kinds[0]
    for path, kind in zip(images, kinds, strict=True):
        if kind[2] != colour:
            raise InputError(
                f"image {path} is {'grey' if colour else 'in colour'}, but {images[0]} is not; "
                "divide them into two datasets"
            )
        if kind != kinds[0]:
            raise InputError(
                f"image {path} has axes {kind[0]} and {kind[1]} channel(s), but {images[0]} has "
                f"{axes} and {channels}; divide them into two datasets, or correct the files"
            )
    if "Z" not in axes:
        return Layout(channels=channels, colour=colour)
    return Layout(3, channels, min(depths), z_step=float(np.median(steps)), colour=colour)


def load_bank(
    images: Sequence[Path],
    masks: Sequence[Path | None],
    recipe: Recipe,
    layout: Layout,
    device: torch.device,
    target: Target | None = None,
    rehearsal: Rehearsal = NO_REHEARSAL,
) -> ImageBank:
    """Read images, masks and targets piece by piece onto the device.

    Simulated images come last; their target of denoising, which nothing learns from, is the image.

    Raises
    ------
    InputError
        If an image is smaller than a training patch.
    """
    factors = layout.reduction
    shapes = [reduced_shape(open_image(path).shape[1:], factors) for path in images]
    for path, shape in zip(images, shapes, strict=True):
        if min(shape[-2:]) < layout.patch_shape(recipe.patch_size)[-1]:
            smaller = f" at 1/{layout.downscale} of its size" if layout.downscale > 1 else ""
            raise InputError(
                f"image {path} has shape {'x'.join(map(str, shape))}{smaller}, smaller than the "
                f"training patch; set 'patch_size' of the recipe (now {recipe.patch_size}) to "
                f"{min(shape[-2:]) * layout.magnification[-1]} or less"
            )
    classes = (None if mask is None else read_classes(mask, device, factors) for mask in masks)
    read, counted = (None, None) if target is None else (target.read, target.count)
    targets = read and (reduce_image(read(path.stem), factors) for path in images)
    n_targets = counted and [counted(path.stem) for path in images]
    distances = chain((_read_distance(mask, layout) for mask in masks), rehearsal.distances)
    return ImageBank.load(
        chain((reduce_image(open_image(path), factors) for path in images), rehearsal.images),
        chain(classes, ([each] for each in rehearsal.classes)),
        [*shapes, *(image.shape[1:] for image in rehearsal.images)],
        device,
        targets and chain(targets, rehearsal.images),
        layout.channels,
        len(rehearsal.images),
        distances if recipe.predicts_distance else None,
        exchangeable=target is not None and target.exchangeable,
        n_targets=n_targets and [*n_targets, *[1] * len(rehearsal.images)],
    )


def _read_distance(path: Path | None, layout: Layout) -> np.ndarray | None:
    """Return the relative distances of a mask, None without a mask."""
    if path is None:
        return None
    factors = layout.reduction
    labels = reduce_labels(open_labels(path), factors)
    if labels.ndim == 2:
        return relative_distance(labels)
    step = read_metadata(path).plane_step() * factors[0] / max(factors)
    return relative_distance(labels, (step, 1.0, 1.0))


def read_classes(
    path: Path, device: torch.device, factors: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Yield the class codes of a mask, reduced by :func:`reduce_labels`, piece by piece."""
    mask = reduce_labels(open_labels(path), factors)
    for kept in pieces(mask.shape, PIECE):
        # The class of a pixel depends on its neighbours.
        seen = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in kept)
        # A copy, because PyTorch does not support read-only memory maps, and uint16 only partly.
        labels = torch.from_numpy(mask[seen].astype(np.int32)).to(device)
        release(mask)
        yield encode_classes(labels)[within(kept, seen)]


def check_subsets(
    method: Method, images: TrainingImages, dataset: str, has_threshold: bool = False
) -> None:
    """Raise InputError if images for training, validation or the threshold are missing.

    Parameters
    ----------
    has_threshold
        Whether the network that the training starts from has a threshold already.
    """
    if not images.train:
        raise InputError(
            f"dataset '{dataset}' has no training images; lower 'val' and 'test' of its split, or "
            "choose methods that need none"
        )
    if not images.val:
        raise InputError(f"dataset '{dataset}' has no validation images; set 'split: val' above 0")
    masks = (open_labels(mask) for mask in images.val_masks if mask)
    if method.segments and not has_threshold and not any((mask > 0).any() for mask in masks):
        raise InputError(
            f"no validation image of dataset '{dataset}' has an annotated object to choose the "
            "threshold by; annotate more images or raise 'split: val'"
        )


def check_layout(method: Method, layout: Layout, dataset: str) -> None:
    """Raise InputError if the pretrained network, or what is rehearsed, needs other images."""
    wanted = PRETRAINED[method.rehearsed or ""].dimensions
    key = "init" if method.init in PRETRAINED else "rehearse"
    if layout.dimensions != wanted or layout.channels > 1:
        channels = "one channel" if layout.channels == 1 else f"{layout.channels} channels"
        raise InputError(
            f"'{key}: {method.rehearsed}' of method '{method.name}' is for {wanted}D images of one "
            f"channel, but dataset '{dataset}' has {layout.dimensions}D images of {channels}; "
            f"leave '{key}' out, or correct 'dimensions' and 'channel' of the dataset"
        )


def check_initial_model(method: Method, own: Layout, layout: Layout, dataset: str) -> None:
    """Raise InputError if the model that a method starts from cannot be adapted to such images."""
    dimensions = 2 if own.plane_by_plane else own.dimensions
    check_dimensions(method, dimensions, dataset, layout.dimensions)
    check_channels(method, own.channels, dataset, layout.channels)
