"""Divide files with time points, channels and z-slices into the single images a network reads.

Here an image has the axes of its file: a plane (y, x) or a volume (z, y, x), with a leading channel
axis if it has several channels. Each time point of a file is a separate image, and so is each
z-slice if 2D images are wanted.
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

ALL = "all"  # value of `channel`: read all channels together


@dataclass(frozen=True)
class Reading:
    """How to read the files of a dataset.

    Attributes
    ----------
    axes
        Axes of the files, such as "ZYX"; None: as stated in the files.
    dimensions
        3 to read stacks as volumes, 2 to read each z-slice as an image; None if there are no
        stacks.
    channel
        Number (from 0) or name of the channel to read, or "all"; None if there is only one.
    pixel_size
        Micrometres along ([z,] y, x), if the metadata of the files are missing or wrong.
    masks
        Whether the files are masks, which have no channels.
    default_axes
        Axes of masks that do not state any and have as many.
    """

    axes: str | None = None
    dimensions: int | None = None
    channel: int | str | None = None
    pixel_size: tuple[float, ...] | None = None
    masks: bool = field(default=False, repr=False)
    default_axes: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "Reading":
        """Return how to read the files of a dataset, given its section of the config."""
        size = spec.get("pixel_size")
        return cls(
            spec.get("axes"),
            spec.get("dimensions"),
            spec.get("channel"),
            None if size is None else tuple(map(float, size)),
        )

    def of_masks(self, default_axes: str) -> "Reading":
        """Return how to read masks: like images of these axes, but without channels."""
        axes = self.axes and self.axes.replace("C", "")
        default_axes = default_axes.replace("C", "")
        return replace(self, axes=axes, channel=None, masks=True, default_axes=default_axes)


@dataclass(frozen=True)
class Region:
    """One image of a file, which can be indexed like an array to read parts of it.

    Attributes
    ----------
    suffix
        Appended to the name of the file to name the image.
    index
        Place of the image in the file: a number or a full slice for each axis of the file.
    metadata
        Metadata of the image.
    """

    file: ImageFile
    suffix: str
    index: tuple[int | slice, ...]
    metadata: Metadata

    @classmethod
    def whole(cls, file: ImageFile) -> "Region":
        """Return a whole file as one image."""
        everything = tuple(slice(0, length) for length in file.shape)
        return cls(file, "", everything, file.metadata)

    @property
    def numbers(self) -> dict[str, int]:
        """Time point and z-slice of the image, for axes that it does not have itself."""
        axes = zip(self.file.metadata.axes, self.index, strict=True)
        return {axis: index for axis, index in axes if axis != "C" and isinstance(index, int)}

    def within_file(self, place: Place) -> tuple[int | slice, ...]:
        """Return the place in the file of a box of the image."""
        along = iter(place)
        return tuple(next(along) if isinstance(index, slice) else index for index in self.index)

    def first_channel(self) -> "Region":
        """Return the first channel of the image, or the image itself if it has only one."""
        if "C" not in self.metadata.axes:
            return self
        index = list(self.index)
        index[self.file.metadata.axes.index("C")] = 0
        return replace(self, index=tuple(index), metadata=self.metadata.only("TZYX"))

    @property
    def channels(self) -> int:
        """Number of channels of the image."""
        return self.shape[0] if "C" in self.metadata.axes else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image along the axes in its metadata."""
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
        """Read the whole image."""
        return self[tuple(slice(0, length) for length in self.shape)]


def find_regions(file: ImageFile, reading: Reading) -> Iterator[Region]:
    """Yield the images of a file.

    Raises
    ------
    InputError
        If the file has a z axis or channels but ``reading`` does not say how to read them, or if it
        lacks what ``reading`` asks for.
    """
    axes, path = file.metadata.axes, file.path
    if "Z" in axes and reading.dimensions is None:
        raise InputError(
            f"{path} is a stack of {file.length('Z')} planes; write 'dimensions: 3' in the "
            "dataset's config to read stacks as volumes, or 'dimensions: 2' to read each z-slice "
            "as an image"
        )
    if "Z" not in axes and reading.dimensions == 3:
        raise InputError(
            f"{path} is not a volume but has axes {axes} of shape {file.shape}; write "
            "'dimensions: 2' in the dataset's config, or 'axes' if its z axis has another name"
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
    """Return the number of the channel to read; None: all, or there is no channel axis."""
    metadata, path, wanted = file.metadata, file.path, reading.channel
    if "C" not in metadata.axes:
        if wanted in (None, 0, "0", ALL) or wanted in metadata.channels:
            return None
        raise InputError(
            f"{path} has no channels, but channel {wanted!r} is asked for; leave 'channel' out, or "
            "write 'axes' if its channel axis has another name"
        )
    count = file.length("C")
    names = metadata.channels or tuple(map(str, range(count)))
    listed = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
    if reading.masks:
        raise InputError(
            f"mask {path} has {count} channels, {listed}, but masks must have none, whatever "
            "'channel' is; export the channel with the labels by itself"
        )
    if wanted is None:
        raise InputError(
            f"{path} has {count} channels, {listed}; choose one with 'channel' in the dataset's "
            "config (or --channel), or write 'channel: all' to train one network on all of them"
        )
    if wanted == ALL:
        return None
    if metadata.channels.count(wanted) == 1:
        return metadata.channels.index(wanted)
    # Snakemake's --config passes numbers as text.
    if str(wanted).isdecimal() and int(wanted) < count:
        return int(wanted)
    raise InputError(f"{path} has no channel {wanted!r}; available: {listed}")


def _sized(file: ImageFile, metadata: Metadata, pixel_size: tuple[float, ...] | None) -> Metadata:
    """Return metadata with the pixel size of the config, if given; volumes need a pixel size."""
    axes = metadata.spatial_axes
    if pixel_size is not None:
        if len(pixel_size) < len(axes):
            raise InputError(
                f"'pixel_size' has {len(pixel_size)} numbers, but {file.path} has the spatial axes "
                f"{axes}; write one number, in micrometres, for each of them"
            )
        sizes = dict(zip(axes, pixel_size[-len(axes) :], strict=True))
        return replace(metadata, pixel_size=sizes)
    if axes == "ZYX" and metadata.spacing() is None:
        raise InputError(
            f"{file.path} does not say how far apart its planes and pixels are, but networks for "
            "volumes depend on it; write 'pixel_size: [z, y, x]' in micrometres in the dataset's "
            "config (or --pixel-size)"
        )
    return metadata
