"""Check the datasets of a config and count their images before any job starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from denoiseg_flow.data import folders, splitting
from denoiseg_flow.data.archive import ArchiveFormat
from denoiseg_flow.data.combined import parts
from denoiseg_flow.data.denoiseg_npz import read_denoiseg_npz
from denoiseg_flow.data.files.regions import Reading, find_regions
from denoiseg_flow.data.given_split import is_given, said_columns, subfolders, subset_of
from denoiseg_flow.data.manifest import MANIFEST_COLUMNS
from denoiseg_flow.data.noise import check_level, check_photons, counts_photons
from denoiseg_flow.data.simulated import simulator
from denoiseg_flow.errors import InputError

Spec = Mapping[str, Any]
"""One section of ``datasets`` in the config."""

SIMULATOR_KEYS = (
    "structure", "n_images", "size", "depth", "z_step", "n_nuclei", "annotated", "seed",
    "varied",
)  # fmt: skip
FOLDER_KEYS = ("images", "masks", "clean", "second")

ARCHIVE_FORMATS = {
    "denoiseg_npz": ArchiveFormat(read_denoiseg_npz, annotated=True, clean=True),
}
"""What ``format`` of a dataset with ``source: remote`` can name, besides ``folder``."""


def simulator_options(spec: Spec) -> dict[str, Any]:
    """Return those keys of a dataset that are parameters of :func:`simulator.simulate`."""
    return {key: spec[key] for key in SIMULATOR_KEYS if key in spec}


def check_sources(config: Mapping[str, Any], n_annotated: Mapping[str, int]) -> None:
    """Check datasets and noise levels before any job starts.

    Parameters
    ----------
    config
        The whole config, with its defaults.
    n_annotated
        Number of annotated training images that the runs of each dataset need.

    Raises
    ------
    InputError
        If a folder or the table of a split cannot be used, a combined dataset is inconsistent, a
        noise level is incomplete, ``grid.n_annotated`` exceeds the annotated images left for
        training, or a dataset has no annotated image left for validation.
    """
    grid = config["grid"]
    for name in grid["noises"]:
        check_level(name, config["noises"][name])
    for name in grid["datasets"]:
        available = annotated_for_training(config["datasets"], name)
        if available is not None and n_annotated[name] > available:
            raise InputError(
                f"grid.n_annotated asks for {n_annotated[name]} annotated images, but dataset "
                f"{name} has only {available} annotated images left for training after validation "
                "and test images are set aside; ask for fewer, or annotate more"
            )
        spec = config["datasets"][parts(config["datasets"], name)[0]]
        sizes = sizes_in_advance(spec)
        if sizes is None or sizes.cross:
            continue
        given = "subset" in said_columns(spec["split"])
        if config["predicted_images"] == "test" and not sizes.test:
            fix = "put images into the subset test" if given else "set 'test' of its split above 0"
            raise InputError(
                f"dataset {name} keeps no image for testing, so nothing would be predicted; {fix}, "
                "or write 'predicted_images: all'"
            )
        if n_annotated[name] and not sizes.annotated_val:
            fix = (
                "put annotated images into the subset val"
                if given
                else "annotate at least 3 (with 'val' of its split above 0), or 2 and write "
                "'cross_validate_below: 8' in its split"
            )
            raise InputError(
                f"dataset {name} has too few annotated images to choose the threshold of the "
                f"segmentation on validation images; {fix}"
            )
        if n_annotated[name] and given and sizes.test and not sizes.annotated_test:
            raise InputError(
                f"no test image of dataset {name} has a mask, so no segmentation could be scored; "
                "add masks of test images, or put annotated images into the subset test"
            )


def check_intensities(config: Mapping[str, Any]) -> None:
    """Check, before any job starts, that Poisson noise can be added to the user's own images.

    Reads only the headers of images with an unsigned pixel type, and nothing if the grid selects no
    Poisson noise.

    Parameters
    ----------
    config
        The whole config, which passed :func:`check_sources`.

    Raises
    ------
    InputError
        For the first image that has negative values or cannot be read, among the selected datasets
        with ``source: folder`` and the parts of selected ones.
    """
    grid = config["grid"]
    # One level is enough: all kinds of Poisson noise reject the same images.
    noise = next((name for name in grid["noises"] if counts_photons(config["noises"][name])), None)
    if noise is None:
        return
    datasets = config["datasets"]
    used = {part: datasets[part] for name in grid["datasets"] for part in parts(datasets, name)}
    for spec in used.values():
        if spec["source"] == "folder":
            for source in find_sources(spec):
                for path in filter(None, (source.image, source.second)):
                    with Reading.of(spec).open(path) as file:
                        for region in find_regions(file, Reading.of(spec)):
                            for each in (region, *region.repeats):
                                check_photons(each, config["noises"][noise], noise, path)


def annotated_for_training(datasets: Mapping[str, Spec], name: str) -> int | None:
    """Return how many annotated images are left for training; None if not known in advance.

    Raises
    ------
    InputError
        If the folders cannot be paired, the dataset cannot be split or combined as configured, or
        it has fewer training images than ``n_train``.
    """
    specs = [datasets[part] for part in parts(datasets, name)]
    _check_split(specs[0])
    sizes = sizes_in_advance(specs[0])
    extra = [count_in_advance(spec) for spec in specs[1:]]
    if sizes is None or None in extra:
        return None
    n_train = datasets[name].get("n_train")
    if sizes.cross and n_train is not None:
        raise InputError(
            f"config key datasets.{name}.n_train cannot be used if annotated images are "
            "cross-validated; leave it out, or set 'cross_validate_below: 0' in the split"
        )
    n_images, n_annotated = (
        own + sum(counts[place] for counts in extra if counts)
        for place, own in enumerate((sizes.train, sizes.annotated_train))
    )
    if n_train is not None and n_train > n_images:
        raise InputError(
            f"config key datasets.{name}.n_train is {n_train}, but only {n_images} images are left "
            "for training after validation and test images are set aside; lower it"
        )
    return n_annotated if n_train is None else min(n_annotated, n_train)


def _check_split(spec: Spec) -> None:
    """Raise InputError if a dataset cannot be split as configured, as far as known in advance."""
    how = spec.get("split", {})
    said_columns(how)
    folder = spec["source"] == "folder" or spec.get("format") == "folder"
    if how == splitting.GIVEN and spec.get("format") not in ARCHIVE_FORMATS:
        more = ", or 'split: {subset: folder}' for subfolders train, val and test" if folder else ""
        raise InputError(
            f"'split: given' needs a dataset with a fixed split, but the source is "
            f"{spec['source']}; write 'split: {{val: 0.15, test: 0.25, seed: 0}}'{more}"
        )
    if levels_of(spec) and not folder:
        raise InputError(
            f"config key 'split.{levels_of(spec)[0]}' is 'folder', but the images of this dataset "
            "are in no folder of yours; leave it out"
        )


def is_cross_validated(datasets: Mapping[str, Spec], name: str) -> bool:
    """Return whether the annotated images of a dataset are cross-validated; False if not yet known.

    Reads the folders of a dataset only if its split allows cross-validation.
    """
    spec = datasets[parts(datasets, name)[0]]
    how = spec.get("split", {})
    if how == splitting.GIVEN or not how.get("cross_validate_below"):
        return False
    sizes = sizes_in_advance(spec)
    return sizes is not None and sizes.cross


def sizes_in_advance(spec: Spec) -> splitting.SubsetSizes | None:
    """Return the numbers of images in the subsets; None if not yet known."""
    table = images_in_advance(spec) if is_given(spec.get("split", {})) else None
    divided = None if table is None else splitting.divide(table, spec["split"])
    counts = count_in_advance(spec)
    if counts is None or spec["split"] == splitting.GIVEN:
        return None
    if divided is not None:
        return splitting.count_subsets(divided)
    return splitting.subset_sizes(*counts, spec["split"])


def split_in_advance(spec: Spec, run_seed: int) -> pd.DataFrame:
    """Return the split of a dataset whose sizes are known in advance."""
    table = images_in_advance(spec)
    assert table is not None
    return splitting.split(table, spec["split"], run_seed)


def images_in_advance(spec: Spec) -> pd.DataFrame | None:
    """Return what the manifest will say of the images of a dataset; None if not yet known.

    If files hold several images, as many as the first file holds are assumed in each.
    """
    if spec["source"] == "simulate":
        n_images, n_annotated = count_simulated(spec)
        known = [
            (name, int(index < n_annotated), f"{name}.tif", "")
            for index, name in enumerate(map(simulator.image_name, range(n_images)))
        ]
    elif spec["source"] == "folder":
        levels, found = levels_of(spec), find_sources(spec)
        count = _count_regions(found[0].image, spec)
        known = [
            (name, int(each.mask is not None), each.file, subset_of(each.file, levels))
            for each in found
            for name in ([each.name] if count == 1 else [f"{each.name}_{n}" for n in range(count)])
        ]
    else:
        return None
    table = pd.DataFrame(known, columns=["image", "annotated", "source", "given_subset"])
    return table.reindex(columns=list(MANIFEST_COLUMNS), fill_value=0)


def find_sources(spec: Spec) -> list[folders.Source]:
    """Return the files of a dataset with ``source: folder``; raises like :func:`folders.find`."""
    others = spec.get("masks"), spec.get("clean")
    return folders.find(spec["images"], *others, levels_of(spec), spec.get("second"))


def levels_of(spec: Spec) -> tuple[str, ...]:
    """Return what the subfolders of a dataset's folders stand for, see :func:`folders.find`."""
    return subfolders(spec.get("split", {}))


def split_of(datasets: Mapping[str, Spec], name: str) -> Mapping[str, Any] | str:
    """Return the split of a dataset; a combined one has that of its first part."""
    split: Mapping[str, Any] | str = datasets[parts(datasets, name)[0]].get("split", {})
    return split


def is_grouped(datasets: Mapping[str, Spec], name: str) -> bool:
    """Return whether the images of a dataset belong to groups."""
    return "group" in said_columns(split_of(datasets, name))


def has_clean_truth(datasets: Mapping[str, Spec], name: str) -> bool:
    """Return whether a dataset, or every part of a combined one, has clean images."""
    return all(
        spec["source"] == "simulate"
        or bool(spec.get("clean"))
        or (spec.get("format") in ARCHIVE_FORMATS and ARCHIVE_FORMATS[spec["format"]].clean)
        for spec in (datasets[part] for part in parts(datasets, name))
    )


def has_repeats(datasets: Mapping[str, Spec], name: str) -> bool:
    """Return whether a dataset, or every part of a combined one, has several acquisitions."""
    return all(
        datasets[part].get("second") or datasets[part].get("repeats")
        for part in parts(datasets, name)
    )


def in_colour(datasets: Mapping[str, Spec], name: str) -> bool:
    """Return whether a dataset, or the first part of a combined one, is of colour images."""
    return datasets[parts(datasets, name)[0]].get("colour") == "rgb"


def dimensions(datasets: Mapping[str, Spec], name: str) -> int:
    """Return 3 for a dataset of volumes (3D), 2 for a dataset of planes (2D).

    Raises
    ------
    InputError
        If a combined dataset mixes both.
    """
    of = parts(datasets, name)
    found = [spec_dimensions(datasets[part]) for part in of]
    for part, each in zip(of, found, strict=True):
        if each != found[0]:
            raise InputError(
                f"config key datasets.{name}.of combines 2D and 3D images ({of[0]} and {part}); "
                "name datasets of the same dimensions"
            )
    return found[0]


def spec_dimensions(spec: Spec) -> int:
    """Return 3 for a dataset of volumes, 2 for one of planes, if it is not combined."""
    volumes = spec.get("dimensions") == 3 or bool(spec.get("depth"))
    return 3 if volumes else 2


def has_masks(datasets: Mapping[str, Spec], name: str) -> bool:
    """Return whether a dataset, or the first part of a combined one, has masks.

    The other parts do not count, because only images of the first are tested.
    """
    spec = datasets[parts(datasets, name)[0]]
    if spec["source"] == "simulate":
        return count_simulated(spec)[1] > 0
    if spec.get("format") in ARCHIVE_FORMATS:
        return ARCHIVE_FORMATS[spec["format"]].annotated
    return bool(spec.get("masks"))


def count_simulated(spec: Spec) -> tuple[int, int]:
    """Return the numbers of images and of annotated images of a simulated dataset."""
    n_images = spec.get("n_images", simulator.N_IMAGES)
    structure = spec.get("structure", simulator.STRUCTURES[0])
    simulator.check_volume(spec.get("depth"), spec.get("z_step", 1.0), structure)
    simulator.check_varied(structure, spec.get("varied", False))
    return n_images, simulator.count_annotated(n_images, spec.get("annotated"), structure)


def count_in_advance(spec: Spec) -> tuple[int, int] | None:
    """Return the numbers of images and of annotated images; None if not yet known.

    They are not known in advance for folders whose files hold several images each.
    """
    if spec["source"] == "simulate":
        return count_simulated(spec)
    if spec["source"] == "folder":
        sources = find_sources(spec)
        if _count_regions(sources[0].image, spec) > 1:
            return None
        return len(sources), sum(source.mask is not None for source in sources)
    if spec["format"] == "folder" and not spec.get("images"):
        raise InputError(
            "a dataset with 'format: folder' lacks 'images'; write the path of the image folder "
            "inside the archive"
        )
    return None


def _count_regions(path: Path, spec: Spec) -> int:
    """Return how many images a file holds; raise InputError if it cannot be read."""
    with Reading.of(spec).open(path) as file:
        return len(list(find_regions(file, Reading.of(spec))))
