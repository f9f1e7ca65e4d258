"""Pair the images, masks and clean images of a user's folders by name.

Reads file names only, and the description of tif files: several files may form one image.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from denoiseg_flow.data.files.ome_zarr import is_ome_zarr
from denoiseg_flow.data.files.tif import other_files
from denoiseg_flow.data.store import ENDINGS, is_image, stem
from denoiseg_flow.errors import InputError, plain
from denoiseg_flow.findings import Finding, count

# Endings that nobody expects to be read as images.
_TEXTS = {".txt", ".md", ".csv", ".tsv", ".json", ".yaml", ".yml", ".xml", ".log", ".pdf", ".html"}
_UNSEEN = {"thumbs.db", "desktop.ini", "zarr.json"}  # hidden on Windows, or part of a store
_NAMED = 3  # files named in one message


class Source(NamedTuple):
    """The files of one image."""

    name: str
    """File name without its ending, the same for image, mask and clean image."""
    image: Path
    mask: Path | None
    """None if the image is not annotated."""
    clean: Path | None


def find(
    images: str | Path, masks: str | Path | None = None, clean: str | Path | None = None
) -> list[Source]:
    """Pair the files of up to three folders by name without ending.

    Parameters
    ----------
    images
        Folder of images. An OME-TIFF in several files is listed under its first file.
    masks
        Folder of instance masks. An image without a mask is not annotated; an image whose mask is
        all zeros has no objects.
    clean
        Folder of noise-free images; may be ``images`` itself if these have no noise.

    Returns
    -------
    list of Source
        Sorted by name.

    Raises
    ------
    InputError
        If a folder is missing or has no image, two files have the same name without ending, or a
        mask or clean image has no image of the same name.
    """
    image_files = _list(images, "images")
    mask_files = {} if masks is None else _list(masks, "masks")
    clean_files = {} if clean is None else _list(clean, "clean")
    for key, files in (("masks", mask_files), ("clean", clean_files)):
        orphans = sorted(files.keys() - image_files.keys())
        if orphans:
            _refuse_orphans([files[name] for name in orphans], Path(images), key)
    return [
        Source(name, path, mask_files.get(name), clean_files.get(name))
        for name, path in sorted(image_files.items())
    ]


def _refuse_orphans(files: Sequence[Path], images: Path, key: str) -> None:
    for whole, parts in _wholes(_images_in(images)).items():
        if stem(files[0]) in map(stem, parts):
            raise InputError(
                f"{files[0]} belongs to one part of an image in several files, but the workflow "
                f"reads that image as a whole from {whole}; give one file of that name for the "
                "whole image"
            )
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    raise InputError(
        f"{files[0]}{more} has no image of the same name in {images}; correct config key '{key}', "
        "or rename or remove the file"
    )


def find_images(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Return image files by name without ending, in the order given; folders are expanded.

    An OME-TIFF in several files is listed under its first file. An image inside an OME-Zarr store,
    such as a field of a plate, is named by its path in the store: ``plate_A_1_0``.

    Raises
    ------
    InputError
        If a path does not exist or is not an image, a folder has no image, or two images have the
        same name.
    """
    files: dict[str, Path] = {}
    found = _found(paths)
    wholes = _wholes(found)
    for path in (path for path in found if path in wholes):
        name = stem(_name_in_store(path))
        if name in files:
            raise InputError(
                f"{files[name]} and {path} differ only in folder or ending, and their results "
                "would overwrite each other; rename or leave out one of them"
            )
        files[name] = path
    return files


def left_out(paths: Iterable[str | Path]) -> list[Finding]:
    """Return findings about files that are ignored, or read as parts of one image.

    Parameters
    ----------
    paths
        Folders and files, as given to :func:`find` or :func:`find_images`.
    """
    given = {path.resolve(): path for path in map(Path, paths)}
    findings = []
    for folder in given.values():
        others = [] if _is_there(folder) else _others_in(folder)
        others = [path for path in others if path.resolve() not in given]
        if others:
            n_folders = sum(path.is_dir() for path in others)
            counts = ((len(others) - n_folders, "file"), (n_folders, "folder"))
            listed = " and ".join(count(number, noun) for number, noun in counts if number)
            findings.append(
                Finding(
                    "note" if {path.suffix.lower() for path in others} <= _TEXTS else "warning",
                    "files left out",
                    f"Not read: {listed} in {folder} ({_named(others)}). Accepted endings are "
                    f"{', '.join(ENDINGS)}.",
                )
            )
    for whole, parts in _wholes(_found(given.values())).items():
        if parts:
            findings.append(
                Finding(
                    "note",
                    "files of one image",
                    f"Read together: {whole} and {count(len(parts), 'file')} ({_named(parts)}), an "
                    "OME-TIFF in several files.",
                )
            )
    return findings


def _named(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(plain(path.name) for path in paths[:_NAMED]) + more


def _found(paths: Iterable[str | Path]) -> list[Path]:
    """Return the image files among the paths and in the folders among them."""
    found = []
    for given in map(Path, paths):
        if not given.exists():
            raise InputError(f"{given} does not exist; correct its path")
        if _is_there(given):
            found.append(given)
            continue
        if not given.is_dir():
            raise InputError(f"{given} is not an image; accepted endings: {', '.join(ENDINGS)}")
        inside = _images_in(given)
        if not inside:
            raise InputError(
                f"folder {given} has no images; accepted endings: {', '.join(ENDINGS)}"
            )
        found += inside
    return found


def _wholes(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """Return the first file of each image, with the other files of that image."""
    wholes, taken, there = {}, set(), set(paths)
    for path in paths:
        if path not in taken:
            others = other_files(path) if path.suffix.lower() in (".tif", ".tiff") else []
            wholes[path] = [other for name in others if (other := path.with_name(name)) in there]
            taken.update(wholes[path])
    # A file may only point to another one as the first of its image.
    return {whole: parts for whole, parts in wholes.items() if whole not in taken}


def _name_in_store(path: Path) -> Path:
    """Return a path named after the place of an image in its OME-Zarr store; others unchanged."""
    if is_image(path):
        return path
    path = path.absolute()
    inside = [path.name]
    for parent in path.parents:
        if is_image(parent) and parent.suffix.lower() == ".zarr":
            return Path("_".join([stem(parent), *reversed(inside)]))
        inside.append(parent.name)
    return path


def _images_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [folder / name for name in sorted(each.name for each in entries if _is_there(each))]


def _others_in(folder: Path) -> list[Path]:
    """Return everything in a folder that is neither an image nor hidden."""
    with os.scandir(folder) as entries:
        names = sorted(
            each.name
            for each in entries
            if not _is_there(each) and each.name[0] != "." and each.name.lower() not in _UNSEEN
        )
    return [folder / name for name in names]


def _is_there(path: Path | os.DirEntry[str]) -> bool:
    """Return whether a path is an image file, or the folder of an OME-Zarr image."""
    if not path.is_dir():
        return is_image(path.name) and not path.name.lower().endswith(".zarr")
    named = is_image(path.name) and path.name.lower().endswith(".zarr")
    return named or (not path.name.startswith(".") and is_ome_zarr(Path(path)))


def _list(folder: str | Path, key: str) -> dict[str, Path]:
    """Return the image files of a folder by stem."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"folder {folder} (config key '{key}') {what}; correct its path")
    files: dict[str, Path] = {}
    for path in _wholes(_images_in(folder)):
        name = stem(path)
        if name in files:
            raise InputError(
                f"{files[name]} and {path.name} differ only in their ending; rename or remove one "
                "of them"
            )
        files[name] = path
    if not files:
        seen = {p.suffix for p in folder.iterdir() if p.suffix and not p.name.startswith(".")}
        others = f", only {', '.join(sorted(seen)[:5])} files" if seen else ""
        raise InputError(
            f"folder {folder} (config key '{key}') has no images{others}; accepted endings: "
            f"{', '.join(ENDINGS)}"
        )
    return files
