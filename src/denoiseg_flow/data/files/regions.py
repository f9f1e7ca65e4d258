"""From files with time points, channels and planes to the single images that a network sees.

An image is a plane (y, x) or a volume (z, y, x), with its channels in front if there are several.
Every time point of a file is an image of its own, and so is every plane where planes are wanted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import ImageFile
from denoiseg_flow.data.files.tiles import Place
from denoiseg_flow.errors import InputError

ALL = "all"  # as `channel`: all of them together


@dataclass(frozen=True)
class Reading:
    """How the files of a dataset are to be read.

    Attributes
    ----------
    axes
        What the dimensions of a file are, such as "ZYX"; None: what the file says.
    dimensions
        3 for volumes, 2 for planes, of which a stack has several; None: there are no stacks.
    channel
        Number (from 0) or name of the only channel that is read, or "all"; None: there is but one.
    pixel_size
        Micrometres along ([z,] y, x), where files do not tell or tell wrong.
    masks
        Whether the files are masks, which have no channels.
    """

    axes: str | None = None
    dimensions: int | None = None
    channel: int | str | None = None
    pixel_size: tuple[float, ...] | None = None
    masks: bool = field(default=False, repr=False)

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "Reading":
        """Return how a dataset's section of the config wants its files to be read."""
        size = spec.get("pixel_size")
        return cls(
            spec.get("axes"),
            spec.get("dimensions"),
            spec.get("channel"),
            None if size is None else tuple(map(float, size)),
        )

    def of_masks(self) -> "Reading":
        """Return how masks are read: like images, but that they have no channels."""
        axes = self.axes and self.axes.replace("C", "")
        return replace(self, axes=axes, channel=None, masks=True)


@dataclass(frozen=True)
class Region:
    """One image of a file; parts of it are read as from an array.

    Attributes
    ----------
    suffix
        What the name of the image has after the name of the file.
    index
        Where in the file it lies: a number or all along each axis of the file.
    metadata
        Of the image.
    """

    file: ImageFile
    suffix: str
    index: tuple[int | slice, ...]
    metadata: Metadata

    @classmethod
    def whole(cls, file: ImageFile) -> "Region":
        """Return all of a file as one image."""
        everything = tuple(slice(0, length) for length in file.shape)
        return cls(file, "", everything, file.metadata)

    @property
    def numbers(self) -> dict[str, int]:
        """The time point and plane that the image is, as far as the file has several."""
        axes = zip(self.file.metadata.axes, self.index, strict=True)
        return {axis: index for axis, index in axes if axis != "C" and isinstance(index, int)}

    def within_file(self, place: Place) -> tuple[int | slice, ...]:
        """Return where in the file a box of the image lies."""
        along = iter(place)
        return tuple(next(along) if isinstance(index, slice) else index for index in self.index)

    def first_channel(self) -> "Region":
        """Return the first channel of the image; itself, if it has only one."""
        if "C" not in self.metadata.axes:
            return self
        index = list(self.index)
        index[self.file.metadata.axes.index("C")] = 0
        return replace(self, index=tuple(index), metadata=self.metadata.only("TZYX"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image."""
        lengths = zip(self.index, self.file.shape, strict=True)
        return tuple(length for index, length in lengths if isinstance(index, slice))

    @property
    def dtype(self) -> np.dtype:
        """Pixel type of the file."""
        return self.file.dtype

    def __getitem__(self, place: Place) -> np.ndarray:
        """Read a box of the image."""
        return self.file.read(self.within_file(place))

    def read(self) -> np.ndarray:
        """Read all of it."""
        return self[tuple(slice(0, length) for length in self.shape)]


def find_regions(file: ImageFile, reading: Reading) -> Iterator[Region]:
    """Yield the images of a file.

    Raises
    ------
    InputError
        If it has a z axis or channels and ``reading`` does not say what to do with them, or does
        not have what it is said to have.
    """
    axes, path = file.metadata.axes, file.path
    if "Z" in axes and reading.dimensions is None:
        raise InputError(
            f"{path} is a stack of {file.length('Z')} planes: write 'dimensions: 3' in the "
            "dataset's config to treat stacks as volumes, or 'dimensions: 2' to treat each plane "
            "as an image"
        )
    if "Z" not in axes and reading.dimensions == 3:
        raise InputError(
            f"{path} is not a volume but has axes {axes} of shape {file.shape}: write "
            "'dimensions: 2' in the dataset's config, or 'axes' if its planes are called otherwise"
        )
    channel = _find_channel(file, reading)
    kept = "CZYX" if reading.dimensions == 3 else "CYX"
    kept = kept.replace("C", "") if channel is not None else kept
    metadata = _sized(file, file.metadata.only(kept), reading.pixel_size)
    split = [axis for axis in axes if axis not in kept and axis != "C"]
    for numbers in product(*(range(file.length(axis)) for axis in split)):
        fixed = dict(zip(split, numbers, strict=True))
        suffix = "".join(f"_{axis.lower()}{number:03d}" for axis, number in fixed.items())
        if channel is not None:
            fixed["C"] = channel
        index = tuple(fixed.get(axis, slice(0, file.length(axis))) for axis in axes)
        yield Region(file, suffix, index, metadata)


def _find_channel(file: ImageFile, reading: Reading) -> int | None:
    """Return the number of the only channel to read; None: there is no such axis, or all."""
    metadata, path, wanted = file.metadata, file.path, reading.channel
    if "C" not in metadata.axes:
        if wanted in (None, 0, "0", ALL) or wanted in metadata.channels:
            return None
        raise InputError(
            f"{path} has no channels, so that there is no channel {wanted!r} to read: leave "
            "'channel' out, or write 'axes' if its channels are called otherwise"
        )
    count = file.length("C")
    names = metadata.channels or tuple(map(str, range(count)))
    listed = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
    if reading.masks:
        raise InputError(
            f"mask {path} has {count} channels, {listed}: masks are labels of the pixels and have "
            "none, whatever 'channel' is; export the one with the labels by itself"
        )
    if wanted is None:
        raise InputError(
            f"{path} has {count} channels, {listed}: write 'channel' in the dataset's config (or "
            "--channel) to choose one, or 'channel: all' to train one network on all of them"
        )
    if wanted == ALL:
        return None
    if metadata.channels.count(wanted) == 1:
        return metadata.channels.index(wanted)
    # Snakemake's --config hands over numbers as text.
    if str(wanted).isdecimal() and int(wanted) < count:
        return int(wanted)
    raise InputError(f"{path} has no channel {wanted!r}: its channels are {listed}")


def _sized(file: ImageFile, metadata: Metadata, pixel_size: tuple[float, ...] | None) -> Metadata:
    """Return metadata with the pixel size that the config tells, which volumes need."""
    axes = metadata.spatial_axes
    if pixel_size is not None:
        if len(pixel_size) < len(axes):
            raise InputError(
                f"'pixel_size' has {len(pixel_size)} numbers, but {file.path} has the spatial axes "
                f"{axes}: write one number of micrometres for each of them"
            )
        sizes = dict(zip(axes, pixel_size[-len(axes) :], strict=True))
        return replace(metadata, pixel_size=sizes)
    if axes == "ZYX" and metadata.spacing() is None:
        raise InputError(
            f"{file.path} does not say how far apart its planes and pixels are, which decides how "
            "a network looks at a volume: write 'pixel_size: [z, y, x]' in micrometres in the "
            "dataset's config (or --pixel-size)"
        )
    return metadata
