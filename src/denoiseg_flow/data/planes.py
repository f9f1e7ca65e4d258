"""Get the one plane of pixels, and its pixel size, out of a tif or png file."""

import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from denoiseg_flow.errors import InputError

UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    SyntaxError,  # Pillow, for a broken png
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_plane(path: str | Path, indexed: bool) -> np.ndarray:
    """Read the single grey plane of a tif or png file.

    Parameters
    ----------
    path
        The file; every ending but ``.png`` is read as tif.
    indexed
        Whether the indices of a palette (indexed colours) count as pixel values, as they do in
        label images.

    Returns
    -------
    numpy.ndarray
        Shape (y, x), with the pixel type of the file.

    Raises
    ------
    InputError
        If the file is missing, damaged, in colour, or holds more than one plane.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file: correct its path")
    try:
        if path.name.lower().endswith(".png"):
            return _read_with_pillow(path, indexed)
        return _read_tif(path, indexed)
    except PermissionError as error:
        raise InputError(f"{path} may not be read: give yourself read permission") from error
    except UNREADABLE as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{path} cannot be read, it seems damaged or incomplete ({reason}): copy or export "
            "it again"
        ) from error


def _read_tif(path: Path, indexed: bool) -> np.ndarray:
    with tifffile.TiffFile(path) as tif:
        if not tif.series:
            raise ValueError("no image inside")
        if len(tif.series) > 1:
            raise InputError(
                f"{path} holds {len(tif.series)} images: export one grey image per file"
            )
        series = tif.series[0]
        if "S" in series.axes or (
            series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE and not indexed
        ):
            raise _colour(path)
        if len(series.shape) != 2:
            raise InputError(
                f"{path} is not a single plane but has axes {series.axes} of shape "
                f"{series.shape}: export one grey 2D image per file"
            )
        try:
            return series.asarray()
        except ValueError as error:
            # LZW and JPEG need either the optional package imagecodecs or Pillow's libtiff.
            if "imagecodecs" not in str(error):
                raise
    return _read_with_pillow(path, indexed)


def _read_with_pillow(path: Path, indexed: bool) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode == "P" and not indexed:
            raise _colour(path)
        plane = np.asarray(image)
    if plane.ndim != 2:
        raise _colour(path)
    return plane


def _colour(path: Path) -> InputError:
    return InputError(
        f"{path} is a colour image (or has transparency): convert it to grey, one channel per "
        "file, in ImageJ by Image > Type > 8-bit or 16-bit"
    )


def read_pixel_size(path: str | Path) -> tuple[float, float] | None:
    """Return the height and width of a pixel in micrometres, or None where the file has none.

    Read from OME metadata, from ImageJ's unit and resolution, or from a resolution in pixels per
    centimetre. Dots per inch are left out, because programs write a meaningless 72 by default.
    """
    if Path(path).name.lower().endswith(".png"):
        return None
    try:
        with tifffile.TiffFile(path) as tif:
            return _ome_pixel_size(tif) or _tif_pixel_size(tif)
    except UNREADABLE:
        return None


_MICROMETRES = {
    "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0,
    "mm": 1e3, "cm": 1e4,
}  # fmt: skip


def _ome_pixel_size(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    if not tif.is_ome:
        return None
    pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    sizes = []
    for axis in "YX":
        if f"PhysicalSize{axis}" not in pixels:
            return None
        scale = _MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if scale is None:
            return None
        sizes.append(float(pixels[f"PhysicalSize{axis}"]) * scale)
    return (sizes[0], sizes[1]) if min(sizes) > 0 else None


def _tif_pixel_size(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    page = tif.pages.first
    imagej_unit = str((tif.imagej_metadata or {}).get("unit", "")).lower()
    if imagej_unit in _MICROMETRES:
        scale = _MICROMETRES[imagej_unit]
    elif page.resolutionunit == tifffile.RESUNIT.CENTIMETER:
        scale = 1e4
    else:
        return None
    x_per_unit, y_per_unit = page.resolution
    if min(x_per_unit, y_per_unit) <= 0:
        return None
    return scale / y_per_unit, scale / x_per_unit
