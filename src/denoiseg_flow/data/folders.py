"""Pair the images, masks and clean images of a user's folders by name, from the listing alone."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from denoiseg_flow.data.images import ENDINGS, is_image, stem
from denoiseg_flow.errors import InputError


class Source(NamedTuple):
    """The files of one image."""

    name: str
    """File name without its ending; the same for image, mask and clean image."""
    image: Path
    mask: Path | None
    """None where the image is not annotated."""
    clean: Path | None


def find(
    images: str | Path, masks: str | Path | None = None, clean: str | Path | None = None
) -> list[Source]:
    """Pair the files of up to three folders by name without ending.

    Parameters
    ----------
    images
        Folder of images.
    masks
        Folder of instance masks. An image without a mask is not annotated; a mask of zeros says
        that an image has no objects.
    clean
        Folder of noise-free images; may be ``images`` itself where those have no noise.

    Returns
    -------
    list of Source
        Sorted by name.

    Raises
    ------
    InputError
        If a folder is missing or has no image, if two files have the same name without ending,
        or if a mask or clean image belongs to no image.
    """
    image_files = _list(images, "images")
    mask_files = {} if masks is None else _list(masks, "masks")
    clean_files = {} if clean is None else _list(clean, "clean")
    for key, files in (("masks", mask_files), ("clean", clean_files)):
        orphans = sorted(files.keys() - image_files.keys())
        if orphans:
            more = f" (and {len(orphans) - 1} more)" if len(orphans) > 1 else ""
            raise InputError(
                f"{files[orphans[0]]}{more} has no image of the same name in {images}: correct "
                f"the folder under `{key}`, or rename or remove the file"
            )
    return [
        Source(name, path, mask_files.get(name), clean_files.get(name))
        for name, path in sorted(image_files.items())
    ]


def find_images(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Return image files by name without ending, in the order given; folders stand for theirs.

    Raises
    ------
    InputError
        If a path does not exist or is no image, a folder holds none, or two have the same name.
    """
    files: dict[str, Path] = {}
    for given in map(Path, paths):
        if not given.exists():
            raise InputError(f"{given} does not exist: correct its path")
        if _is_there(given):
            found = [given]
        elif given.is_dir():
            found = _images_in(given)
        else:
            raise InputError(f"{given} is no image: accepted endings are {', '.join(ENDINGS)}")
        if not found:
            raise InputError(
                f"folder {given} holds no image: accepted endings are {', '.join(ENDINGS)}"
            )
        for path in found:
            name = stem(path)
            if name in files:
                raise InputError(
                    f"{files[name]} and {path} have the same name but for folder and ending, so "
                    "that one result would overwrite the other: rename or leave out one of them"
                )
            files[name] = path
    return files


def _images_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [folder / name for name in sorted(each.name for each in entries if _is_there(each))]


def _is_there(path: Path | os.DirEntry[str]) -> bool:
    """Return whether a path is a file named like an image, or a folder named like a zarr store."""
    return is_image(path.name) and path.is_dir() == path.name.lower().endswith(".zarr")


def _list(folder: str | Path, key: str) -> dict[str, Path]:
    """Return the image files of a folder by stem."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"folder {folder} (config key `{key}`) {what}: correct its path")
    files: dict[str, Path] = {}
    for path in _images_in(folder):
        name = stem(path)
        if name in files:
            raise InputError(
                f"{files[name]} and {path.name} have the same name but for the ending: rename or "
                "remove one of them"
            )
        files[name] = path
    if not files:
        seen = {p.suffix for p in folder.iterdir() if p.suffix and not p.name.startswith(".")}
        others = f" (it holds {', '.join(sorted(seen)[:5])} files)" if seen else ""
        raise InputError(
            f"folder {folder} (config key `{key}`) holds no image{others}: accepted endings are "
            f"{', '.join(ENDINGS)}"
        )
    return files
