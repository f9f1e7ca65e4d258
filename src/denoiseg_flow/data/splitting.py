"""Split a dataset into training, validation and test images."""

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pandas as pd

from denoiseg_flow.data.manifest import CROSS, SPLIT_COLUMNS, SUBSETS, TRAINED
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.seeds import generator

logger = logging.getLogger(__name__)
N_FOLDS = 3
UNUSED = "unused"  # subset of images beyond n_train
GIVEN = "given"
EXTRA = "extra"  # given_subset of images for training only, which no fraction counts


class SubsetSizes(NamedTuple):
    """Numbers of validation and test images, and the pool they are drawn from."""

    val: int
    test: int
    annotated_only: bool
    """Whether they are drawn from the annotated images; if not, segmentation cannot be scored."""
    cross: bool = False
    """Whether the annotated images are cross-validated; all of them are then trained on."""


def split(
    manifest: pd.DataFrame,
    how: Mapping[str, float] | str,
    run_seed: int,
    n_train: int | None = None,
) -> pd.DataFrame:
    """Split a dataset by source file, and rank its annotated training images.

    Validation and test images are drawn from the annotated images; the rest is for training.

    - Images of one file, such as the planes of a stack, go into the same subset if there are
      enough files for all subsets. Each subset gets the number of files, at least one, that comes
      closest to its fraction.
    - With fewer annotated images than ``cross_validate_below``, all of them go into the subset
      "cross". Validation images are drawn from the others, as long as one is left for training.
    - With fewer than three annotated images, all of them stay in training. Validation and test
      images are drawn from the others, which allows at least denoising to be scored.
    - Images that a combined dataset adds (given_subset "extra") are for training. They do not
      change the split of the others.

    Parameters
    ----------
    manifest
        See MANIFEST_COLUMNS.
    how
        ``val`` and ``test``, fractions of the annotated images (at least one image each unless 0);
        ``seed``, which alone decides the subset of each image; and ``cross_validate_below``,
        default 0. Or "given": follow the manifest's column given_subset.
    run_seed
        Decides the rank of the annotated training images. A run with n annotated images uses the
        first n, so smaller selections are subsets of larger ones.
    n_train
        Number of training images to use: annotated images first, in order of rank, then others in
        random order. The rest becomes "unused". None uses all.

    Returns
    -------
    pandas.DataFrame
        Columns SPLIT_COLUMNS, rows in the order of the manifest.

    Raises
    ------
    InputError
        If there are fewer than three images, the fractions leave none for training, the manifest
        has no given split, or fewer than ``n_train`` training images are left.
    """
    if isinstance(how, str):
        subset = _given(manifest)
    else:
        subset = pd.Series(_draw(manifest, how), manifest.index)
    table = manifest.assign(subset=subset)
    if n_train is not None and (subset == CROSS).any():
        raise InputError(
            "config key 'n_train' of a combined dataset cannot be used if annotated images are "
            "cross-validated; leave it out, or set 'cross_validate_below: 0' in the split"
        )
    if n_train is not None:
        beyond = _beyond(table[table["subset"] == "train"], n_train, run_seed)
        table.loc[table["image"].isin(beyond), "subset"] = UNUSED
    candidates = table.loc[table["subset"].isin(TRAINED) & (table["annotated"] == 1), "image"]
    order = _shuffled(candidates, run_seed, "labels")
    rank = {image: position for position, image in enumerate(order, start=1)}
    table["rank"] = pd.array([rank.get(image) for image in table["image"]], dtype="Int64")
    return table[list(SPLIT_COLUMNS)]


def subset_sizes(n_images: int, n_annotated: int, fractions: Mapping[str, float]) -> SubsetSizes:
    """Return how many images :func:`split` sets aside; raises the same errors.

    With ``test: 1`` these are all images, however few, for methods that train on each image alone
    or not at all.
    """
    val, test = float(fractions["val"]), float(fractions["test"])
    if test == 1 and val == 0:
        return SubsetSizes(0, n_images, False)
    if 1 < n_annotated < fractions.get("cross_validate_below", 0):
        others = n_images - n_annotated
        n_val = min(max(int(val * others + 0.5), 1), others - 1) if val > 0 and others > 1 else 0
        return SubsetSizes(n_val, 0, False, cross=True)
    if val < 0 or test < 0 or val + test >= 1:
        raise InputError(
            f"split.val is {val} and split.test is {test}, but these fractions must be at least 0 "
            "and sum to less than 1; write for example 0.15 and 0.25 (or 0 and 1 for methods that "
            "need no training images)"
        )
    wanted = (val > 0) + (test > 0)
    annotated_only = n_annotated > wanted
    pool = n_annotated if annotated_only else n_images - n_annotated
    spare = pool - (1 if annotated_only or n_annotated == 0 else 0)  # training needs one image
    if spare < wanted:
        raise InputError(
            f"the dataset has {n_images} images ({n_annotated} annotated), too few to split into "
            "training, validation and test images; give at least 3, preferably with masks"
        )
    n_test = min(max(int(test * pool + 0.5), 1), spare - (val > 0)) if test > 0 else 0
    n_val = min(max(int(val * pool + 0.5), 1), spare - n_test) if val > 0 else 0
    return SubsetSizes(n_val, n_test, annotated_only)


def folds(split_table: pd.DataFrame, n_annotated: int) -> list[list[str]]:
    """Return the folds of the subset "cross"; empty if the subset is empty.

    Each fold is predicted by a network trained without it. The first ``n_annotated`` images, whose
    masks are used, are divided into :data:`N_FOLDS` folds, or fewer if there are fewer images. The
    remaining images form one more fold; with ``n_annotated`` 0 they are divided instead.
    """
    ranked = split_table[split_table["subset"] == CROSS].sort_values("rank")
    revealed = set(annotated_images(split_table, n_annotated))
    used = ranked["image"].isin(revealed)
    if not used.any():
        return _in_parts(ranked)
    others = ranked.loc[~used, "image"].tolist()
    return [*_in_parts(ranked[used]), *([others] if others else [])]


def _in_parts(images: pd.DataFrame) -> list[list[str]]:
    """Divide images into folds; images of one file stay together if there are several files."""
    keys = images["source"] if images["source"].nunique() > 1 else images["image"]
    numbers = pd.factorize(keys)[0]
    n_parts = min(N_FOLDS, keys.nunique())
    return [images.loc[numbers % n_parts == part, "image"].tolist() for part in range(n_parts)]


def annotated_images(split_table: pd.DataFrame, n_annotated: int) -> list[str]:
    """Return the names of the first ``n_annotated`` annotated training images, in order of rank.

    Raises
    ------
    InputError
        If there are fewer.
    """
    ranked = split_table[split_table["rank"].notna()].sort_values("rank")
    if n_annotated > len(ranked):
        raise InputError(
            f"grid.n_annotated asks for {n_annotated} annotated images, but only {len(ranked)} "
            "annotated images are left for training; ask for fewer, or annotate more"
        )
    return ranked["image"].head(n_annotated).tolist()


def _beyond(train: pd.DataFrame, n_train: int, run_seed: int) -> list[str]:
    """Return the training images beyond the first ``n_train``."""
    if n_train > len(train):
        raise InputError(
            f"n_train is {n_train}, but only {len(train)} images are left for training after "
            "validation and test images are set aside; lower it, or give more images"
        )
    order = []
    for annotated in (1, 0):
        order += _shuffled(train.loc[train["annotated"] == annotated, "image"], run_seed, "labels")
    return order[n_train:]


def _given(manifest: pd.DataFrame) -> pd.Series:
    """Return the subsets given with the data."""
    lacking = manifest.loc[~manifest["given_subset"].isin([*SUBSETS, EXTRA]), "image"]
    if len(lacking):
        raise InputError(
            f"the dataset has no fixed split (image {lacking.iloc[0]} has no subset); write "
            "'split: {val: 0.15, test: 0.25, seed: 0}' instead of 'split: given'"
        )
    return manifest["given_subset"].replace(EXTRA, "train")


def _draw(manifest: pd.DataFrame, how: Mapping[str, float]) -> list[str]:
    """Draw validation and test images."""
    own = manifest[manifest["given_subset"] != EXTRA]
    annotated = own["annotated"] == 1
    sizes = subset_sizes(len(own), int(annotated.sum()), how)
    if sizes.test == len(own):
        return ["test" if image in set(own["image"]) else "train" for image in manifest["image"]]
    if not sizes.annotated_only and not sizes.cross and sizes.val + sizes.test > 0:
        logger.warning(
            "only %d of %d images are annotated, too few for validation and test: these images "
            "have no masks, so denoising can be scored but segmentation cannot",
            annotated.sum(),
            len(own),
        )
    pool = own[annotated == sizes.annotated_only]
    places = dict.fromkeys(own.loc[annotated, "image"], CROSS) if sizes.cross else {}
    wanted = {key: count for key, count in (("test", sizes.test), ("val", sizes.val)) if count}
    kept = int(sizes.annotated_only or sizes.cross or not annotated.any())  # one for training
    groups = _shuffled_groups(pool, int(how["seed"]), len(wanted) + kept) if wanted else []
    for number, (subset, count) in enumerate(wanted.items(), start=1):
        spare = len(groups) - (len(wanted) - number) - kept
        for group in _about(groups, count, spare):
            groups.remove(group)
            places |= dict.fromkeys(group, subset)
    return [places.get(image, "train") for image in manifest["image"]]


def _about(groups: list[list[str]], wanted: int, limit: int) -> list[list[str]]:
    """Choose groups, in their order, that together have about as many images as wanted.

    Each chosen group brings the sum closer. Returns at most ``limit`` groups and at least one, the
    smallest if all are too large.
    """
    taken: list[list[str]] = []
    lacking = wanted
    for group in groups:
        if len(taken) < limit and abs(lacking - len(group)) < abs(lacking):
            taken.append(group)
            lacking -= len(group)
    return taken or [min(groups, key=len)]


def _shuffled_groups(pool: pd.DataFrame, seed: int, needed: int) -> list[list[str]]:
    """Return the images in random order, grouped by file if there are enough files.

    Planes of a stack and frames of a movie are similar. If a network trained on some of them,
    scores on the others would say little about new images.
    """
    files = dict(list(pool.groupby("source", sort=False)["image"]))
    if len(files) >= needed:
        return [list(files[source]) for source in _shuffled(files, seed, "split")]
    logger.warning(
        "there are fewer than %d files, each with several images: training and test images come "
        "from the same files, so scores are too optimistic",
        needed,
    )
    return [[image] for image in _shuffled(pool["image"], seed, "split")]


def _shuffled(images: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Shuffle names; the relative order of two names does not depend on the others."""
    return sorted(images, key=lambda image: (generator(seed, purpose, image).random(), image))
