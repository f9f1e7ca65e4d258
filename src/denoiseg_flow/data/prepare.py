"""Write the images of any source in the canonical form that all later steps read.

A prepared dataset is one folder with ``images/{image}.tif`` (plane or volume, uncompressed),
``masks/{image}.tif`` (int32 labels, annotated images only), ``clean/{image}.tif`` (float32 ground
truth, if known), ``second/{image}.tif`` (another acquisition, if there is one) and
``manifest.tsv``. All images are OME-TIFF.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from denoiseg_flow import findings
from denoiseg_flow.data import folders, manifest
from denoiseg_flow.data.annotations import (
    OUTLINES,
    about_coco,
    about_outlines,
    paint_labels,
    read_outlines,
)
from denoiseg_flow.data.archive import ArchiveFormat
from denoiseg_flow.data.combined import link_parts
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.outlines import Painted
from denoiseg_flow.data.files.reader import open_image_file
from denoiseg_flow.data.files.regions import Reading, Region, find_regions
from denoiseg_flow.data.files.tiles import Readable
from denoiseg_flow.data.given_split import subset_of
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.sources import (
    ARCHIVE_FORMATS,
    FOLDER_KEYS,
    Spec,
    levels_of,
    spec_dimensions,
)
from denoiseg_flow.data.store import copy_image, is_image, write_labels
from denoiseg_flow.data.validation import check_image, check_mask, check_pair, check_second
from denoiseg_flow.errors import InputError
from denoiseg_flow.findings import Finding, count
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.atomic import new_folder

logger = logging.getLogger(__name__)
_ABOUT_FILES = "about_files.json"
MASK_KEYS = ("binary_masks", "background_label", "ignore_label")


class Sample(NamedTuple):
    """One image of the source, not yet written."""

    name: str
    image: Readable
    mask: np.ndarray | None
    clean: Readable | None
    source: str
    metadata: Metadata
    given_subset: str = ""
    constant: bool = False
    """Whether the image may have a single grey value."""
    second: Readable | None = None
    painted: Painted | None = None
    """Of outlines: how many became labels."""


def prepare(
    spec: Spec,
    raw: str | Path | None,
    folder: str | Path,
    prepared_parts: Sequence[str | Path] = (),
) -> None:
    """Write the canonical form of a dataset.

    Images are copied piece by piece; masks are read as a whole.

    Parameters
    ----------
    spec
        The dataset's section in the config.
    raw
        Folder of simulated or unpacked images; None for the user's own folders and for a combined
        dataset.
    folder
        Folder to write. It replaces an existing one, and appears only when complete.
    prepared_parts
        Prepared folders of the parts of a combined dataset, in the order of ``of``.

    Raises
    ------
    InputError
        For the first file that cannot be used.
    """
    folder = Path(folder)
    with new_folder(folder) as unfinished:
        for kind in PreparedData.KINDS:
            (unfinished / kind).mkdir()
        if raw:
            checksums.verify_folder(raw)
        if spec["source"] == "combine":
            table = link_parts(spec["of"], prepared_parts, unfinished)
            found = [each for part in prepared_parts for each in about_files(Path(part))]
        else:
            kinds, levels = _kinds(spec, raw), levels_of(spec)
            sources = folders.find(**kinds, subfolders=levels) if kinds else []
            rows, painted = [], {}
            for sample in _samples(spec, raw, sources):
                rows.append(write_sample(sample, unfinished, _named(sample.image, sample.source)))
                if sample.painted:
                    painted[sample.name] = sample.painted
            table = pd.DataFrame(rows, columns=list(manifest.MANIFEST_COLUMNS))
            found = [*_about_folders(kinds, levels, sources), *about_outlines(painted)]
            findings.log(found, "prepare")
        manifest.write(table, PreparedData(unfinished).manifest_file)
        if found:
            findings.write(found, unfinished / _ABOUT_FILES)
        checksums.write(unfinished)
    logger.info("prepared %d images, %d of them annotated", len(table), table["annotated"].sum())


def about_files(prepared: Path) -> list[Finding]:
    """Return the findings of :func:`prepare` about files, such as those that it did not read."""
    path = prepared / _ABOUT_FILES
    return findings.read(path) if path.exists() else []


def _about_folders(
    kinds: Mapping[str, Any], levels: Sequence[str], sources: Sequence[folders.Source]
) -> list[Finding]:
    """Return findings about the folders of a source, and about a COCO json in their place."""
    images = [folder for key, folder in kinds.items() if key != "masks"]
    masks = kinds.get("masks")
    found = folders.about_files(images, levels, masks, sources)
    if masks and Path(masks).is_file():
        found += about_coco(Path(masks), {source.name: source.file for source in sources})
    return found


def _samples(
    spec: Spec, raw: str | Path | None, sources: Sequence[folders.Source]
) -> Iterator[Sample]:
    """Yield the images of a source."""
    values = {key: spec[key] for key in MASK_KEYS if key in spec}
    if spec.get("format") in ARCHIVE_FORMATS and raw is not None:
        return _from_archive(ARCHIVE_FORMATS[spec["format"]], raw, values)
    reading = Reading.of(spec)
    if spec["source"] == "simulate":
        reading = Reading(dimensions=spec_dimensions(spec))
    return _from_folders(sources, values, reading, levels_of(spec))


def _kinds(spec: Spec, raw: str | Path | None) -> dict[str, Any]:
    """Return those folders that a source has, by their keys."""
    if spec["source"] == "folder":
        return {key: spec[key] for key in FOLDER_KEYS if spec.get(key)}
    if raw is None:
        raise ValueError(f"source {spec['source']} needs a folder to read from")
    if spec["source"] == "simulate":
        return {key: Path(raw, key) for key in FOLDER_KEYS if Path(raw, key).is_dir()}
    if spec["format"] in ARCHIVE_FORMATS:
        return {}
    return {key: _inside(raw, key, spec[key]) for key in FOLDER_KEYS if spec.get(key)}


def _from_folders(
    sources: Sequence[folders.Source],
    values: Mapping[str, Any],
    reading: Reading,
    levels: Sequence[str],
) -> Iterator[Sample]:
    """Yield the images of folders; ``values`` are the keyword arguments of `check_mask`."""
    for found in sources:
        name, image_path, mask_path, clean_path, second_path, source, entry = found
        with ExitStack() as stack:
            images = _open_regions(image_path, reading, stack)
            masks = cleans = seconds = outlines = None
            if mask_path is not None and is_image(mask_path, OUTLINES):
                outlines = read_outlines(mask_path, images, entry)
            elif mask_path is not None:
                axes = images[0].file.metadata.axes
                masks = _open_regions(mask_path, reading.of_masks(axes), stack)
            if clean_path is not None:
                cleans = _open_regions(clean_path, reading, stack)
            if second_path is not None:
                seconds = _open_regions(second_path, reading, stack)
            for others, kind, path in (
                (masks, "mask", mask_path),
                (cleans, "clean image", clean_path),
                (seconds, "second acquisition", second_path),
            ):
                if others is not None and len(others) != len(images):
                    raise InputError(
                        f"{image_path} has {len(images)} images, but its {kind} {path} has "
                        f"{len(others)}; export both with the same time points and z-slices"
                    )
            for number, image in enumerate(images):
                mask = clean = second = painted = None
                if outlines is not None and mask_path is not None:
                    mask, painted = paint_labels(outlines, image, mask_path)
                if masks is not None:
                    mask = check_mask(masks[number].read(), str(mask_path), **values)
                    check_pair(image, mask, str(image_path), str(mask_path), "mask")
                if cleans is not None:
                    clean = cleans[number]
                    _check_alike(image, clean, "clean image")
                if seconds is not None:
                    second = seconds[number]
                    _check_alike(image, second, "second acquisition")
                yield Sample(
                    name + image.suffix, image, mask, clean, source, image.metadata,
                    subset_of(source, levels), second=second, painted=painted,
                )  # fmt: skip


def _check_alike(image: Region, other: Region, kind: str) -> None:
    """Raise InputError unless another picture of a field has the channels and size of its image."""
    if image.channels != other.channels:
        raise InputError(
            f"image {image.file.path} has {count(image.channels, 'channel')}, but its {kind} "
            f"{other.file.path} has {other.channels}; export both with the same channels"
        )
    planes = image.first_channel(), other.first_channel()
    check_pair(*planes, str(image.file.path), str(other.file.path), kind)


def _open_regions(path: Path, reading: Reading, stack: ExitStack) -> list[Region]:
    """Return the images of a file, which ``stack`` keeps open."""
    file = stack.enter_context(
        open_image_file(path, reading.axes, reading.masks, reading.default_axes)
    )
    return list(find_regions(file, reading))


def _from_archive(
    archive: ArchiveFormat, raw: str | Path, values: Mapping[str, Any]
) -> Iterator[Sample]:
    """Yield the images of an unpacked archive; ``values`` are keyword arguments of `check_mask`."""
    for item in archive.read(Path(raw)):
        mask = item.mask
        if mask is not None:
            mask = check_mask(mask, f"of {item.origin}", **values)
            check_pair(item.image, mask, item.origin, "of the archive", "mask")
        if item.clean is not None:
            check_pair(item.image, item.clean, item.origin, "of the archive", "clean image")
        yield Sample(
            item.name,
            item.image,
            mask,
            item.clean,
            item.origin,
            Metadata("YX"),
            item.subset,
            # Patches of an empty background may be constant, and users cannot change the archive.
            constant=True,
        )


def _inside(raw: str | Path, key: str, relative: str) -> Path:
    """Return a folder of an unpacked archive, which may have a single top folder."""
    raw = Path(raw)
    tops = [p for p in sorted(raw.iterdir()) if p.is_dir() and p.name[0] not in "._"]
    candidates = [raw / relative, *(top / relative for top in tops if len(tops) == 1)]
    for candidate in candidates:
        is_there = candidate.is_dir() or (key == "masks" and candidate.is_file())
        if is_there and candidate.resolve().is_relative_to(raw.resolve()):
            return candidate
    raise InputError(
        f"the downloaded archive has no folder {relative} (config key '{key}'); available: "
        f"{', '.join(top.name for top in tops) or 'none'}"
    )


def write_sample(sample: Sample, folder: Path, label: str) -> dict[str, Any]:
    """Write the files of one image and return its row of the manifest.

    Parameters
    ----------
    folder
        Folder of the prepared dataset.
    label
        Name of the image in error messages.

    Raises
    ------
    InputError
        If the image, its clean image or its second acquisition cannot be used; a mask must have
        been checked.
    """
    prepared, name, metadata = PreparedData(folder), sample.name, sample.metadata
    dtype = check_image(sample.image, label, sample.constant)
    copy_image(sample.image, prepared.image(name), metadata, dtype)
    if sample.mask is not None:
        spatial = metadata.only(metadata.spatial_axes)
        write_labels(prepared.mask(name), sample.mask, spatial)
    if sample.clean is not None:
        if sample.clean is not sample.image:
            check_image(sample.clean, _named(sample.clean, label), sample.constant)
        copy_image(sample.clean, prepared.clean(name), metadata, np.float32)
    if sample.second is not None:
        shown = _named(sample.second, label)
        kept = check_image(sample.second, shown, sample.constant)
        check_second(sample.image, sample.second, label, shown)
        copy_image(sample.second, prepared.second(name), metadata, kept)
    *above, height, width = sample.image.shape
    return {
        "image": sample.name,
        "height": height,
        "width": width,
        "depth": above[-1] if "Z" in metadata.axes else 1,
        "dtype": str(dtype),
        "annotated": int(sample.mask is not None),
        "n_objects": 0 if sample.mask is None else len(np.unique(sample.mask[sample.mask > 0])),
        "clean": int(sample.clean is not None),
        "given_subset": sample.given_subset,
        "source": sample.source,
    }


def _named(image: Readable, source: str) -> str:
    """Return the name of an image in error messages."""
    if not isinstance(image, Region):
        return source
    part = f" ({image.suffix.strip('_')})" if image.suffix else ""
    return f"{image.file.path}{part}"
