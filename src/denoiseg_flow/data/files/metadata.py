"""What an image file says of its pixels beside their values: axes, pixel size, channel names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

ORDER = "TCZYX"  # of the axes of every array in this package
SPATIAL = "ZYX"


def numbered(names: Sequence[str | None]) -> tuple[str, ...]:
    """Return names of channels, with a number for one without a name; empty if none has one."""
    if not any(names):
        return ()
    return tuple(str(name or f"C{number}") for number, name in enumerate(names, start=1))


@dataclass(frozen=True)
class Metadata:
    """What is known of the axes of an image.

    Attributes
    ----------
    axes
        One letter for each dimension, in the order of ``TCZYX``: time, channel, and place.
    pixel_size
        Micrometres from one pixel to the next along the axes Z, Y and X, those that are known.
    channels
        Names of the channels; empty where there are none.
    """

    axes: str
    pixel_size: Mapping[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()

    @classmethod
    def of_shape(cls, shape: tuple[int, ...]) -> "Metadata":
        """Return what is known of a plane (y, x) or volume (z, y, x) without any metadata."""
        return cls(SPATIAL[-len(shape) :])

    @property
    def spatial_axes(self) -> str:
        """YX for planes and ZYX for volumes, whatever other axes there are."""
        return "".join(axis for axis in self.axes if axis in SPATIAL)

    def only(self, axes: Iterable[str]) -> "Metadata":
        """Return the metadata of an image with some of the axes, the others indexed away."""
        kept = "".join(axis for axis in self.axes if axis in axes)
        size = {axis: length for axis, length in self.pixel_size.items() if axis in kept}
        return replace(
            self, axes=kept, pixel_size=size, channels=self.channels if "C" in kept else ()
        )

    def with_channels(self, names: Iterable[str]) -> "Metadata":
        """Return the metadata of an image that has a value of each channel at every pixel."""
        return replace(self, axes=f"C{self.axes}", channels=tuple(names))

    def spacing(self) -> tuple[float, ...] | None:
        """Return the pixel size along the spatial axes; None unless it is known along all."""
        known = all(axis in self.pixel_size for axis in self.spatial_axes)
        return tuple(self.pixel_size[axis] for axis in self.spatial_axes) if known else None

    def plane_step(self) -> float:
        """Return the distance of planes over the width of a pixel; 1 if that is not known."""
        spacing = self.spacing()
        return 1.0 if spacing is None else spacing[0] / spacing[-1]
