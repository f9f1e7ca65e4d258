"""Pair the images, masks, clean images and second acquisitions of a user's folders by name.

Reads file names only, and the description of tif files: several files may form one image.
Subfolders are read if the config says what they stand for: the subset or the group of their images.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from denoiseg_flow.data.annotations import (
    ANNOTATIONS,
    may_annotate,
    pair,
    pair_coco,
    possible_images,
)
from denoiseg_flow.data.files.microscopes import ENDINGS as MICROSCOPES
from denoiseg_flow.data.files.microscopes import file_of, lacks_reader, scenes_of
from denoiseg_flow.data.files.ome_zarr import is_ome_zarr
from denoiseg_flow.data.files.plates import fields_of, is_plate, place_of
from denoiseg_flow.data.files.reader import LOSSY
from denoiseg_flow.data.files.tif import other_files
from denoiseg_flow.data.manifest import SUBSETS
from denoiseg_flow.data.store import ENDINGS, is_image, stem
from denoiseg_flow.errors import InputError, plain
from denoiseg_flow.findings import Finding, count, listed

# Endings that nobody expects to be read as images.
_TEXTS = {".txt", ".md", ".csv", ".tsv", ".json", ".yaml", ".yml", ".xml", ".log", ".pdf", ".html"}
_UNSEEN = {"thumbs.db", "desktop.ini", "zarr.json"}  # hidden on Windows, or part of a store


class Source(NamedTuple):
    """The files of one image."""

    name: str
    """File name without its ending, the same for image, mask and clean image; after the names of
    the subfolders, joined by underscores."""
    image: Path
    mask: Path | None
    """None if the image is not annotated."""
    clean: Path | None
    second: Path | None
    """Another acquisition of the same field."""
    file: str
    """Path of the image in its folder, with slashes; that of a plate is the one it is in."""
    entry: str | None = None
    """What the image is called in the COCO json that annotates it, if ``mask`` is one."""


def find(
    images: str | Path,
    masks: str | Path | None = None,
    clean: str | Path | None = None,
    subfolders: Sequence[str] = (),
    second: str | Path | None = None,
) -> list[Source]:
    """Pair the files of up to four folders by name without ending.

    To the name of a mask, the ending of its image or a word such as ``_seg`` may be appended.

    Parameters
    ----------
    images
        Folder of images. An OME-TIFF in several files is listed under its first file, a plate under
        its fields, a file of a microscope with several scenes under these. Any of the folders may
        be a plate or such a file itself.
    masks
        Folder of instance masks or outlines, which may be ``images`` itself if the name of each
        has a word appended or the ending of an annotation; or a COCO json of all images. An image
        without a mask is not annotated; an image whose mask is all zeros has no objects.
    clean
        Folder of noise-free images; may be ``images`` itself if these have no noise.
    subfolders
        What each level of subfolders of all folders stands for, "subset" or "group". All files are
        on the last level. Empty: subfolders are not read.
    second
        Folder of second acquisitions, one of every image.

    Returns
    -------
    list of Source
        Sorted by name.

    Raises
    ------
    InputError
        If a folder is missing or has no image, two images would have the same name, a file of
        another folder has no image of the same name, an image has two masks or no second
        acquisition, or an image or subfolder is where it is not read.
    """
    kinds = {"images": images, "masks": masks, "clean": clean, "second": second}
    roots = {key: Path(folder) for key, folder in kinds.items() if folder is not None}
    listed = _list("images", roots, subfolders)
    if "masks" in roots and roots["masks"].resolve() == roots["images"].resolve():
        roots["masks"] = roots["images"]
        masks_inside = set(_masks_among([path for _, path in listed]))
        listed = [each for each in listed if each[1] not in masks_inside]
    image_files = _by_name(listed)
    mask_files, entries = _find_masks(image_files, roots, subfolders)
    annotations = set(mask_files.values())
    files: dict[str, dict[str, Path]] = {"clean": {}, "second": {}}
    for key in files.keys() & roots.keys():
        others = [each for each in _list(key, roots, subfolders) if each[1] not in annotations]
        files[key] = _by_name(others)
        orphans = [path for name, path in others if name not in image_files]
        _refuse_orphans(orphans, key, roots)
    if "second" in roots:
        _check_seconds(image_files, files["second"], roots)
    inside = _inside_folder(image_files, roots["images"])
    return [
        Source(
            name, path, mask_files.get(name), files["clean"].get(name), files["second"].get(name),
            inside[name], entries.get(name),
        )
        for name, path in sorted(image_files.items())
    ]  # fmt: skip


def _masks_among(files: Sequence[Path]) -> list[Path]:
    """Return the files of a folder that annotate others of it by their names: ``a_mask.tif``."""
    names = {path: stem(path) for path in files}
    # Few names do, and folders may have many files, which every job lists when it starts.
    marked = [path for path, name in names.items() if may_annotate(name)]
    known = {(path.parent, name) for path, name in names.items()} if marked else set()
    return [
        path
        for path in marked
        if any(
            (path.parent, each) in known
            for each in possible_images(names[path])
            if each != names[path]
        )
    ]


def _find_masks(
    images: Mapping[str, Path], roots: Mapping[str, Path], subfolders: Sequence[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the masks of images by name, and what a COCO json calls the images."""
    if "masks" not in roots:
        return {}, {}
    if roots["masks"].is_file():
        entries = pair_coco(roots["masks"], _inside_folder(images, roots["images"]))
        return dict.fromkeys(entries, roots["masks"]), entries
    known = set(images.values())
    listed = [each for each in _list("masks", roots, subfolders) if each[1] not in known]
    if not listed:
        raise InputError(
            f"config key 'masks' names the folder of images itself ({roots['images']}), but no "
            "file in it annotates another; name the folder of masks, or append _mask to their names"
        )
    masks, orphans = pair(listed, images)
    if masks:  # other json files are common
        orphans = [each for each in orphans if each.suffix.lower() != ".json"]
    _refuse_orphans(orphans, "masks", roots)
    return masks, {}


def _inside_folder(files: Mapping[str, Path], root: Path) -> dict[str, str]:
    """Return the paths of files within a folder, with slashes; those of a plate include it."""
    start = root if root.is_dir() and not is_plate(root) else root.parent
    return {name: path.relative_to(start).as_posix() for name, path in files.items()}


def _check_seconds(
    images: Mapping[str, Path], seconds: Mapping[str, Path], roots: Mapping[str, Path]
) -> None:
    """Raise InputError unless every image has a second acquisition in another folder."""
    if roots["second"].resolve() == roots["images"].resolve():
        raise InputError(
            f"config key 'second' names the folder of images itself ({roots['images']}); name the "
            "folder of the second acquisitions, whose noise is another"
        )
    alone = sorted(images.keys() - seconds.keys())
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise InputError(
            f"{images[alone[0]]}{more} has no second acquisition of the same name in "
            f"{roots['second']} (config key 'second'); add it, or remove the image"
        )


def _refuse_orphans(files: Sequence[Path], key: str, roots: Mapping[str, Path]) -> None:
    """Raise InputError if there are files of a folder that belong to no image."""
    if not files:
        return
    place = place_of(files[0])
    whole_file = Path(place.plate) if place else file_of(files[0]) or files[0]
    inside = "." if whole_file == roots[key] else whole_file.parent.relative_to(roots[key])
    images = roots["images"] / inside
    for whole, parts in _wholes(_images_in(images) if images.is_dir() else []).items():
        if stem(files[0]) in map(stem, parts):
            raise InputError(
                f"{files[0]} belongs to one part of an image in several files, but the workflow "
                f"reads that image as a whole from {whole}; give one file of that name for the "
                "whole image"
            )
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    coco = f", write 'masks: {files[0]}' if it is a COCO json of all images"
    raise InputError(
        f"{files[0]}{more} has no image of the same name in {images}; correct config key '{key}'"
        f"{coco if files[0].suffix.lower() == '.json' else ''}, or rename or remove the file"
    )


def read_subfolders(
    folders: Collection[Path], subfolders: Sequence[str], roots: Collection[Path] = ()
) -> list[list[Path]]:
    """Return the subfolders of some folders that :func:`find` reads, level by level.

    Parameters
    ----------
    subfolders
        See :func:`find`; the errors are the same.
    roots
        The folders of images, masks and clean images, if ``folders`` are not all of them. One
        inside another does not count as its subfolder.
    """
    apart = {path.resolve() for path in roots or folders}
    levels: list[list[Path]] = []
    for kind in subfolders:
        above = levels[-1] if levels else folders
        levels.append([inside for folder in above for inside in _inside(folder, kind, apart)])
    return levels


def _inside(folder: Path, kind: str, apart: Collection[Path]) -> list[Path]:
    """Return the subfolders of a folder, each of which stands for a subset or group of images."""
    key = f"'{kind}: folder' of the split"
    wanted = "train, val or test" if kind == "subset" else "a subfolder for its group"
    if is_plate(folder):
        raise InputError(
            f"{folder} is a plate, which has no subfolders ({key}); write 'group: well' for the "
            "groups, and put plates into the subfolders of another folder for the subsets"
        )
    if beside := _images_in(folder):
        raise InputError(f"{beside[0]} is in no subfolder of {folder} ({key}); move it to {wanted}")
    with os.scandir(folder) as entries:
        found = sorted(Path(each) for each in entries if each.is_dir() and each.name[0] != ".")
    found = [path for path in found if path.resolve() not in apart]
    odd = [path for path in found if set("{}<>") & set(path.name)]
    if odd:
        raise InputError(
            f"the name of folder {odd[0]} has one of {{, }}, < and >, which Snakemake would "
            "replace; rename it"
        )
    unknown = [path for path in found if kind == "subset" and path.name not in SUBSETS]
    if unknown:
        raise InputError(
            f"folder {unknown[0]} is named like no subset ({key}); rename it to train, val or "
            "test, or move it elsewhere"
        )
    if not found:
        raise InputError(f"folder {folder} has no subfolders ({key}); move its images to {wanted}")
    return found


def find_images(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Return image files by name without ending, in the order given; folders are expanded.

    Files of a folder that annotate others by their names, such as ``a_mask.tif``, are left out.
    An OME-TIFF in several files is listed under its first file. Of a plate, all fields are listed,
    as ``A1_f0``, or ``plate_A1_f0`` if the plate is not the only path. A single image inside an
    OME-Zarr store, such as a field, is named by its path in the store: ``plate_A_1_0``. A file of a
    microscope with several scenes is listed under these: ``file_scene``.

    Raises
    ------
    InputError
        If a path does not exist or is not an image, a folder has no image, or two images have the
        same name.
    """
    files: dict[str, Path] = {}
    given = list(map(Path, paths))
    if len(given) == 1 and is_plate(given[0]):
        return fields_of(given[0])
    found = _found(given)
    wholes = _wholes(found)
    for whole in (path for path in found if path in wholes):
        for name, path in _images_of(whole, stem(_name_in_store(whole))).items():
            if name in files:
                raise InputError(
                    f"{files[name]} and {path} differ only in folder or ending, and their results "
                    "would overwrite each other; rename or leave out one of them"
                )
            files[name] = path
    return files


def _images_of(path: Path, name: str) -> dict[str, Path]:
    """Return an image by its name, or the fields of a plate or scenes of a file by theirs."""
    found = fields_of(path) if is_plate(path) else scenes_of(path)
    return {f"{name}_{part}": inside for part, inside in found.items()} or {name: path}


def about_files(
    paths: Iterable[str | Path],
    subfolders: Sequence[str] = (),
    masks: str | Path | None = None,
    sources: Sequence[Source] = (),
) -> list[Finding]:
    """Return findings about files that are ignored, lossy, or read as parts of one image.

    Parameters
    ----------
    paths, subfolders
        Folders and files of images, as given to :func:`find` or :func:`find_images`.
    masks, sources
        The folder of masks or COCO json, if there is one, and what :func:`find` returned.
    """
    images = list(map(Path, paths))
    roots = [*images, *([Path(masks)] if masks and Path(masks).is_dir() else [])]
    levels = [roots, *read_subfolders(roots, subfolders)]
    of_images = {
        path.resolve()
        for level in [images, *read_subfolders(images, subfolders, roots)]
        for path in level
    }
    given = {path.resolve(): path for level in levels for path in level}
    annotations = {source.mask for source in sources}
    findings = []
    for resolved, folder in given.items():
        if _is_there(folder):
            continue
        endings = ENDINGS if resolved in of_images else ANNOTATIONS
        others = _others_in(folder, endings)
        if endings is ANNOTATIONS:  # see find
            others = sorted([*others, *_images_in(folder, (".json",))])
        others = [
            path for path in others if path.resolve() not in given and path not in annotations
        ]
        if others:
            n_folders = sum(path.is_dir() for path in others)
            counts = ((len(others) - n_folders, "file"), (n_folders, "folder"))
            numbers = " and ".join(count(number, noun) for number, noun in counts if number)
            findings.append(
                Finding(
                    "note" if {path.suffix.lower() for path in others} <= _TEXTS else "warning",
                    "files left out",
                    f"Not read: {numbers} in {folder} ({_names(others)}). Accepted endings are "
                    f"{', '.join(endings)}.",
                )
            )
    read = {path.resolve(): path for path in levels[-1]}
    files = [
        path
        for folder in read.values()
        for path in ([folder] if _is_there(folder) else _images_in(folder))
    ]
    for whole, parts in _wholes(files).items():
        if parts:
            findings.append(
                Finding(
                    "note",
                    "files of one image",
                    f"Read together: {whole} and {count(len(parts), 'file')} ({_names(parts)}), an "
                    "OME-TIFF in several files.",
                )
            )
    by_name = [
        path
        for path in _masks_among(files)
        if path.parent.resolve() in of_images and path not in annotations
    ]
    if by_name:
        number = f"{count(len(by_name), 'file')} in {by_name[0].parent}"
        consequence = (
            "are read as images all the same. Move them elsewhere if they are masks, or name the "
            "folder under 'masks', too."
            if sources
            else "are not predicted. Rename them, or give their paths, if they are images."
        )
        findings.append(
            Finding(
                "warning",
                "masks among the images",
                f"{number} ({_names(by_name)}), which annotate others to go by their names, "
                f"{consequence}",
            )
        )
    lossy = [
        path
        for path in files
        if is_image(path, LOSSY) and {path.resolve(), path.parent.resolve()} & of_images
    ]
    if lossy:
        findings.append(
            Finding(
                "warning",
                "JPEG images",
                f"{count(len(lossy), 'image')} in JPEG ({_names(lossy)}), whose compression "
                "changes the noise, and so what denoising learns and how it is scored. Use the "
                "files of the microscope if you have them.",
            )
        )
    return findings


def _names(paths: Sequence[Path]) -> str:
    return listed([plain(path.name) for path in paths])


def _found(paths: Iterable[str | Path]) -> list[Path]:
    """Return the image files among the paths and in the folders among them."""
    found = []
    for given in map(Path, paths):
        if not given.exists() and not file_of(given):
            raise InputError(f"{given} does not exist; correct its path")
        if _is_there(given) or file_of(given):
            found.append(given)
            continue
        if not given.is_dir():
            raise InputError(f"{given} is not an image; accepted endings: {', '.join(ENDINGS)}")
        inside = _images_in(given)
        if not inside:
            raise InputError(
                f"folder {given} has no images; accepted endings: {', '.join(ENDINGS)}"
            )
        masks = set(_masks_among(inside))
        found += [path for path in inside if path not in masks]
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
    """Return a path named after the place of an image in a store or file; others unchanged."""
    if file := file_of(path):
        return Path(f"{stem(file)}_{path.name}")
    if is_image(path):
        return path
    path = path.absolute()
    inside = [path.name]
    for parent in path.parents:
        if is_image(parent) and parent.suffix.lower() == ".zarr":
            return Path("_".join([stem(parent), *reversed(inside)]))
        inside.append(parent.name)
    return path


def _images_in(folder: Path, endings: tuple[str, ...] = ENDINGS) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(each.name for each in entries if _is_there(each, endings))
    found = [folder / name for name in names]
    # Beside other images, files of microscopes that nothing installed reads are left out.
    return [path for path in found if not lacks_reader(path)] or found


def _others_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return everything in a folder that is neither read nor hidden."""
    read = {path.name for path in _images_in(folder, endings)}
    with os.scandir(folder) as entries:
        names = sorted(
            each.name
            for each in entries
            if each.name not in read and each.name[0] != "." and each.name.lower() not in _UNSEEN
        )
    return [folder / name for name in names]


def _is_there(path: Path | os.DirEntry[str], endings: tuple[str, ...] = ENDINGS) -> bool:
    """Return whether a path is a file with one of the endings, or the folder of an OME-Zarr."""
    if not path.is_dir():
        return is_image(path.name, endings) and not path.name.lower().endswith(".zarr")
    named = is_image(path.name) and path.name.lower().endswith(".zarr")
    return named or (not path.name.startswith(".") and is_ome_zarr(Path(path)))


def _list(key: str, roots: Mapping[str, Path], subfolders: Sequence[str]) -> list[tuple[str, Path]]:
    """Return name and path of the images of one of the folders."""
    root, endings = roots[key], _endings(key)
    if root.is_file() and root.name.lower().endswith(MICROSCOPES):
        return list(_images_of(root, stem(root)).items())
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"folder {root} (config key '{key}') {what}; correct its path")
    if is_plate(root) and not subfolders:
        return list(fields_of(root).items())
    files: list[tuple[str, Path]] = []
    for folder in [[root], *read_subfolders([root], subfolders, roots.values())][-1]:
        found = list(_wholes(_images_in(folder, endings)))
        if not found and key == "images":
            _refuse_empty(folder, key)
        parts = [stem(part) for part in folder.relative_to(root).parts]
        for path in found:
            files += _images_of(path, "_".join([*parts, stem(path.name, endings)])).items()
    if not files:
        _refuse_empty(root, key)
    return files


def _endings(key: str) -> tuple[str, ...]:
    return ANNOTATIONS if key == "masks" else ENDINGS


def _by_name(listed: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return files by name; raise InputError if two have the same."""
    files: dict[str, Path] = {}
    for name, path in listed:
        if name in files:
            if files[name].parent != path.parent:
                raise InputError(
                    f"{files[name]} and {path} would both be named {name}; rename one of them"
                )
            raise InputError(
                f"{files[name]} and {path.name} differ only in their ending; rename or remove one "
                "of them"
            )
        files[name] = path
    return files


def _refuse_empty(folder: Path, key: str) -> NoReturn:
    seen = {p.suffix for p in folder.iterdir() if p.suffix and not p.name.startswith(".")}
    others = f", only {', '.join(sorted(seen)[:5])} files" if seen else ""
    raise InputError(
        f"folder {folder} (config key '{key}') has no {'masks' if key == 'masks' else 'images'}"
        f"{others}; accepted endings: {', '.join(_endings(key))}"
    )
