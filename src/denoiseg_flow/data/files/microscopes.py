"""Read files of microscopes (nd2, lif and czi) with the readers of bioio, which are optional.

A file may hold several images, called scenes. The path of a scene is that of a file in a folder:
``file.lif/scene``.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from denoiseg_flow.data.files.metadata import ORDER, numbered
from denoiseg_flow.data.files.units import micrometres, seconds
from denoiseg_flow.errors import InputError, plain

_PLANES = {"chunk_dims": ["Y", "X"]}  # read one plane at a time, not a whole stack
_READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".nd2": ("bioio_nd2", {}),
    ".lif": ("bioio_lif", _PLANES),
    ".czi": ("bioio_czi", _PLANES),
}
ENDINGS = tuple(_READERS)


class MicroscopeSource:
    """The only scene of a file, or a scene given by its path.

    Attributes
    ----------
    shape, axes, dtype, pixel_size, channels, channel_colours, time_step
        Like those of `tif.TifSource`; Q is an axis other than TCZYX and S. Tiles of a mosaic are
        joined if the reader can do so.

    Raises
    ------
    InputError
        If the package for the format is missing, the file is damaged or has no such scene, or it
        has several and none is given.
    """

    palette = False

    def __init__(self, path: Path) -> None:
        self._path = path
        file = file_of(path)
        with _reading(file or path):
            reader = _open(file or path)
            names = _named(reader.scenes)
            if file is None and len(names) > 1:
                raise InputError(
                    f"{path} holds {len(names)} scenes; give one of them, such as {path / names[0]}"
                )
            if file is not None and path.name not in names:
                raise InputError(f"{file} has no scene {path.name}; available: {', '.join(names)}")
            reader.set_scene(names.index(path.name) if file else 0)
            image = reader.xarray_dask_data
            if "M" in image.dims:
                image = reader.mosaic_xarray_dask_data
            self._reader, self._pixels = reader, image.data
            self.shape, self.dtype = tuple(image.shape), np.dtype(image.dtype).newbyteorder("=")
            self.axes = "".join(
                str(name) if str(name) in f"{ORDER}S" else "Q" for name in image.dims
            )
            sizes = zip("ZYX", reader.physical_pixel_sizes, strict=True)
            found = {axis: micrometres(size, "µm") for axis, size in sizes}
            self.pixel_size = {axis: size for axis, size in found.items() if size}
            self.channels = numbered(reader.channel_names or ())
            self.channel_colours: tuple[str, ...] = ()
            step = reader.time_interval
            self.time_step = seconds(step.total_seconds(), "s") if step else None

    def read(self, slices: Sequence[slice]) -> np.ndarray:
        """Return a copy of the pixels in a slice of each dimension, plane by plane."""
        with _reading(self._path):
            return np.array(self._pixels[tuple(slices)], self.dtype)

    def close(self) -> None:
        """Release the file; readers open it anew for each plane."""
        del self._reader, self._pixels


def file_of(image: Path) -> Path | None:
    """Return the file that a scene is in; None for the path of anything else."""
    return image.parent if is_scene(image) and image.parent.is_file() else None


def is_scene(image: PurePath) -> bool:
    """Return whether a path is that of a scene, by its name alone."""
    return image.parent.name.lower().endswith(ENDINGS)


def scenes_of(path: Path) -> dict[str, Path]:
    """Return the paths of the scenes of a file by name; empty unless there are several.

    Raises
    ------
    InputError
        If the package for the format is missing, or the file is damaged.
    """
    if not (path.name.lower().endswith(ENDINGS) and path.is_file()):
        return {}
    status = path.stat()
    names = _scene_names(path, status.st_mtime_ns, status.st_size)
    return {name: path / name for name in names} if len(names) > 1 else {}


@cache  # because folders are listed several times
def _scene_names(path: Path, *_: int) -> tuple[str, ...]:
    with _reading(path):
        return _named(_open(path).scenes)


def _named(scenes: Sequence[str]) -> tuple[str, ...]:
    """Return different names of scenes that can be names of files."""
    names: list[str] = []
    for number, scene in enumerate(scenes):
        name = re.sub(r"[^\w+.-]+", "-", str(scene)).strip("-.") or f"scene{number}"
        names.append(f"{name}-{number}" if name in names else name)
    return tuple(names)


def _open(path: Path) -> Any:
    """Return a reader of bioio for a file."""
    ending = next(ending for ending in ENDINGS if path.name.lower().endswith(ending))
    package, options = _READERS[ending]
    if "::" in str(path):
        raise InputError(
            f"the path {path} has '::', which bioio would take for an address; rename it"
        )
    try:
        module = import_module(package)
    except ImportError as error:
        name = package.replace("_", "-")
        raise InputError(
            f"{path} is a file of a microscope, and {name} is needed to read it; run "
            f"'python -m pip install {name}', or export it as OME-TIFF"
        ) from error
    return module.Reader(path.absolute(), **options)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error of a reader, which may be of its own type, into an InputError."""
    try:
        yield
    except (InputError, PermissionError):
        raise
    except Exception as error:
        raise InputError(
            f"cannot read {path}, it seems damaged or incomplete ({plain(error)}); copy or export "
            "it again"
        ) from error
