"""The images that a training reads: chosen, checked, and brought to the device."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from denoiseg_flow.data.images import open_image
from denoiseg_flow.data.manifest import CROSS, TRAINED, folds, labelled_images
from denoiseg_flow.data.noise import noisy_copy
from denoiseg_flow.errors import InputError
from denoiseg_flow.labels import encode_classes
from denoiseg_flow.methods import Method, Recipe
from denoiseg_flow.prediction import input_folder
from denoiseg_flow.sampling import ImageBank

# The image (y, x) that the one of that name should become when it is denoised.
Target = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class TrainingImages:
    """The files that one training reads.

    Attributes
    ----------
    train, val
        Input images (tif) for the loss and for validation. Images that are cross-validated are in
        both.
    train_masks, val_masks
        For each of them its mask (tif), or None where it is not annotated or not revealed.
    target
        See :func:`find_target`.
    folds
        Names of the images that are cross-validated, in parts; empty if none is.
    """

    train: Sequence[Path]
    train_masks: Sequence[Path | None]
    val: Sequence[Path]
    val_masks: Sequence[Path | None]
    target: Target | None = None
    folds: Sequence[Sequence[str]] = ()

    def without(self, names: Collection[str]) -> "TrainingImages":
        """Return all but the images of these names, and without the division into parts."""

        def rest(images: Sequence[Path], values: Sequence[Path | None]) -> list[Path | None]:
            pairs = zip(images, values, strict=True)
            return [value for image, value in pairs if image.stem not in names]

        return TrainingImages(
            train=rest(self.train, self.train),
            train_masks=rest(self.train, self.train_masks),
            val=rest(self.val, self.val),
            val_masks=rest(self.val, self.val_masks),
            target=self.target,
        )

    @classmethod
    def of_split(
        cls,
        split: pd.DataFrame,
        images: Path,
        masks: Path,
        n_labelled: int,
        segments: bool,
        target: Target | None = None,
    ) -> "TrainingImages":
        """Choose the files of a split table.

        Parameters
        ----------
        split
            Table of :func:`manifest.split`.
        images, masks
            Folders that hold ``<image>.tif``, the images as in :func:`prediction.input_folder`.
        n_labelled
            How many annotated training images are revealed.
        segments
            Whether the method looks at masks at all.
        target
            See :func:`find_target`.
        """
        train = split.loc[split["subset"].isin(TRAINED), "image"]
        val = split.loc[split["subset"].isin(("val", CROSS))]
        revealed = set(labelled_images(split, n_labelled)) if segments else set()
        own = split.loc[(split["subset"] == "val") & (split["annotated"] == 1), "image"]
        shown = set(own) if segments else set()

        folder = input_folder(images)

        def image(name: str) -> Path:
            return folder / f"{name}.tif"

        def mask(name: str) -> Path | None:
            return masks / f"{name}.tif" if name in revealed | shown else None

        return cls(
            train=[image(name) for name in train],
            train_masks=[mask(name) for name in train],
            val=[image(name) for name in val["image"]],
            val_masks=[mask(name) for name in val["image"]],
            target=target,
            folds=folds(split, n_labelled) if segments else (),
        )


def find_target(
    method: Method, prepared: Path, noise: str, level: Mapping[str, Any]
) -> Target | None:
    """Return what gives the image that the one of a name should become when it is denoised.

    None where that is the image itself, or nothing.

    Parameters
    ----------
    prepared
        Folder of the prepared data set.
    noise, level
        Name of the noise level, and its entry in the config.
    """

    def clean(name: str) -> np.ndarray:
        return open_image(prepared / "clean" / f"{name}.tif")

    def second_copy(name: str) -> np.ndarray:
        # What noise an image has by itself, both copies of it would share.
        path = prepared / "clean" / f"{name}.tif"
        image = open_image(path if path.exists() else prepared / "images" / path.name)
        return noisy_copy(image, level, noise, name, copy=1)

    return {"clean": clean, "second_noisy": second_copy}.get(method.target)


def load_bank(
    images: Sequence[Path],
    masks: Sequence[Path | None],
    recipe: Recipe,
    device: torch.device,
    target: Target | None = None,
) -> ImageBank:
    """Read images, masks and targets onto the device.

    Raises
    ------
    InputError
        If an image is smaller than a training patch.
    """
    shapes = [open_image(path).shape for path in images]
    for path, shape in zip(images, shapes, strict=True):
        if min(shape) < recipe.patch_size:
            raise InputError(
                f"image {path} has shape {shape[0]}x{shape[1]}, smaller than the training patch; "
                f"set 'patch_size' of the recipe (now {recipe.patch_size}) to {min(shape)} or less"
            )
    return ImageBank.load(
        (open_image(path).astype(np.float32) for path in images),
        (None if mask is None else encode_classes(_read_mask(mask, device)) for mask in masks),
        shapes,
        device,
        target and (target(path.stem).astype(np.float32) for path in images),
    )


def _read_mask(path: Path, device: torch.device) -> torch.Tensor:
    # A copy: PyTorch takes no memory map that is read-only, and hardly computes with uint16.
    return torch.from_numpy(open_image(path).astype(np.int32)).to(device)


def check_validation(method: Method, images: TrainingImages, dataset: str) -> None:
    """Say before the training what validation and threshold would lack after it."""
    if not images.val:
        raise InputError(f"dataset '{dataset}' has no validation images; set 'split: val' above 0")
    masks = (open_image(mask) for mask in images.val_masks if mask)
    if method.segments and not any((mask > 0).any() for mask in masks):
        raise InputError(
            f"no validation image of dataset '{dataset}' has an annotated object to choose the "
            "threshold by; annotate more images or raise 'split: val'"
        )
