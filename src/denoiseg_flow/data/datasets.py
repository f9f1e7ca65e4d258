"""Turn any source of images into the canonical form that every later step reads.

Canonical means, under one folder: ``images/{image}.tif`` (grey, 2D, uncompressed),
``masks/{image}.tif`` (int32 labels, annotated images only), ``clean/{image}.tif`` (float32 truth,
where there is one) and ``manifest.tsv``.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from denoiseg_flow.data import folders, manifest, simulator
from denoiseg_flow.data.denoiseg_npz import read_denoiseg_npz
from denoiseg_flow.data.images import (
    check_image,
    check_mask,
    check_pair,
    read_image,
    read_mask,
    write_image,
)
from denoiseg_flow.data.noise import check_level
from denoiseg_flow.data.planes import read_pixel_size
from denoiseg_flow.errors import InputError

logger = logging.getLogger(__name__)

Spec = Mapping[str, Any]
"""One section of ``datasets`` in the config."""

SIMULATOR_KEYS = ("n_images", "size", "n_nuclei", "annotated", "seed")
FOLDER_KEYS = ("images", "masks", "clean")


class _Sample(NamedTuple):
    """One image on its way from the source to the canonical folder."""

    name: str
    image: np.ndarray
    mask: np.ndarray | None
    clean: np.ndarray | None
    source: str
    given_subset: str = ""
    pixel_size: tuple[float, float] | None = None


def simulator_options(spec: Spec) -> dict[str, Any]:
    """Return the keys of a dataset that are parameters of :func:`simulator.simulate`."""
    return {key: spec[key] for key in SIMULATOR_KEYS if key in spec}


def prepare(spec: Spec, raw: str | Path | None, folder: str | Path) -> None:
    """Write the canonical form of a data set, one image at a time in memory.

    Parameters
    ----------
    spec
        The dataset's section in the config.
    raw
        What was simulated, or downloaded and unpacked; None for the user's own folders.
    folder
        Folder to write; replaced if it exists, and there only once it is complete.

    Raises
    ------
    InputError
        For the first image, mask or clean image that cannot be used; the message names it.
    """
    folder = Path(folder)
    unfinished = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for kind in FOLDER_KEYS:
            (unfinished / kind).mkdir(parents=True)
        rows = [_write(sample, unfinished) for sample in _samples(spec, raw)]
        table = pd.DataFrame(rows, columns=list(manifest.MANIFEST_COLUMNS))
        manifest.write(table, unfinished / "manifest.tsv")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    logger.info("prepared %d images, %d of them annotated", len(table), table["annotated"].sum())


def check_sources(config: Mapping[str, Any]) -> None:
    """Check what can be known about the data before any job starts.

    Parameters
    ----------
    config
        The whole config, defaults filled in.

    Raises
    ------
    InputError
        If a folder cannot be used, a noise level is incomplete, or ``grid.n_labelled`` asks for
        more annotated images than a data set leaves for training.
    """
    grid = config["grid"]
    for name in grid["noises"]:
        level = config["noises"][name]
        check_level(name, {key: value for key, value in level.items() if key != "seed"})
    segments = any(config["methods"][name].get("alpha", 0) < 1 for name in grid["methods"])
    n_labelled = max(grid["n_labelled"]) if segments else 0
    for name in grid["datasets"]:
        available = annotated_for_training(config["datasets"][name])
        if available is not None and n_labelled > available:
            raise InputError(
                f"grid.n_labelled asks for {n_labelled} labelled images, but dataset {name} has "
                f"only {available} annotated images left for training after validation and test "
                "are taken out: ask for fewer, or annotate more"
            )


def annotated_for_training(spec: Spec) -> int | None:
    """Return how many annotated images validation and test leave for training; None if remote.

    Raises
    ------
    InputError
        If the folders cannot be paired, or the data set cannot be split.
    """
    counts = _count_in_advance(spec)
    if counts is None:
        return None
    if spec["split"] == manifest.GIVEN:
        raise InputError(
            f"`split: given` needs a data set with a fixed split, but the source is "
            f"{spec['source']}: write `split: {{val: 0.15, test: 0.25, seed: 0}}`"
        )
    sizes = manifest.subset_sizes(*counts, spec["split"])
    return counts[1] - (sizes.val + sizes.test if sizes.annotated_only else 0)


def _count_in_advance(spec: Spec) -> tuple[int, int] | None:
    """Return the numbers of images and of annotated images."""
    if spec["source"] == "simulate":
        n_images = spec.get("n_images", simulator.N_IMAGES)
        return n_images, simulator.count_annotated(n_images, spec.get("annotated"))
    if spec["source"] == "folder":
        sources = folders.find(*(spec.get(key) for key in FOLDER_KEYS))
        return len(sources), sum(source.mask is not None for source in sources)
    if spec["format"] == "folder" and not spec.get("images"):
        raise InputError(
            "a dataset with `format: folder` lacks `images`: write the name of the folder of "
            "images inside the archive"
        )
    return None


def _samples(spec: Spec, raw: str | Path | None) -> Iterator[_Sample]:
    """Yield the checked images of a source."""
    binary_masks = spec.get("binary_masks", "warn")
    if spec["source"] == "folder":
        return _from_folders({key: spec.get(key) for key in FOLDER_KEYS}, binary_masks)
    if raw is None:
        raise ValueError(f"source {spec['source']} needs a folder to read from")
    if spec["source"] == "simulate":
        kinds = {key: Path(raw, key) for key in FOLDER_KEYS if Path(raw, key).is_dir()}
        return _from_folders(kinds, binary_masks)
    if spec["format"] == "denoiseg_npz":
        return _from_npz(raw, binary_masks)
    kinds = {key: _inside(raw, key, spec[key]) for key in FOLDER_KEYS if spec.get(key)}
    return _from_folders(kinds, binary_masks)


def _from_folders(kinds: Mapping[str, Any], binary_masks: Any) -> Iterator[_Sample]:
    for name, image_path, mask_path, clean_path in folders.find(**kinds):
        image = read_image(image_path)
        mask = clean = None
        if mask_path is not None:
            mask = read_mask(mask_path, binary_masks)
            check_pair(image, mask, str(image_path), str(mask_path), "mask")
        if clean_path is not None:
            clean = image if clean_path == image_path else read_image(clean_path)
            check_pair(image, clean, str(image_path), str(clean_path), "clean image")
        yield _Sample(
            name, image, mask, clean, image_path.name, pixel_size=read_pixel_size(image_path)
        )


def _from_npz(raw: str | Path, binary_masks: Any) -> Iterator[_Sample]:
    """Yield the images of a DenoiSeg archive; they are without noise, so each is its own truth."""
    for item in read_denoiseg_npz(raw):
        # Patches cut from an empty corner may be constant; nobody can repair the archive.
        image = check_image(item.image, item.origin, constant=True)
        mask = check_mask(item.labels, f"of {item.origin}", binary_masks)
        check_pair(image, mask, item.origin, "labels", "mask")
        yield _Sample(item.name, image, mask, image, item.origin, item.subset)


def _inside(raw: str | Path, key: str, relative: str) -> Path:
    """Return a folder of an unpacked archive, with or without its one top folder."""
    raw = Path(raw)
    tops = [p for p in sorted(raw.iterdir()) if p.is_dir() and p.name[0] not in "._"]
    candidates = [raw / relative, *(top / relative for top in tops if len(tops) == 1)]
    for candidate in candidates:
        if candidate.is_dir() and candidate.resolve().is_relative_to(raw.resolve()):
            return candidate
    raise InputError(
        f"the downloaded archive has no folder {relative} (config key `{key}`): its folders are "
        f"{', '.join(top.name for top in tops) or 'none'}"
    )


def _write(sample: _Sample, folder: Path) -> dict[str, Any]:
    """Write the files of one image and return its row of the manifest."""
    name = f"{sample.name}.tif"
    write_image(folder / "images" / name, sample.image, pixel_size=sample.pixel_size)
    if sample.mask is not None:
        write_image(folder / "masks" / name, sample.mask, True, sample.pixel_size)
    if sample.clean is not None:
        clean = sample.clean.astype(np.float32, copy=False)
        write_image(folder / "clean" / name, clean, pixel_size=sample.pixel_size)
    height, width = sample.image.shape
    return {
        "image": sample.name,
        "height": height,
        "width": width,
        "dtype": str(sample.image.dtype),
        "annotated": int(sample.mask is not None),
        "n_objects": 0 if sample.mask is None else len(np.unique(sample.mask[sample.mask > 0])),
        "clean": int(sample.clean is not None),
        "given_subset": sample.given_subset,
        "source": sample.source,
    }
