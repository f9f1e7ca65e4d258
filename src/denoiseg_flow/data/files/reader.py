"""Open image files written by other programs; read regions and metadata.

Whatever the order of axes in a file, pixels are returned in the order of ``metadata.ORDER``.
"""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Protocol

import numpy as np

from denoiseg_flow.data.files import microscopes
from denoiseg_flow.data.files.metadata import COLOURS, ORDER, Metadata
from denoiseg_flow.data.files.microscopes import MicroscopeSource
from denoiseg_flow.data.files.npy import NpySource
from denoiseg_flow.data.files.ome_zarr import ZarrSource, is_ome_zarr
from denoiseg_flow.data.files.pillow import open_with_pillow, read_pgm
from denoiseg_flow.data.files.tif import TifSource
from denoiseg_flow.data.files.tiles import PIECE, pieces
from denoiseg_flow.data.files.whole import WholeSource
from denoiseg_flow.errors import InputError, plain

UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,  # tifffile and zarr, for headers of the wrong kind
    SyntaxError,  # Pillow, for a broken png
    ArithmeticError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    SystemError,  # codecs written in C, for impossible sizes
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    TokenError,  # NumPy, for a broken header
    zlib.error,
)

_SINGLETONS = "TCZ"  # axes that are dropped if they have length 1
_BIT_DEPTH = 24  # place of the bits per sample in a png file
# Pixels that a byte of a file can hold, by Pillow's name of the format. The compression ratio of
# deflate is at most 1100; a block of 64 pixels takes at least one bit of a JPEG file, and a run of
# 255 pixels two bytes of a bmp file.
_PER_BYTE = {"PNG": 8 * 1100, "JPEG": 8 * 64, "BMP": 128, "PPM": 8}


class Source(Protocol):
    """An open file, with axes in the order of the file.

    Opening a file raises InputError if it does not hold exactly one image, and any error in
    :data:`UNREADABLE` if it is damaged.
    """

    shape: tuple[int, ...]
    """Length of each dimension, those of length 1 included."""
    axes: str
    """A letter of TCZYX for each dimension, S for colours, or another for one without a meaning."""
    dtype: np.dtype
    """Of the pixels, in the byte order of this machine."""
    palette: bool
    """Whether pixels are indices of a palette."""
    pixel_size: dict[str, float]
    """Micrometres by axis letter, as far as known."""
    channels: tuple[str, ...]
    """Names of the channels, empty unless the file has some."""
    channel_colours: tuple[str, ...]
    """See `Metadata`; empty unless the file has some."""
    time_step: float | None
    """Seconds from one time point to the next, None if unknown."""
    rgb: bool
    """Whether the colours along S are red, green and blue, with transparency if there is a
    fourth."""

    def read(self, slices: Sequence[slice]) -> np.ndarray:
        """Return a copy of a piece, for which there is a slice for each dimension."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class ImageFile:
    """An open image file; close it, or use it in a ``with`` statement.

    Attributes
    ----------
    path
        The file, or the folder of an OME-Zarr image.
    metadata
        Axes in the order of TCZYX, without T, C or Z of length 1, and pixel size, time step and
        channels as far as known.
    shape
        Length of each of these axes.
    dtype
        Pixel type; uint8 for boolean images.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        axes: str | None,
        indexed: bool = False,
        colour: bool | None = False,
        default_axes: str | None = None,
    ) -> None:
        self.path = path
        self._source = source
        if source.dtype.kind not in "biuf" or 0 in source.shape:
            raise InputError(
                f"{path} is not a grey image, but has {source.dtype} pixels and shape "
                f"{source.shape}; export it as uint8, uint16 or float32"
            )
        letters = _letters(path, source, axes, indexed, colour, default_axes)
        self._alpha = _find_alpha(path, source, letters, colour)
        # Axes of the file in the order of ORDER.
        self._order = sorted(
            (
                number
                for number, letter in letters.items()
                if source.shape[number] > 1 or letter not in _SINGLETONS
            ),
            key=lambda number: ORDER.index(letters[number]),
        )
        names = "".join(letters[number] for number in self._order)
        self.shape = tuple(source.shape[number] - (number == self._alpha) for number in self._order)
        # Boolean images become 0 and 1, which can be measured and subtracted.
        self.dtype = np.dtype(np.uint8) if source.dtype.kind == "b" else source.dtype
        n_channels = self.shape[names.index("C")] if "C" in names else 0
        channels, colours = (
            known if len(known) == n_channels else ()
            for known in (source.channels, source.channel_colours)
        )
        known = Metadata(names, source.pixel_size, channels, colours, source.time_step)
        self.metadata = known.only(names)
        if colour or (colour is None and "S" in (source.axes[number] for number in letters)):
            if n_channels != len(COLOURS):
                raise InputError(
                    f"{path} is not a colour image, but has axes {names} of shape {self.shape}; "
                    "remove it, or leave out 'colour' of the dataset if all its images are grey"
                )
            self.metadata = self.metadata.in_colour()

    def read(self, place: Sequence[int | slice]) -> np.ndarray:
        """Read a region of the image.

        Parameters
        ----------
        place
            An integer or a slice with step 1 for each axis, as in NumPy indexing. If the format
            allows it (those of Pillow do not), little more than this region is read.

        Returns
        -------
        numpy.ndarray
            A copy of the pixels, with one axis for each slice in ``place``.

        Raises
        ------
        InputError
            If the file is damaged there.
        IndexError, ValueError
            If ``place`` does not match the image.
        """
        if len(place) != len(self.shape):
            raise ValueError(f"expected {len(self.shape)} indices, got {len(place)}")
        slices = [slice(0, 1)] * len(self._source.shape)
        for number, part, length in zip(self._order, place, self.shape, strict=True):
            slices[number] = _bounds(part, length)
        with refuse_damaged(self.path):
            piece = self._source.read(slices)
        others = [number for number in range(piece.ndim) if number not in self._order]
        piece = piece.transpose(self._order + others)
        kept = [slice(None) if isinstance(part, slice) else 0 for part in place]
        return np.asarray(piece[(*kept, *(0 for _ in others), ...)], self.dtype, order="C")

    @property
    def has_alpha(self) -> bool:
        """Whether a colour image has an alpha channel, which :meth:`read` leaves out."""
        return self._alpha is not None

    def is_transparent(self) -> bool:
        """Return whether any pixel is transparent; reads the alpha channel piece by piece."""
        number = self._alpha
        if number is None:
            return False
        opaque = 1 if self.dtype.kind == "f" else np.iinfo(self.dtype).max
        lengths = list(self._source.shape)
        lengths[number] = 1
        with refuse_damaged(self.path):
            for place in pieces(lengths, PIECE):
                slices = [slice(part.start, part.stop) for part in place]
                slices[number] = slice(len(COLOURS), len(COLOURS) + 1)
                if (self._source.read(slices) != opaque).any():
                    return True
        return False

    def length(self, axis: str) -> int:
        """Return the length of an axis, 1 if the image does not have it."""
        axes = self.metadata.axes
        return self.shape[axes.index(axis)] if axis in axes else 1

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> "ImageFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_image_file(
    path: str | Path,
    axes: str | None = None,
    indexed: bool = False,
    colour: bool | None = False,
    default_axes: str | None = None,
) -> ImageFile:
    """Open an image in one of the formats of :data:`READERS`.

    Parameters
    ----------
    path
        A file, the folder of an OME-Zarr image, or a scene of a microscope's file. A file of
        another ending is read as tif.
    axes
        Axes of the file, such as ``ZYX``, in place of its own metadata: one letter of TCZYX for
        each axis; those of length 1 may be omitted.
    indexed
        Whether it is a label image: the indices of a palette (indexed colours) are read as pixel
        values, and files in the formats of :data:`READERS_OF_LABELS`, too.
    colour
        Whether the image is in colour, and read as the channels red, green and blue; None: it may
        be, or not.
    default_axes
        Axes of a file that does not state any and has as many: those of its image, for a mask.

    Raises
    ------
    InputError
        If the file is missing, damaged or incomplete, in colour against ``colour`` or the reverse,
        holds several images, or has axes that neither its metadata nor ``axes`` name.
    """
    path = Path(path)
    source = _open(path, indexed)
    try:
        return ImageFile(path, source, axes, indexed, colour, default_axes)
    except BaseException:
        source.close()
        raise


def read_image(
    path: str | Path,
    axes: str | None = None,
    indexed: bool = False,
    colour: bool | None = False,
) -> np.ndarray:
    """Read a whole image in the pixel type of its file; see :func:`open_image_file`."""
    with open_image_file(path, axes, indexed, colour) as file:
        return file.read([slice(None)] * len(file.shape))


class _PillowSource(WholeSource):
    """A file that Pillow reads, as a whole.

    Parameters
    ----------
    form
        Pillow's name of its format.
    """

    def __init__(self, path: Path, form: str) -> None:
        content = path.read_bytes()
        with open_with_pillow(content, form) as image:
            if image.width * image.height > _PER_BYTE[form] * len(content):
                raise ValueError(f"it cannot hold {image.width} x {image.height} pixels")
            rgb = image.mode in ("RGB", "RGBA")
            if form == "PNG" and rgb and content[_BIT_DEPTH] == 16:
                raise InputError(
                    f"{path} has 16 bits for each colour, of which only 8 could be read; export it "
                    "as tif"
                )
            pixels = read_pgm(image) if form == "PPM" else np.asarray(image)
            super().__init__(pixels, "YXS"[: pixels.ndim], image.mode == "P", rgb)


READERS: dict[str, Callable[[Path], Source]] = {
    ".ome.tif": TifSource,
    ".ome.tiff": TifSource,
    ".tif": TifSource,
    ".tiff": TifSource,
    ".png": partial(_PillowSource, form="PNG"),
    ".jpg": partial(_PillowSource, form="JPEG"),
    ".jpeg": partial(_PillowSource, form="JPEG"),
    ".bmp": partial(_PillowSource, form="BMP"),
    ".pgm": partial(_PillowSource, form="PPM"),
    **dict.fromkeys(microscopes.ENDINGS, MicroscopeSource),
    ".ome.zarr": ZarrSource,
    ".zarr": ZarrSource,
}
"""What opens the files of each ending."""
READERS_OF_LABELS: dict[str, Callable[[Path], Source]] = {".npy": NpySource}
"""What opens the files of further endings, which are read as masks only."""
LOSSY = (".jpg", ".jpeg")
"""Endings of files whose compression changes pixels."""


def _open(path: Path, indexed: bool) -> Source:
    """Open a file by its ending; reject palettes unless ``indexed``."""
    name = path.name.lower()
    readers = READERS | READERS_OF_LABELS if indexed else READERS
    reader = next((readers[ending] for ending in readers if name.endswith(ending)), TifSource)
    if is_ome_zarr(path):
        reader = ZarrSource
    file = microscopes.file_of(path)
    if file:
        reader = MicroscopeSource
    if reader is ZarrSource and not path.is_dir():
        raise InputError(f"{path} does not exist or is not a folder; correct its path")
    if reader is not ZarrSource and not (file or path).is_file():
        raise InputError(f"{path} does not exist or is not a file; correct its path")
    with refuse_damaged(path):
        source = ZarrSource(path, indexed) if reader is ZarrSource else reader(path)
    if source.palette and not indexed:
        source.close()
        raise _colour(path)
    return source


@contextmanager
def refuse_damaged(path: Path) -> Iterator[None]:
    """Turn any error in reading a file into an InputError."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"permission denied: {path}; check the file permissions") from error
    except UNREADABLE as error:
        raise InputError(
            f"cannot read {path}, it seems damaged or incomplete ({plain(error)}); copy or export "
            "it again"
        ) from error


def _not_single(source: Source) -> list[int]:
    """Return the numbers of the axes longer than 1, and of Y and X."""
    return [
        number
        for number, (length, letter) in enumerate(zip(source.shape, source.axes, strict=True))
        if length > 1 or letter in "YX"
    ]


def _letters(
    path: Path,
    source: Source,
    axes: str | None,
    mask: bool,
    colour: bool | None,
    default: str | None,
) -> dict[int, str]:
    """Return the letter of each axis of a file by its number, without some of length 1.

    Raises
    ------
    InputError
        If it is a colour image, its axes are unknown, or ``axes`` does not match them.
    """
    numbers = _not_single(source)
    own = "".join(source.axes[number] for number in numbers)
    shape = tuple(source.shape[number] for number in numbers)
    if axes is None:
        if "S" in own and colour is not False:
            own = own.replace("S", "C")
        if "S" in own:
            raise _colour(path, shape[0] if own.startswith("S") else 0, mask)
        names = own if len(numbers) != 2 or _are_axes(own) else "YX"
        if default is not None and len(default) == len(numbers) and not _are_axes(names):
            names = default
        if not _are_axes(names):
            raise InputError(
                f"{path} has {len(shape)} axes of shape {shape} but does not say what they are "
                f"(axes {own}); write 'axes' in the dataset's config (or --axes), such as ZYX for "
                "a z-stack, TYX for a time series or CYX for channels"
            )
        return dict(zip(numbers, names, strict=True))
    if not _are_axes(axes):
        raise InputError(
            f"cannot read {path} with 'axes: {axes}'; write each of the letters T, C, Z, Y and X "
            "at most once, Y and X always, such as ZYX for a z-stack"
        )
    if len(axes) == len(source.shape):
        numbers = list(range(len(axes)))
    if len(axes) != len(numbers):
        compared = "more" if len(axes) > len(numbers) else "fewer"
        advice = "write one letter for each, such as ZYX for a z-stack"
        if mask and compared == "fewer":
            advice = "masks have no channels, so export the labels by themselves"
        raise InputError(
            f"{path} has {len(shape)} axes of shape {shape}, but 'axes: {axes}' has {compared} "
            f"letters; {advice}"
        )
    letters = dict(zip(numbers, axes, strict=True))
    # With `axes: ZYX` for stacks, a colour snapshot would be read as an image 3 pixels wide.
    if any(source.axes[number] == "S" and letter in "YX" for number, letter in letters.items()):
        raise _colour(path, mask=mask)
    return letters


def _find_alpha(
    path: Path, source: Source, letters: dict[int, str], colour: bool | None
) -> int | None:
    """Return the number of the axis of colours if it has transparency, to be read as colours.

    Raises
    ------
    InputError
        If the colours are not red, green and blue.
    """
    numbers = [number for number, letter in letters.items() if letter == "C"]
    if colour is False or not numbers or source.axes[numbers[0]] != "S":
        return None
    if not source.rgb:
        raise InputError(
            f"{path} has {source.shape[numbers[0]]} colours that are not red, green and blue (but "
            "such as those of print, or grey with transparency); convert it to RGB"
        )
    return numbers[0] if source.shape[numbers[0]] == len(COLOURS) + 1 else None


def _are_axes(names: str) -> bool:
    return {"Y", "X"} <= set(names) <= set(ORDER) and len(set(names)) == len(names)


def _bounds(part: int | slice, length: int) -> slice:
    """Return an index or slice of an axis as a slice with start and stop, by the rules of NumPy."""
    if not isinstance(part, slice):
        if not -length <= part < length:
            raise IndexError(f"index {part} is out of bounds for an axis of length {length}")
        return slice(part % length, part % length + 1)
    start, stop, step = part.indices(length)
    if step != 1:
        raise ValueError(f"expected a slice with step 1, got {step}")
    return slice(start, max(start, stop))


def _colour(path: Path, planes: int = 0, mask: bool = False) -> InputError:
    """Return the error for a colour image, or for a file that calls its ``planes`` colours."""
    if planes:
        return InputError(
            f"{path} has {planes} planes that it calls colours; say what they are with 'axes' in "
            "the dataset's config (or --axes), such as TYX for a time series, ZYX for a z-stack or "
            "CYX for channels"
        )
    if mask:
        return InputError(
            f"{path} is a mask in colour; export its labels as one channel, with a number for each "
            "object, as uint8 or uint16"
        )
    return InputError(
        f"{path} is a colour image (or has transparency); write 'colour: rgb' in the dataset's "
        "config to learn from colours (RGB, not indexed), or convert it to grey, one channel per "
        "file, in ImageJ by Image > Type > 8-bit or 16-bit"
    )
