"""Bring new images to the grey levels and the pixel size of a model's training images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.regions import Region
from denoiseg_flow.data.files.tiles import pieces
from denoiseg_flow.data.store import create_image, open_image, read_metadata
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.grey_levels import GreyLevels, trained_on
from denoiseg_flow.models.model import AnyModel, TrainedModel, chain

NORMALISE = ("training", "image")
PIXEL_SIZE = "pixel-size"
# A factor beyond these limits is a mistake, usually a wrong pixel size in the metadata; a large one
# would fill the disk.
LEAST, MOST = 0.1, 10.0
OTHER_SIZE = 1.25  # ratio of pixel sizes that causes a warning

PIECE = 2**22  # pixels processed at once


@dataclass(frozen=True)
class Scaling:
    """How to bring new images to the scale of the training images.

    Attributes
    ----------
    normalise
        "training": grey levels are used as they are. "image": each channel of a file gets the mean
        and standard deviation of the training images.
    rescale
        Size of what a network reads, relative to the image: a factor for all spatial axes, or one
        for each of ([z,] y, x). "pixel-size": the pixel size of the image divided by that of the
        training images, along each axis. None: networks read the image at its own size.

    Raises
    ------
    InputError
        If a value is none of these, or a factor is not between 0.1 and 10.
    """

    normalise: str = "training"
    rescale: str | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISE:
            raise InputError(f"'normalise' is '{self.normalise}'; set it to 'training' or 'image'")
        if self.rescale in (None, PIXEL_SIZE):
            return
        if not self.rescale or not all(map(_is_plausible, self.rescale)):
            raise _no_factors(self.rescale)

    @classmethod
    def of(cls, normalise: str, rescale: str | float | Sequence[str | float] | None) -> "Scaling":
        """Return the scaling of config keys or arguments."""
        if rescale is None:
            return cls(normalise)
        given: list[str | float] = list(np.atleast_1d(np.asarray(rescale, object)))
        if given == [PIXEL_SIZE]:
            return cls(normalise, PIXEL_SIZE)
        try:
            return cls(normalise, tuple(map(float, given)))
        except ValueError as error:
            raise _no_factors(given) from error

    def check(self, model: AnyModel, name: str) -> None:
        """Raise InputError if the model, called ``name``, cannot be used on any image."""
        steps = chain(model)
        if self.normalise == "image" and not trained_on(steps[0]):
            raise InputError(
                f"{name} does not state the grey levels of its training images, which 'normalise: "
                "image' (--normalise image) needs; train it again with this version"
            )
        if self.rescale and not any(isinstance(step, TrainedModel) for step in steps):
            raise InputError(
                f"'rescale' (--rescale) resamples what a network reads, but {name} has no network; "
                "leave it out"
            )
        if self.rescale == PIXEL_SIZE and not model.origin.get("pixel_size"):
            raise InputError(
                f"{name} does not state the pixel size of its training images; give a factor "
                "instead ('rescale: 0.5' or --rescale 0.5), or train on images with a pixel size"
            )

    def factors(self, model: AnyModel, region: Region) -> tuple[float, ...] | None:
        """Return the factors for one image, along ([z,] y, x); None: it is not resampled.

        Raises
        ------
        InputError
            If the pixel size of the image is needed but unknown or implausible, or if there are
            fewer factors than axes.
        """
        axes, path = region.metadata.spatial_axes, region.file.path
        if self.rescale is None:
            return None
        if not isinstance(self.rescale, str):
            given = self.rescale if len(self.rescale) > 1 else self.rescale * len(axes)
            if len(given) < len(axes):
                raise InputError(
                    f"'rescale' has {len(given)} factors, but {path} has the spatial axes {axes}; "
                    "give one factor, or one for each of them"
                )
            return given[-len(axes) :]
        size, known = region.metadata.pixel_size, model.origin["pixel_size"]
        if missing := [axis for axis in axes if axis not in size or axis not in known]:
            whose = str(path) if missing[0] not in size else "the model"
            raise InputError(
                f"{path} cannot be rescaled by its pixel size, because {whose} does not state that "
                f"along {missing[0]}; give it ('pixel_size' or --pixel-size), or a factor instead "
                "('rescale: 0.5' or --rescale 0.5)"
            )
        found = tuple(size[axis] / known[axis] for axis in axes)
        for axis, factor in zip(axes, found, strict=True):
            if not _is_plausible(factor):
                raise InputError(
                    f"{path} has a pixel size of {size[axis]:.3g} micrometres along {axis}, but "
                    f"the training images had {known[axis]:.3g}, which is no plausible difference "
                    f"(factor {factor:.3g}, not {LEAST} to {MOST:g}); give the right one "
                    "('pixel_size' or --pixel-size)"
                )
        return found


def _is_plausible(factor: str | float) -> bool:
    return not isinstance(factor, str) and LEAST <= factor <= MOST


def _no_factors(found: Sequence[str | float]) -> InputError:
    return InputError(
        f"'rescale' (--rescale) is '{' '.join(map(str, found))}'; set it to a factor from {LEAST} "
        f"to {MOST:g}, to one for each of z, y and x, or to '{PIXEL_SIZE}'"
    )


def warning_of_other_size(
    model: AnyModel, region: Region, factors: Sequence[float] | None
) -> str | None:
    """Return a warning if the pixel size differs from that of the training images.

    With ``factors``, see :meth:`Scaling.factors`, the pixel size after resampling counts.
    """
    known, axes = model.origin.get("pixel_size", {}), region.metadata.spatial_axes
    for axis, factor in zip(axes, factors or [1.0] * len(axes), strict=True):
        length = region.metadata.pixel_size.get(axis)
        trained = known.get(axis)
        if not length or not trained or 1 / OTHER_SIZE < length / factor / trained < OTHER_SIZE:
            continue
        rescaled = f", {length / factor:.3g} as rescaled" if factor != 1 else ""
        return (
            f"{region.file.path} has a pixel size of {length:.3g} micrometres along "
            f"{axis}{rescaled}, but the training images had {trained:.3g}, so objects appear "
            f"{'larger' if length / factor < trained else 'smaller'} than in training; rescale the "
            f"image (--rescale {PIXEL_SIZE}, or 'rescale: {PIXEL_SIZE}' in the config), or train "
            "on such images"
        )
    return None


def move_levels(
    source: Path, path: Path, before: Sequence[GreyLevels], after: Sequence[GreyLevels]
) -> None:
    """Write an image whose grey levels are moved from one mean and standard deviation to others.

    Parameters
    ----------
    source
        An image of the workflow.
    path
        File to write: float32, with the metadata of ``source``.
    before, after
        Grey levels of each channel. A channel whose standard deviation was 0 becomes the new mean.
    """
    image = open_image(source)
    result = create_image(path, image.shape, read_metadata(source))
    for channel, target, old, new in zip(image, result, before, after, strict=True):
        factor = new.std / (old.std or 1.0)
        for place in pieces(channel.shape, PIECE):
            target[place] = (channel[place].astype(np.float64) - old.mean) * factor + new.mean
            release(image)
            release(result)


def levels_of_training(model: AnyModel, path: Path, channels: int) -> list[GreyLevels]:
    """Return the grey levels of the training images for each channel that a model reads.

    Raises
    ------
    InputError
        If the model was trained on another number of channels than ``channels``; one serves all.
    """
    known = trained_on(chain(model)[0])
    if len(known) not in (1, channels):
        raise InputError(
            f"the model was trained on {len(known)} channels, but {path} has {channels}, so their "
            "grey levels cannot be matched; choose one channel, or leave 'normalise: image' "
            "(--normalise image) out"
        )
    return known if len(known) == channels else known * channels
