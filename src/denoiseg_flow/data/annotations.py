"""Files in which other programs store objects: which image they belong to, and its labels."""

import re
import unicodedata
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from denoiseg_flow.data.files.coco import CocoImage, read_coco
from denoiseg_flow.data.files.geojson import read_geojson
from denoiseg_flow.data.files.outlines import Outline, Painted, paint
from denoiseg_flow.data.files.reader import (
    LOSSY,
    READERS_OF_LABELS,
    ImageFile,
    refuse_damaged,
)
from denoiseg_flow.data.files.regions import Region
from denoiseg_flow.data.store import ENDINGS, stem
from denoiseg_flow.errors import InputError, plain
from denoiseg_flow.findings import Finding, count, listed

OUTLINES = (".zip", ".roi", ".geojson", ".json")
"""Endings of files of outlines."""
ANNOTATIONS = (*(each for each in ENDINGS if each not in LOSSY), *READERS_OF_LABELS, *OUTLINES)
"""Endings of files that may annotate an image; JPEG would change labels."""

# What programs append to the name of an image.
_SUFFIX = re.compile(
    r"[-_. ](cp_masks?|seg|masks?|labels?|labelled|rois?|roiset|annotations?)$", re.IGNORECASE
)


def may_annotate(name: str) -> bool:
    """Return whether the name of a file, without its ending, could be that of another and more."""
    return name.lower().endswith(ENDINGS) or _SUFFIX.search(name) is not None


def possible_images(name: str) -> Iterator[str]:
    """Yield what the image of an annotation may be called, the name of the annotation first.

    Parameters
    ----------
    name
        Name of the file without its ending; the ending of the image, or a word such as ``_seg`` or
        ``_cp_masks``, may be appended to the name of the image.
    """
    for each in (name, _SUFFIX.sub("", name)):
        yield from (each, stem(each))
    yield _SUFFIX.sub("", stem(name))  # img01_seg.tif.zip


def pair(
    files: Iterable[tuple[str, Path]], images: Container[str]
) -> tuple[dict[str, Path], list[Path]]:
    """Return the annotation of each image that has one, and the files that belong to no image.

    Parameters
    ----------
    files
        Names without ending, and files.
    images
        Names of the images.

    Raises
    ------
    InputError
        If two files annotate one image.
    """
    found: dict[str, Path] = {}
    orphans = []
    for name, path in files:
        image = next((each for each in possible_images(name) if each in images), None)
        if image is None:
            orphans.append(path)
        elif image in found:
            raise InputError(
                f"{found[image]} and {path.name} both annotate image {image}; keep one of them, "
                "and move the other elsewhere"
            )
        else:
            found[image] = path
    return found, orphans


def pair_coco(path: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Return those images of which a COCO json has objects, with the names it gives them.

    Parameters
    ----------
    files
        Path of each image within the folder of images, with slashes, by name. It is compared with
        or without its folders and without its ending.

    Raises
    ------
    InputError
        If the file is no COCO json, has objects of none of the images, or lists one twice.
    """
    entries = _entries(path, files)
    found: dict[str, str] = {}
    for entry, name in entries:
        if name is None:
            continue
        if name in found:
            raise InputError(
                f"{path} lists image {files[name]} twice, as {plain(found[name])} and "
                f"{plain(entry.file_name)}; remove one of them"
            )
        found[name] = entry.file_name
    if not found:
        others = (
            f", but of {listed([plain(entry.file_name) for entry, _ in entries])}"
            if entries
            else ""
        )
        raise InputError(
            f"{path} (config key 'masks') has objects of none of the images{others}; correct the "
            "path, or the names of the images"
        )
    return found


def _entries(path: Path, files: Mapping[str, str]) -> list[tuple[CocoImage, str | None]]:
    """Return the images of which a COCO json has objects, and what they are called here."""
    with refuse_damaged(path):
        entries = [entry for entry in read_coco(path) if entry.annotations]
    whole = {_without_ending(file): name for name, file in files.items()}
    last: dict[str, list[str]] = {}
    for file, name in whole.items():
        last.setdefault(PurePosixPath(file).name, []).append(name)
    found: list[tuple[CocoImage, str | None]] = []
    for entry in entries:
        file = _without_ending(entry.file_name)
        alike = last.get(PurePosixPath(file).name, [])
        found.append((entry, whole.get(file, alike[0] if len(alike) == 1 else None)))
    return found


def _without_ending(file: str) -> str:
    path = PurePosixPath(unicodedata.normalize("NFC", file).replace("\\", "/"))
    return (path.parent / stem(path.name)).as_posix()


def read_outlines(path: Path, images: Sequence[Region], entry: str | None) -> list[Outline]:
    """Read the objects of the images of one file.

    Parameters
    ----------
    path
        A file that ends in one of :data:`OUTLINES`.
    images
        All images of the file.
    entry
        What the file is called in a COCO json; None if ``path`` annotates only this file.

    Raises
    ------
    InputError
        If the file is damaged, or does not fit the image.
    """
    file = images[0].file
    lengths = {axis: file.length(axis) for axis in "TCZ"}
    shape = file.length("Y"), file.length("X")
    with refuse_damaged(path):
        if entry is not None:
            (found,) = (each for each in read_coco(path) if each.file_name == entry)
            outlines = found.outlines()
            sizes = {found.shape} | {each.runs[1] for each in outlines if each.runs}
            for size in sizes - {None, shape}:
                raise InputError(
                    f"{path} was made for {plain(entry)} with {_by(size)} pixels, but "
                    f"{file.path} has {_by(shape)}; export it again for images of this size"
                )
        elif path.suffix.lower() in (".zip", ".roi"):
            # Here, because few users need it.
            from denoiseg_flow.data.files.imagej_rois import read_imagej_rois

            outlines = read_imagej_rois(path, lengths)
        else:
            outlines = read_geojson(path)
    # The others have length 1, or hold what all images of the file have in common.
    apart = {axis for axis in "TZ" if len({each.numbers.get(axis) for each in images}) > 1}
    return [
        _in_plane(outline, apart, file, f"object {number} of {path}")
        for number, outline in enumerate(outlines, start=1)
    ]


def _in_plane(outline: Outline, axes: Container[str], file: ImageFile, name: str) -> Outline:
    """Return an object with its plane along some axes; raise InputError unless it states one."""
    plane = {axis: place for axis, place in outline.plane.items() if axis in axes}
    for axis, noun in (("T", "time point"), ("Z", "z-slice")):
        if axis not in axes or not (outline.polygons or outline.runs):
            continue
        length = file.length(axis)
        if axis not in plane:
            raise InputError(
                f"{name} does not say to which of the {length} {noun}s of {file.path} it belongs; "
                "associate ROIs with slices when you draw them, or export a label stack"
            )
        if plane[axis] >= length:
            raise InputError(
                f"{name} is on {noun} {plane[axis] + 1}, but {file.path} has only {length}; export "
                "the objects of this image"
            )
    return replace(outline, plane=plane)


def paint_labels(
    outlines: Sequence[Outline], image: Region, path: Path
) -> tuple[np.ndarray, Painted]:
    """Return the labels (y, x) of one image of a file, see :func:`paint`.

    Raises
    ------
    InputError
        If the image is a volume, or no object covers a pixel.
    """
    if "Z" in image.metadata.axes:
        raise InputError(
            f"{path} outlines objects in planes, but {image.file.path} is read as a volume; "
            "export a label stack, or write 'dimensions: 2' in the dataset's config"
        )
    shape = image.shape[-2], image.shape[-1]
    labels, painted = paint(outlines, shape, image.numbers)
    if outlines and painted.n_without_pixels == len(outlines):
        raise InputError(
            f"no object of {path} covers a pixel of {image.file.path} ({_by(shape)} pixels): all "
            "are outside, or no areas; export the outlines of this image, in pixels"
        )
    return labels, painted


def about_outlines(painted: Mapping[str, Painted]) -> list[Finding]:
    """Return warnings of objects that overlap, or are not in the labels.

    Parameters
    ----------
    painted
        Numbers of objects by the name of the image.
    """
    findings = []
    overlapping = [name for name, each in painted.items() if each.n_overlapped + each.n_hidden]
    if overlapping:
        n_parts = sum(each.n_overlapped for each in painted.values())
        n_hidden = sum(each.n_hidden for each in painted.values())
        findings.append(
            Finding(
                "warning",
                "overlapping outlines",
                f"Outlines overlap in {count(len(overlapping), 'image')} ({listed(overlapping)}). "
                f"The later object of a file is painted over the earlier one: {n_parts} of them "
                f"lack some pixels, {n_hidden} all of them. Check large outlines around others.",
            )
        )
    empty = [name for name, each in painted.items() if each.n_without_pixels]
    if empty:
        number = count(sum(each.n_without_pixels for each in painted.values()), "outline")
        findings.append(
            Finding(
                "warning",
                "outlines without pixels",
                f"Not read: {number} of {count(len(empty), 'image')} ({listed(empty)}) without the "
                "centre of a pixel: outside of the image, too thin, or no areas, as lines, points "
                "and boxes.",
            )
        )
    return findings


def about_coco(path: Path, files: Mapping[str, str]) -> list[Finding]:
    """Return a warning of images that a COCO json annotates, but that are not there.

    Parameters
    ----------
    path, files
        As given to :func:`pair_coco`.
    """
    lacking = [plain(entry.file_name) for entry, name in _entries(path, files) if name is None]
    if not lacking:
        return []
    return [
        Finding(
            "warning",
            "images not found",
            f"{path} has objects of {count(len(lacking), 'image')} that the folder of images lacks "
            f"({listed(lacking)}).",
        )
    ]


def _by(shape: tuple[int, int] | None) -> str:
    assert shape is not None
    return f"{shape[0]} x {shape[1]}"
