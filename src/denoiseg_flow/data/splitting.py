"""Split a dataset into training, validation and test images."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from denoiseg_flow.data.given_split import what_is_said
from denoiseg_flow.data.manifest import CROSS, GROUP, SPLIT_COLUMNS, SUBSETS, TRAINED, units
from denoiseg_flow.errors import InputError, plain, shown
from denoiseg_flow.findings import count
from denoiseg_flow.jobs.seeds import generator

logger = logging.getLogger(__name__)
N_FOLDS = 3
UNUSED = "unused"  # subset of images beyond n_train
GIVEN = "given"
EXTRA = "extra"  # given_subset of images for training only, which no fraction counts


class SubsetSizes(NamedTuple):
    """Numbers of images, and of annotated images, in each subset."""

    train: int
    val: int
    test: int
    annotated_train: int
    """Cross-validated images included, which are in none of the other subsets."""
    annotated_val: int
    annotated_test: int
    cross: bool = False
    """Whether the annotated images are cross-validated."""


def split(
    manifest: pd.DataFrame,
    how: Mapping[str, Any] | str,
    run_seed: int,
    n_train: int | None = None,
) -> pd.DataFrame:
    """Split a dataset by source file or group, and rank its annotated training images.

    Validation and test images are drawn from the annotated images; the rest is for training.

    - Images of one file, such as the planes of a stack, go into the same subset if there are
      enough files for all subsets. Each subset gets the number of files, at least one, that comes
      closest to its fraction.
    - Images of one group always go into the same subset, those without a mask included.
    - With fewer annotated images than ``cross_validate_below``, all of them go into the subset
      "cross". Validation images are drawn from the others, as long as one is left for training.
    - With fewer than three annotated images, all of them stay in training. Validation and test
      images are drawn from the others, which allows at least denoising to be scored.
    - Images that a combined dataset adds (given_subset "extra") are for training. They do not
      change the split of the others.
    - Subsets, groups and ranks that a table or the subfolders give are followed, and the rest is
      drawn: of given subsets without validation images, these are drawn from the training images.

    Parameters
    ----------
    manifest
        See MANIFEST_COLUMNS.
    how
        ``val`` and ``test``, fractions of the annotated images (at least one image each unless 0);
        ``seed``, which alone decides the subset of each image; and ``cross_validate_below``,
        default 0; file, subset and group, see :func:`~given_split.what_is_said`. Or "given":
        follow the manifest's column given_subset.
    run_seed
        Decides the rank of the annotated training images, as far as it is not given. A run with n
        annotated images uses the first n, so smaller selections are subsets of larger ones.
    n_train
        Number of training images to use: annotated images first, in order of rank, then others in
        random order. The rest becomes "unused". None uses all.

    Returns
    -------
    pandas.DataFrame
        Columns SPLIT_COLUMNS, and group if there are groups; rows in the order of the manifest.

    Raises
    ------
    InputError
        If there are fewer than three images, too few groups, the fractions leave none for training,
        the manifest has no given split, fewer than ``n_train`` training images are left, or what
        the user says about the split contradicts itself or the images.
    """
    table = divide(manifest, how)
    if n_train is not None and (table["subset"] == CROSS).any():
        raise InputError(
            "config key 'n_train' of a combined dataset cannot be used if annotated images are "
            "cross-validated; leave it out, or set 'cross_validate_below: 0' in the split"
        )
    table["rank"] = _ranks(table, run_seed)
    if n_train is not None:
        beyond = _beyond(table[table["subset"] == "train"], n_train, run_seed)
        table.loc[table["image"].isin(beyond), ["subset", "rank"]] = UNUSED, pd.NA
    return table[[*SPLIT_COLUMNS, *table.columns.intersection([GROUP])]]


def divide(manifest: pd.DataFrame, how: Mapping[str, Any] | str) -> pd.DataFrame:
    """Return a manifest with the subset of each image.

    Parameters and errors are those of :func:`split`.

    Returns
    -------
    pandas.DataFrame
        With the columns group and rank as well, if these are given; rank in the user's numbers.
    """
    manifest = manifest.reset_index(drop=True)
    if isinstance(how, str):
        return manifest.assign(subset=_given(manifest))
    own = manifest[manifest["given_subset"] != EXTRA]
    said = what_is_said(own, how)
    own = own.assign(**said)
    subset = own["subset"].copy() if "subset" in said else _draw(own, how)
    train = own[subset == "train"]
    if "subset" in said and not (subset == "val").any() and len(train) > 1:
        subset[train.index] = _draw(train, {**how, "test": 0, "cross_validate_below": 0})
    table = manifest.assign(subset=subset.reindex(manifest.index, fill_value="train"))
    if GROUP in said:
        table[GROUP] = said[GROUP].reindex(manifest.index).fillna(manifest["source"])
    if "rank" in said:
        table["rank"] = said["rank"].reindex(manifest.index)
    return table


def count_subsets(table: pd.DataFrame) -> SubsetSizes:
    """Return the numbers of images in the subsets of a divided dataset."""
    annotated = table["annotated"] == 1
    images, masks = (part["subset"].value_counts() for part in (table, table[annotated]))
    n_train, n_val, n_test = (int(images.get(name, 0)) for name in SUBSETS)
    train, val, test, cross = (int(masks.get(name, 0)) for name in (*SUBSETS, CROSS))
    return SubsetSizes(n_train, n_val, n_test, train + cross, val, test, cross > 0)


def subset_sizes(n_images: int, n_annotated: int, fractions: Mapping[str, float]) -> SubsetSizes:
    """Return how many images :func:`split` sets aside; raises the same errors.

    With ``test: 1`` these are all images, however few, for methods that train on each image alone
    or not at all.
    """
    val, test = float(fractions["val"]), float(fractions["test"])
    if test == 1 and val == 0:
        return SubsetSizes(0, 0, n_images, 0, 0, n_annotated)
    if 1 < n_annotated < fractions.get("cross_validate_below", 0):
        others = n_images - n_annotated
        n_val = min(max(int(val * others + 0.5), 1), others - 1) if val > 0 and others > 1 else 0
        return SubsetSizes(others - n_val, n_val, 0, n_annotated, 0, 0, cross=True)
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
    drawn = (n_val, n_test) if annotated_only else (0, 0)
    n_train = n_images - n_val - n_test
    return SubsetSizes(n_train, n_val, n_test, n_annotated - sum(drawn), *drawn)


def folds(split_table: pd.DataFrame, n_annotated: int) -> list[list[str]]:
    """Return the folds of the subset "cross"; empty if the subset is empty.

    Each fold is predicted by a network trained without it. The first ``n_annotated`` images, whose
    masks are used, are divided into :data:`N_FOLDS` folds, or fewer if there are fewer images. The
    remaining images form one more fold; with ``n_annotated`` 0 they are divided instead.

    Groups are divided into folds as a whole, with all their training images, whose masks are used
    or not.

    Raises
    ------
    InputError
        If all masks that are used are of one group.
    """
    ranked = split_table[split_table["subset"] == CROSS].sort_values("rank")
    revealed = set(annotated_images(split_table, n_annotated))
    used = ranked["image"].isin(revealed)
    if GROUP in ranked and len(ranked):
        return _group_folds(split_table, ranked[GROUP], ranked.loc[used, GROUP])
    if not used.any():
        return _in_parts(ranked)
    others = ranked.loc[~used, "image"].tolist()
    return [*_in_parts(ranked[used]), *([others] if others else [])]


def _group_folds(table: pd.DataFrame, ranked: pd.Series, used: pd.Series) -> list[list[str]]:
    """Divide the groups of cross-validated images into folds, in their order of rank."""
    if used.nunique() == 1:
        raise InputError(
            f"the first {len(used)} annotated images are all of group {shown(used.iloc[0])}, but "
            "cross-validation predicts each group by a network trained on others; ask for more in "
            "'grid.n_annotated', or rank an image of another group among the first"
        )
    groups = ranked.unique()
    n_parts = min(N_FOLDS, len(groups))
    part = table[GROUP].map({group: number % n_parts for number, group in enumerate(groups)})
    trained = table["subset"].isin(TRAINED)
    return [table.loc[trained & (part == number), "image"].tolist() for number in range(n_parts)]


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


def _ranks(table: pd.DataFrame, run_seed: int) -> pd.Series:
    """Return the rank of each annotated training image: as given, and then at random.

    In a cross-validation of groups, the first images are of as many groups as possible.
    """
    trained = table["subset"].isin(TRAINED) & (table["annotated"] == 1)
    images = table[trained].set_index("image")
    images = images.loc[_shuffled(images.index, run_seed, "labels")]
    if "rank" in images:
        images = images.sort_values("rank", kind="stable")
    elif GROUP in images and (images["subset"] == CROSS).any():
        images = images.iloc[images.groupby(GROUP).cumcount().argsort(kind="stable")]
    order = pd.Series(range(1, len(images) + 1), images.index)
    return table["image"].map(order).astype("Int64")


def _beyond(train: pd.DataFrame, n_train: int, run_seed: int) -> list[str]:
    """Return the training images beyond the first ``n_train``."""
    if n_train > len(train):
        raise InputError(
            f"n_train is {n_train}, but only {len(train)} images are left for training after "
            "validation and test images are set aside; lower it, or give more images"
        )
    annotated = train[train["annotated"] == 1].sort_values("rank")["image"]
    others = _shuffled(train.loc[train["annotated"] == 0, "image"], run_seed, "labels")
    return [*annotated, *others][n_train:]


def _given(manifest: pd.DataFrame) -> pd.Series:
    """Return the subsets given with the data."""
    lacking = manifest.loc[~manifest["given_subset"].isin([*SUBSETS, EXTRA]), "image"]
    if len(lacking):
        raise InputError(
            f"the dataset has no fixed split (image {lacking.iloc[0]} has no subset); write "
            "'split: {val: 0.15, test: 0.25, seed: 0}' instead of 'split: given'"
        )
    return manifest["given_subset"].replace(EXTRA, "train")


def _draw(own: pd.DataFrame, how: Mapping[str, Any]) -> pd.Series:
    """Return the subset of each image; validation and test images are drawn."""
    annotated = own["annotated"] == 1
    sizes = subset_sizes(len(own), int(annotated.sum()), how)
    subset = pd.Series("train", own.index)
    if sizes.test == len(own):
        return subset.replace("train", "test")
    annotated_only = sizes.annotated_val + sizes.annotated_test > 0
    if not annotated_only and not sizes.cross and sizes.val + sizes.test > 0:
        logger.warning(
            "only %d of %d images are annotated, too few for validation and test: these images "
            "have no masks, so denoising can be scored but segmentation cannot",
            annotated.sum(),
            len(own),
        )
    pool = own[annotated == annotated_only]
    wanted = {key: size for key, size in (("test", sizes.test), ("val", sizes.val)) if size}
    kept = int(annotated_only or sizes.cross or not annotated.any())  # one for training
    if GROUP in own:
        if not annotated_only:
            pool = pool[~pool[GROUP].isin(own.loc[annotated, GROUP])]
        if sizes.cross:
            _require_groups(own.loc[annotated, GROUP], 2, "cross-validated")
            if pool[GROUP].nunique() <= kept:
                wanted = {}  # the cross-validated images validate, too
        else:
            what = " and ".join([*wanted, *(["train"] if kept else [])])
            _require_groups(pool[GROUP], len(wanted) + kept, f"divided into {what}")
    groups = _shuffled_groups(pool, int(how["seed"]), len(wanted) + kept) if wanted else []
    for number, (key, n_images) in enumerate(wanted.items(), start=1):
        spare = len(groups) - (len(wanted) - number) - kept
        for group in _about(groups, n_images, spare):
            groups.remove(group)
            chosen = own["image"].isin(group)
            if GROUP in own:
                chosen = own[GROUP].isin(own.loc[chosen, GROUP])
            subset[chosen] = key
    return subset.mask(annotated, CROSS) if sizes.cross else subset


def _require_groups(groups: pd.Series, needed: int, what: str) -> None:
    """Raise InputError if there are too few groups."""
    found = [str(group) for group in groups.unique()]
    if len(found) < needed:
        named = f" ({', '.join(map(plain, found))})" if found else ""
        raise InputError(
            f"the images that are to be {what} are of {count(len(found), 'group')}{named}, but at "
            f"least {needed} are needed, because groups are never divided; give images of more "
            "groups, or change 'val', 'test' or 'group' of the split"
        )


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
    """Return the images in random order, by group, or by file if there are enough files.

    Planes of a stack and frames of a movie are similar. If a network trained on some of them,
    scores on the others would say little about new images.
    """
    files = dict(list(pool.groupby(units(pool), sort=False)["image"]))
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
