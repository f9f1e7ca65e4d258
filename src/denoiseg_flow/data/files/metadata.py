"""Metadata of images: axes, pixel size and channel names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

ORDER = "TCZYX"  # order of the axes of all arrays in this package
SPATIAL = "ZYX"
COLOURS = ("red", "green", "blue")


def numbered(names: Sequence[str | None]) -> tuple[str, ...]:
    """Return channel names, with numbers for unnamed channels; empty if all are unnamed."""
    if not any(names):
        return ()
    return tuple(str(name or f"C{number}") for number, name in enumerate(names, start=1))


@dataclass(frozen=True)
class Metadata:
    """Axes, pixel size and channel names of an image.

    Attributes
    ----------
    axes
        One letter for each axis, in the order ``TCZYX``: time, channel and space.
    pixel_size
        Micrometres per pixel along Z, Y and X, as far as known.
    channels
        Names of the channels; empty if unknown.
    colour
        Whether the channels are the :data:`COLOURS` of one picture.
    """

    axes: str
    pixel_size: Mapping[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    colour: bool = False

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
        channels, colour = (self.channels, self.colour) if "C" in kept else ((), False)
        return replace(self, axes=kept, pixel_size=size, channels=channels, colour=colour)

    def in_colour(self) -> "Metadata":
        """Return the metadata of the image when its three channels are colours."""
        return replace(self, channels=COLOURS, colour=True)

    def with_channels(self, names: Iterable[str]) -> "Metadata":
        """Return the metadata with a leading channel axis."""
        return replace(self, axes=f"C{self.axes}", channels=tuple(names), colour=False)

    def spacing(self) -> tuple[float, ...] | None:
        """Return the pixel size along the spatial axes; None unless all are known."""
        known = all(axis in self.pixel_size for axis in self.spatial_axes)
        return tuple(self.pixel_size[axis] for axis in self.spatial_axes) if known else None

    def plane_step(self) -> float:
        """Return the distance of z-slices in widths of a pixel; 1 if unknown."""
        spacing = self.spacing()
        return 1.0 if spacing is None else spacing[0] / spacing[-1]
