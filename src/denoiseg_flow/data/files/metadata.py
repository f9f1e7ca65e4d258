"""Metadata of images: axes, pixel size, time step, and names and colours of channels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice

ORDER = "TCZYX"  # order of the axes of all arrays in this package
SPATIAL = "ZYX"
WHITE = "FFFFFF"
_COLOURS = ("00FFFF", "FF00FF", "FFFF00", "FF0000", "00FF00", "0000FF")


def numbered(names: Sequence[str | None]) -> tuple[str, ...]:
    """Return channel names, with numbers for unnamed channels; empty if all are unnamed."""
    if not any(names):
        return ()
    return tuple(str(name or f"C{number}") for number, name in enumerate(names, start=1))


def coloured(colours: Sequence[str | None]) -> tuple[str, ...]:
    """Return a colour for each channel, with defaults where it is unknown; empty if all are.

    Parameters
    ----------
    colours
        Six hexadecimal digits for red, green and blue each. White for all of several channels is
        what programs write that know none.
    """
    if not any(colours) or (len(colours) > 1 and set(colours) == {WHITE}):
        return ()
    return tuple(
        colour or default
        for colour, default in zip(colours, default_colours(len(colours)), strict=True)
    )


def default_colours(count: int) -> tuple[str, ...]:
    """Return colours for a number of channels, which differ as long as there are no more than 6."""
    return (WHITE,) if count == 1 else tuple(islice(cycle(_COLOURS), count))


@dataclass(frozen=True)
class Metadata:
    """Axes, pixel size, time step and channels of an image.

    Attributes
    ----------
    axes
        One letter for each axis, in the order ``TCZYX``: time, channel and space.
    pixel_size
        Micrometres per pixel along Z, Y and X, as far as known.
    channels
        Names of the channels; empty if unknown.
    channel_colours
        Colours in which viewers show the channels, six hexadecimal digits each; empty if unknown.
    time_step
        Seconds from one time point to the next; None if unknown.
    """

    axes: str
    pixel_size: Mapping[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    channel_colours: tuple[str, ...] = ()
    time_step: float | None = None

    @classmethod
    def of_shape(cls, shape: tuple[int, ...]) -> "Metadata":
        """Return the metadata of a plane (y, x) or volume (z, y, x) with axes only."""
        return cls(SPATIAL[-len(shape) :])

    @property
    def spatial_axes(self) -> str:
        """YX for planes and ZYX for volumes, without other axes."""
        return "".join(axis for axis in self.axes if axis in SPATIAL)

    def only(self, axes: Iterable[str]) -> "Metadata":
        """Return the metadata of the image when only these axes are kept."""
        kept = "".join(axis for axis in self.axes if axis in axes)
        size = {axis: length for axis, length in self.pixel_size.items() if axis in kept}
        channels, colours = (self.channels, self.channel_colours) if "C" in kept else ((), ())
        return replace(
            self, axes=kept, pixel_size=size, channels=channels, channel_colours=colours,
            time_step=self.time_step if "T" in kept else None,
        )  # fmt: skip

    def with_channels(self, names: Iterable[str]) -> "Metadata":
        """Return the metadata with a leading channel axis."""
        return replace(self, axes=f"C{self.axes}", channels=tuple(names))

    def spacing(self) -> tuple[float, ...] | None:
        """Return the pixel size along the spatial axes; None unless all are known."""
        known = all(axis in self.pixel_size for axis in self.spatial_axes)
        return tuple(self.pixel_size[axis] for axis in self.spatial_axes) if known else None

    def plane_step(self) -> float:
        """Return the distance of z-slices in widths of a pixel; 1 if unknown."""
        spacing = self.spacing()
        return 1.0 if spacing is None else spacing[0] / spacing[-1]
