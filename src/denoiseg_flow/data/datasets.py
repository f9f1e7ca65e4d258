"""Turn any source of images into the canonical form that every later step reads.

Canonical means, under one folder: ``images/{image}.tif`` (a plane or a volume, uncompressed),
``masks/{image}.tif`` (int32 labels, annotated images only), ``clean/{image}.tif`` (float32 truth,
where there is one) and ``manifest.tsv``. All are OME-TIFF.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from denoiseg_flow import findings
from denoiseg_flow.data import checksums, folders, manifest, simulator
from denoiseg_flow.data.combined import link_parts, parts
from denoiseg_flow.data.denoiseg_npz import read_denoiseg_npz
from denoiseg_flow.data.image_files import open_image_file
from denoiseg_flow.data.images import (
    Readable,
    check_image,
    check_mask,
    check_pair,
    copy_image,
    write_image,
)
from denoiseg_flow.data.metadata import Metadata
from denoiseg_flow.data.noise import check_level, check_photons, counts_photons
from denoiseg_flow.data.stacks import Reading, Region, find_regions
from denoiseg_flow.errors import InputError
from denoiseg_flow.findings import Finding
from denoiseg_flow.new_folder import new_folder

logger = logging.getLogger(__name__)

Spec = Mapping[str, Any]
"""One section of ``datasets`` in the config."""

SIMULATOR_KEYS = (
    "structure", "n_images", "size", "depth", "z_step", "n_nuclei", "annotated", "seed",
)  # fmt: skip
FOLDER_KEYS = ("images", "masks", "clean")
_LEFT_OUT = "left_out.json"
MASK_KEYS = ("binary_masks", "background_label", "ignore_label")


class _Sample(NamedTuple):
    """One image on its way from the source to the canonical folder."""

    name: str
    image: Readable
    mask: np.ndarray | None
    clean: Readable | None
    source: str
    metadata: Metadata
    given_subset: str = ""
    constant: bool = False
    """Whether the image may have a single grey value."""


def simulator_options(spec: Spec) -> dict[str, Any]:
    """Return the keys of a dataset that are parameters of :func:`simulator.simulate`."""
    return {key: spec[key] for key in SIMULATOR_KEYS if key in spec}


def prepare(
    spec: Spec,
    raw: str | Path | None,
    folder: str | Path,
    prepared_parts: Sequence[str | Path] = (),
) -> None:
    """Write the canonical form of a data set, a part of one image at a time in memory.

    Masks are read as a whole.

    Parameters
    ----------
    spec
        The dataset's section in the config.
    raw
        What was simulated, or downloaded and unpacked; None for the user's own folders, and for a
        combined data set.
    folder
        Folder to write; replaced if it exists, and there only once it is complete.
    prepared_parts
        The prepared folders of the data sets that a combined one is made of, in the order of
        ``of``.

    Raises
    ------
    InputError
        For the first image, mask or clean image that cannot be used; the message names it.
    """
    folder = Path(folder)
    with new_folder(folder) as unfinished:
        for kind in FOLDER_KEYS:
            (unfinished / kind).mkdir()
        if raw:
            checksums.verify_folder(raw)
        if spec["source"] == "combine":
            table = link_parts(spec["of"], prepared_parts, unfinished)
            unread = [each for part in prepared_parts for each in left_out(Path(part))]
        else:
            unread = folders.left_out(_kinds(spec, raw).values())
            rows = [_write(sample, unfinished) for sample in _samples(spec, raw)]
            table = pd.DataFrame(rows, columns=list(manifest.MANIFEST_COLUMNS))
        manifest.write(table, unfinished / "manifest.tsv")
        if unread:
            findings.write(unread, unfinished / _LEFT_OUT)
        checksums.write(unfinished)
    logger.info("prepared %d images, %d of them annotated", len(table), table["annotated"].sum())


def left_out(prepared: Path) -> list[Finding]:
    """Return what :func:`prepare` found in the folders of a data set and did not read."""
    path = prepared / _LEFT_OUT
    return findings.read(path) if path.exists() else []


def check_sources(config: Mapping[str, Any], n_labelled: Mapping[str, int]) -> None:
    """Check what can be known about the data before any job starts.

    Parameters
    ----------
    config
        The whole config, defaults filled in.
    n_labelled
        How many annotated training images the runs of each data set need.

    Raises
    ------
    InputError
        If a folder cannot be used, a combined data set cannot be made, a noise level is
        incomplete, or ``grid.n_labelled`` asks for more annotated images than a data set leaves
        for training, or a data set leaves none for validation.
    """
    grid = config["grid"]
    for name in grid["noises"]:
        check_level(name, config["noises"][name])
    for name in grid["datasets"]:
        available = annotated_for_training(config["datasets"], name)
        if available is not None and n_labelled[name] > available:
            raise InputError(
                f"grid.n_labelled asks for {n_labelled[name]} labelled images, but dataset {name} "
                f"has only {available} annotated images left for training after validation and "
                "test are taken out: ask for fewer, or annotate more"
            )
        sizes = _sizes_in_advance(config["datasets"][parts(config["datasets"], name)[0]])
        if sizes is None or sizes.cross:
            continue
        if config["predict"] == "test" and not sizes.test:
            raise InputError(
                f"dataset {name} keeps no image for testing, so that nothing would be predicted: "
                "set 'test' of its split above 0, or write 'predict: all'"
            )
        if n_labelled[name] and not (sizes.annotated_only and sizes.val):
            raise InputError(
                f"dataset {name} has too few annotated images to choose the threshold of the "
                "segmentation on some that were not trained on: annotate at least 3 (with 'val' of "
                "its split above 0), or 2 and write 'cross_validate_below: 8' in its split"
            )


def check_intensities(config: Mapping[str, Any]) -> None:
    """Check, before any job starts, that photons can be drawn from the user's own images.

    Only the headers are read of images whose pixel type has no negative numbers, and nothing at
    all if the grid selects no Poisson noise.

    Parameters
    ----------
    config
        The whole config, which passed :func:`check_sources`.

    Raises
    ------
    InputError
        For the first image with negative values (or that cannot be read at all) of a dataset with
        ``source: folder`` that is selected, or part of a selected one, if a selected noise is of a
        Poisson kind.
    """
    grid = config["grid"]
    # One noise is enough: all kinds that draw photons refuse the same images.
    noise = next((name for name in grid["noises"] if counts_photons(config["noises"][name])), None)
    if noise is None:
        return
    datasets = config["datasets"]
    used = {part: datasets[part] for name in grid["datasets"] for part in parts(datasets, name)}
    for spec in used.values():
        if spec["source"] == "folder":
            for source in folders.find(spec["images"]):
                with open_image_file(source.image, spec.get("axes")) as file:
                    for region in find_regions(file, Reading.of(spec)):
                        check_photons(region, config["noises"][noise], noise, source.image)


def annotated_for_training(datasets: Mapping[str, Spec], name: str) -> int | None:
    """Return how many annotated images validation and test leave for training; None if remote.

    Raises
    ------
    InputError
        If the folders cannot be paired, the data set cannot be split, it cannot be made of others
        as it says, or it has fewer training images than it asks for.
    """
    specs = [datasets[part] for part in parts(datasets, name)]
    own, *extra = [count_in_advance(spec) for spec in specs]
    if own is None:
        return None
    if specs[0]["split"] == manifest.GIVEN:
        raise InputError(
            f"`split: given` needs a data set with a fixed split, but the source is "
            f"{specs[0]['source']}: write `split: {{val: 0.15, test: 0.25, seed: 0}}`"
        )
    sizes = manifest.subset_sizes(*own, specs[0]["split"])
    if None in extra:
        return None
    n_images, n_annotated = (sum(counts) for counts in zip(own, *extra, strict=True))
    if sizes.cross and datasets[name].get("n_train") is not None:
        raise InputError(
            f"config key datasets.{name}.n_train cannot be used where annotated images are "
            "cross-validated: leave it out, or set 'cross_validate_below: 0' in the split"
        )
    taken = sizes.val + sizes.test
    n_train = datasets[name].get("n_train")
    if n_train is not None and n_train > n_images - taken:
        raise InputError(
            f"config key datasets.{name}.n_train is {n_train}, but only {n_images - taken} images "
            "are left for training after validation and test are taken out: write a smaller number"
        )
    if sizes.annotated_only or sizes.test == own[0]:
        n_annotated = max(n_annotated - taken, 0)
    return n_annotated if n_train is None else min(n_annotated, n_train)


def is_cross_validated(datasets: Mapping[str, Spec], name: str) -> bool:
    """Return whether the annotated images of a data set are cross-validated, if known yet.

    Looks at the folders of a data set only where its split allows for it.
    """
    spec = datasets[parts(datasets, name)[0]]
    how = spec.get("split", {})
    if how == manifest.GIVEN or not how.get("cross_validate_below"):
        return False
    sizes = _sizes_in_advance(spec)
    return sizes is not None and sizes.cross


def _sizes_in_advance(spec: Spec) -> manifest.SubsetSizes | None:
    """Return how many images validation and test take; None if that is not known yet."""
    counts = count_in_advance(spec)
    if counts is None or spec["split"] == manifest.GIVEN:
        return None
    return manifest.subset_sizes(*counts, spec["split"])


def split_of(datasets: Mapping[str, Spec], name: str) -> Mapping[str, float] | str:
    """Return how a data set is divided; a combined one as the first of those it is made of."""
    return datasets[parts(datasets, name)[0]]["split"]


def has_clean_truth(datasets: Mapping[str, Spec], name: str) -> bool:
    """Return whether the clean images of a data set are known, in a combined one of all parts."""
    return all(
        spec["source"] == "simulate"
        or spec.get("format") == "denoiseg_npz"
        or bool(spec.get("clean"))
        for spec in (datasets[part] for part in parts(datasets, name))
    )


def dimensions(datasets: Mapping[str, Spec], name: str) -> int:
    """Return 3 for a data set of volumes, 2 for one of planes.

    Raises
    ------
    InputError
        If a combined data set is made of both.
    """
    of = parts(datasets, name)
    found = [_dimensions(datasets[part]) for part in of]
    for part, each in zip(of, found, strict=True):
        if each != found[0]:
            raise InputError(
                f"config key datasets.{name}.of names {of[0]} and {part}, of which only one is "
                "made of volumes: combine volumes with volumes, and planes with planes"
            )
    return found[0]


def _dimensions(spec: Spec) -> int:
    volumes = spec.get("dimensions") == 3 or bool(spec.get("depth"))
    return 3 if volumes else 2


def has_masks(datasets: Mapping[str, Spec], name: str) -> bool:
    """Return whether images of a data set have masks, in a combined one those of the first part.

    The others do not count, because only images of the first are ever tested.
    """
    spec = datasets[parts(datasets, name)[0]]
    if spec["source"] == "simulate":
        return count_in_advance(spec)[1] > 0
    return spec.get("format") == "denoiseg_npz" or bool(spec.get("masks"))


def count_in_advance(spec: Spec) -> tuple[int, int] | None:
    """Return the numbers of images and of annotated images; None if that is not known yet.

    Of a folder, it is not known where files hold several images.
    """
    if spec["source"] == "simulate":
        n_images = spec.get("n_images", simulator.N_IMAGES)
        structure = spec.get("structure", simulator.STRUCTURES[0])
        simulator.check_volume(spec.get("depth"), spec.get("z_step", 1.0), structure)
        return n_images, simulator.count_annotated(n_images, spec.get("annotated"), structure)
    if spec["source"] == "folder":
        sources = folders.find(*(spec.get(key) for key in FOLDER_KEYS))
        if _holds_several(sources[0].image, spec):
            return None
        return len(sources), sum(source.mask is not None for source in sources)
    if spec["format"] == "folder" and not spec.get("images"):
        raise InputError(
            "a dataset with `format: folder` lacks `images`: write the name of the folder of "
            "images inside the archive"
        )
    return None


def _holds_several(path: Path, spec: Spec) -> bool:
    """Whether a file has several images; raises if it cannot be read as the config says."""
    with open_image_file(path, spec.get("axes")) as file:
        return len(list(find_regions(file, Reading.of(spec)))) > 1


def _samples(spec: Spec, raw: str | Path | None) -> Iterator[_Sample]:
    """Yield the images of a source."""
    values = {key: spec[key] for key in MASK_KEYS if key in spec}
    if spec.get("format") == "denoiseg_npz":
        return _from_npz(raw, values)
    reading = Reading.of(spec)
    if spec["source"] == "simulate":
        reading = Reading(dimensions=_dimensions(spec))
    return _from_folders(_kinds(spec, raw), values, reading)


def _kinds(spec: Spec, raw: str | Path | None) -> dict[str, str | Path]:
    """Return the folders of images, masks and clean images of a source, those that it has."""
    if spec["source"] == "folder":
        return {key: spec[key] for key in FOLDER_KEYS if spec.get(key)}
    if raw is None:
        raise ValueError(f"source {spec['source']} needs a folder to read from")
    if spec["source"] == "simulate":
        return {key: Path(raw, key) for key in FOLDER_KEYS if Path(raw, key).is_dir()}
    if spec["format"] == "denoiseg_npz":
        return {}
    return {key: _inside(raw, key, spec[key]) for key in FOLDER_KEYS if spec.get(key)}


def _from_folders(
    kinds: Mapping[str, Any], values: Mapping[str, Any], reading: Reading
) -> Iterator[_Sample]:
    """Yield the images of folders; ``values`` say what the numbers in their masks mean."""
    for name, image_path, mask_path, clean_path in folders.find(**kinds):
        with ExitStack() as stack:
            images = _open_regions(image_path, reading, stack)
            masks = _open_regions(mask_path, reading.of_masks(), stack, indexed=True)
            cleans = _open_regions(clean_path, reading, stack)
            for others, kind, path in (
                (masks, "mask", mask_path),
                (cleans, "clean image", clean_path),
            ):
                if others is not None and len(others) != len(images):
                    raise InputError(
                        f"{image_path} holds {len(images)} images, but its {kind} {path} holds "
                        f"{len(others)}: export both from the same file"
                    )
            for number, image in enumerate(images):
                mask = clean = None
                if masks is not None:
                    mask = check_mask(masks[number].read(), str(mask_path), **values)
                    check_pair(image, mask, str(image_path), str(mask_path), "mask")
                if cleans is not None:
                    clean = cleans[number]
                    check_pair(image, clean, str(image_path), str(clean_path), "clean image")
                yield _Sample(
                    name + image.suffix, image, mask, clean, image_path.name, image.metadata
                )


def _open_regions(
    path: Path | None, reading: Reading, stack: ExitStack, indexed: bool = False
) -> list[Region] | None:
    """Return the images of a file, which stays open as long as ``stack``."""
    if path is None:
        return None
    file = stack.enter_context(open_image_file(path, reading.axes, indexed))
    return list(find_regions(file, reading))


def _from_npz(raw: str | Path, values: Mapping[str, Any]) -> Iterator[_Sample]:
    """Yield the images of a DenoiSeg archive; they are without noise, so each is its own truth."""
    for item in read_denoiseg_npz(raw):
        mask = check_mask(item.labels, f"of {item.origin}", **values)
        check_pair(item.image, mask, item.origin, "labels", "mask")
        yield _Sample(
            item.name,
            item.image,
            mask,
            item.image,
            item.origin,
            Metadata("YX"),
            item.subset,
            # Patches cut from an empty corner may be constant; nobody can repair the archive.
            constant=True,
        )


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
    name, metadata = f"{sample.name}.tif", sample.metadata
    label = _named(sample.image, sample.source)
    dtype = check_image(sample.image, label, sample.constant)
    copy_image(sample.image, folder / "images" / name, metadata, dtype)
    if sample.mask is not None:
        spatial = metadata.only(metadata.spatial_axes)
        write_image(folder / "masks" / name, sample.mask, spatial, compress=True)
    if sample.clean is not None:
        if sample.clean is not sample.image:
            check_image(sample.clean, _named(sample.clean, sample.source), sample.constant)
        copy_image(sample.clean, folder / "clean" / name, metadata, np.float32)
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
    """What error messages call an image."""
    if not isinstance(image, Region):
        return source
    part = f" ({image.suffix.strip('_')})" if image.suffix else ""
    return f"{image.file.path}{part}"
