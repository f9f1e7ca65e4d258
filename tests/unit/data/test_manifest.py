"""Splitting by source image: reproducible, nested, and clear about what is missing."""

import logging

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from refusals import refusal

from denoiseg_flow.data import manifest, splitting
from denoiseg_flow.errors import InputError

HOW = {"val": 0.15, "test": 0.25, "seed": 0}


def table(n_annotated, n_other=0, given_subset=""):
    names = [f"a{i:03d}" for i in range(n_annotated)] + [f"u{i:03d}" for i in range(n_other)]
    return pd.DataFrame(
        {
            "image": names,
            "height": 8,
            "width": 9,
            "depth": 1,
            "dtype": "uint8",
            "annotated": [int(name[0] == "a") for name in names],
            "n_objects": 1,
            "clean": 0,
            "given_subset": given_subset,
            "source": [f"{name}.tif" for name in names],
        }
    )


def members(split, subset):
    return set(split.loc[split["subset"] == subset, "image"])


def test_read_gives_back_what_was_written(tmp_path):
    names = ["001", "NA", "tab\there", "1e5", "ä"]
    images = table(5).assign(image=names)
    manifest.write(images, tmp_path / "sub" / "manifest.tsv")
    back = manifest.read(tmp_path / "sub" / "manifest.tsv")
    assert back["image"].tolist() == names
    assert back["given_subset"].tolist() == [""] * 5
    assert tuple(back.columns) == manifest.MANIFEST_COLUMNS
    pd.testing.assert_frame_equal(back, images, check_dtype=False)
    split = splitting.split(back, HOW, 0)
    manifest.write(split, tmp_path / "split.tsv")
    pd.testing.assert_frame_equal(manifest.read(tmp_path / "split.tsv"), split, check_dtype=False)


@given(
    st.integers(3, 60), st.integers(0, 20), st.floats(0.01, 0.49), st.floats(0.01, 0.49),
    st.integers(0, 3), st.integers(0, 3),
)  # fmt: skip
def test_every_split_is_complete_and_leaves_labels_for_training(
    n_annotated, n_other, val, test, split_seed, run_seed
):
    images = table(n_annotated, n_other)
    split = splitting.split(images, {"val": val, "test": test, "seed": split_seed}, run_seed)
    assert split["image"].tolist() == images["image"].tolist()
    assert tuple(split.columns) == manifest.SPLIT_COLUMNS
    for subset in ("val", "test"):
        chosen = split[split["subset"] == subset]
        assert len(chosen) >= 1 and chosen["annotated"].all()
    training = split[split["subset"] == "train"]
    ranks = training.loc[training["annotated"] == 1, "rank"]
    assert len(ranks) >= 1 and sorted(ranks) == list(range(1, len(ranks) + 1))
    assert split["rank"].notna().sum() == len(ranks)
    expected = n_annotated - len(ranks)
    sizes = splitting.subset_sizes(len(images), n_annotated, {"val": val, "test": test})
    assert sizes.val + sizes.test == expected


def test_fractions_are_of_the_annotated_images():
    split = splitting.split(table(40, 100), HOW, 0)
    assert (len(members(split, "val")), len(members(split, "test"))) == (6, 10)


def test_subsets_depend_on_the_split_seed_and_ranks_on_the_run_seed():
    first, second = splitting.split(table(40), HOW, 1), splitting.split(table(40), HOW, 2)
    assert first["subset"].tolist() == second["subset"].tolist()
    assert first["rank"].tolist() != second["rank"].tolist()
    other = splitting.split(table(40), HOW | {"seed": 1}, 1)
    assert other["subset"].tolist() != first["subset"].tolist()


def test_annotated_subsets_are_nested():
    split = splitting.split(table(60), HOW, 3)
    ten, nineteen = splitting.annotated_images(split, 10), splitting.annotated_images(split, 19)
    assert nineteen[:10] == ten and len(set(nineteen)) == 19
    assert set(nineteen) <= members(split, "train")
    assert splitting.annotated_images(split, 0) == []


def test_too_many_annotated_images_asked_for():
    split = splitting.split(table(10, 5), HOW, 0)
    available = int(split["rank"].notna().sum())
    assert len(splitting.annotated_images(split, available)) == available
    with pytest.raises(InputError) as caught:
        splitting.annotated_images(split, available + 1)
    message = str(caught.value)
    assert all(part in message for part in (str(available), str(available + 1), "grid.n_annotated"))


@pytest.mark.parametrize("n_annotated", [0, 1, 2])
def test_few_masks_stay_in_training(caplog, n_annotated):
    with caplog.at_level(logging.WARNING):
        split = splitting.split(table(n_annotated, 10), HOW, 0)
    assert f"only {n_annotated} of" in caplog.text and "cannot" in caplog.text
    assert members(split, "val") and members(split, "test")
    assert len(splitting.annotated_images(split, n_annotated)) == n_annotated


def stacks(planes, annotated=True):
    """Images of files of so many planes each."""
    images = table(sum(planes), 0) if annotated else table(0, sum(planes))
    files = [f"file{k}.tif" for k, count in enumerate(planes) for _ in range(count)]
    return images.assign(source=files)


@given(st.lists(st.integers(1, 60), min_size=3, max_size=12), st.booleans(), st.integers(0, 5))
@example([2, 2, 40], True, 0)
@example([3, 20, 3, 3], True, 0)
@example([50, 1, 1, 1, 1], True, 0)
def test_whole_files_are_divided_and_each_subset_has_some(planes, annotated, seed):
    split = splitting.split(stacks(planes, annotated), HOW | {"seed": seed}, 0)
    assert (split.groupby("source")["subset"].nunique() == 1).all()
    assert set(split["subset"]) == {"train", "val", "test"}
    # As near to the fractions as whole files allow.
    for subset, share in (("val", 0.15), ("test", 0.25)):
        chosen = split[split["subset"] == subset]
        excess = len(chosen) - share * len(split)
        assert excess <= max(chosen["source"].value_counts().max(), 1)


def test_the_largest_file_is_for_training():
    split = splitting.split(stacks([2, 2, 40]), HOW, 0)
    assert split["subset"].value_counts().to_dict() == {"train": 40, "val": 2, "test": 2}


def test_files_too_few_for_all_subsets(caplog):
    split = splitting.split(stacks([20, 20]), HOW, 0)
    assert "fewer than 3 files" in caplog.text and "too optimistic" in caplog.text
    assert set(split["subset"]) == {"train", "val", "test"}
    caplog.clear()
    split = splitting.split(stacks([20, 20]), {"val": 0, "test": 0.3, "seed": 0}, 0)
    assert not caplog.text
    assert (split.groupby("source")["subset"].nunique() == 1).all()


def test_no_validation_or_test_may_be_asked_for():
    split = splitting.split(table(2), {"val": 0, "test": 0, "seed": 0}, 0)
    assert members(split, "train") == {"a000", "a001"}
    split = splitting.split(table(2), {"val": 0.5, "test": 0, "seed": 0}, 0)
    assert len(members(split, "val")) == 1 and not members(split, "test")


@pytest.mark.parametrize(("n_annotated", "n_other"), [(2, 0), (0, 2), (2, 1), (1, 1)])
def test_too_few_images(n_annotated, n_other):
    with pytest.raises(InputError, match="at least 3"):
        splitting.split(table(n_annotated, n_other), HOW, 0)


@pytest.mark.parametrize("how", [{"val": 0.5, "test": 0.5}, {"val": -0.1, "test": 0.2}])
def test_impossible_fractions(how):
    with pytest.raises(InputError, match=r"split\.val"):
        splitting.split(table(10), how | {"seed": 0}, 0)


def test_given_split():
    subsets = ["train"] * 4 + ["val", "test"]
    split = splitting.split(table(6, given_subset=subsets), "given", 0)
    assert split["subset"].tolist() == subsets
    assert split["rank"].notna().tolist() == [True] * 4 + [False] * 2
    with pytest.raises(InputError, match="a000"):
        splitting.split(table(6), "given", 0)


def with_extra(images, n_annotated, n_other):
    """Images that a combined dataset adds to those of its first part."""
    extra = table(n_annotated, n_other, splitting.EXTRA)
    return pd.concat([images, extra.assign(image="x_" + extra["image"])], ignore_index=True)


@pytest.mark.parametrize("own", [(20, 0), (20, 7), (2, 9)])
@pytest.mark.parametrize("extra", [(12, 0), (0, 12), (3, 40)])
def test_extra_images_change_nothing_about_the_others(own, extra):
    alone = splitting.split(table(*own), HOW, 5)
    both = splitting.split(with_extra(table(*own), *extra), HOW, 5)
    assert both["subset"].head(len(alone)).tolist() == alone["subset"].tolist()
    assert set(both["subset"].tail(-len(alone))) == {"train"}
    ranks = both["rank"].dropna()
    assert sorted(ranks) == list(range(1, len(alone["rank"].dropna()) + extra[0] + 1))
    # Among each other, the images of the first part are revealed in the same order.
    order = both.head(len(alone)).sort_values("rank")["image"].tolist()
    assert order == alone.sort_values("rank")["image"].tolist()


def test_extra_images_of_a_given_split():
    subsets = ["train"] * 4 + ["val", "test"]
    split = splitting.split(with_extra(table(6, given_subset=subsets), 2, 1), "given", 0)
    assert split["subset"].tolist() == subsets + ["train"] * 3
    assert split["rank"].notna().sum() == 6


def test_fewer_training_images_are_nested_and_leave_the_rest_alone():
    images = table(20, 10)
    everything = splitting.split(images, HOW, 3)
    train = members(everything, "train")
    before = set()
    for n_train in (1, 5, 14, len(train)):
        split = splitting.split(images, HOW, 3, n_train)
        chosen = members(split, "train")
        assert len(chosen) == n_train and before < chosen <= train
        assert members(split, splitting.UNUSED) == train - chosen
        for subset in ("val", "test"):
            assert members(split, subset) == members(everything, subset)
        n_annotated = min(n_train, 12)
        assert splitting.annotated_images(split, n_annotated) == splitting.annotated_images(
            everything, n_annotated
        )
        before = chosen
    assert members(splitting.split(images, HOW, 4, 5), "train") != members(
        splitting.split(images, HOW, 3, 5), "train"
    )
    with pytest.raises(InputError, match="n_train is 23, but only 22 images"):
        splitting.split(images, HOW, 3, 23)


@pytest.mark.parametrize("n_annotated, n_other", [(1, 0), (0, 1), (3, 4)])
def test_all_images_may_be_for_testing(n_annotated, n_other):
    """However few there are; images that a combined dataset adds stay for training."""
    images = table(n_annotated, n_other)
    split = splitting.split(images, {"val": 0, "test": 1, "seed": 0}, 0)
    assert (split["subset"] == "test").all()
    extra = table(2, given_subset=splitting.EXTRA)
    extra["image"] = "x" + extra["image"]
    split = splitting.split(pd.concat([images, extra]), {"val": 0, "test": 1, "seed": 0}, 0)
    assert split["subset"].tolist() == ["test"] * len(images) + ["train"] * 2


FEW = HOW | {"cross_validate_below": 8}


@pytest.mark.parametrize("n_annotated", [2, 5, 7])
@pytest.mark.parametrize("n_other, n_val", [(0, 0), (1, 0), (2, 1), (20, 3)])
def test_few_annotated_images_are_cross_validated(caplog, n_annotated, n_other, n_val):
    images = table(n_annotated, n_other)
    split = splitting.split(images, FEW, 0)
    assert members(split, "cross") == set(images["image"][:n_annotated])
    assert members(split, "test") == set()
    assert len(members(split, "val")) == n_val
    assert sorted(split["rank"].dropna()) == list(range(1, n_annotated + 1))
    assert not caplog.text
    sizes = splitting.subset_sizes(n_annotated + n_other, n_annotated, FEW)
    assert (sizes.val, sizes.test, sizes.cross) == (n_val, 0, True)


@pytest.mark.parametrize("n_annotated", [0, 1, 8, 20])
def test_others_are_divided_as_ever(n_annotated):
    images = table(n_annotated, 12)
    divided = splitting.split(images, FEW, 0)
    pd.testing.assert_frame_equal(divided, splitting.split(images, HOW, 0))
    assert splitting.folds(divided, len(divided["rank"].dropna())) == []


@pytest.mark.parametrize(
    "n_annotated, sizes", [(0, [3, 2, 2]), (2, [1, 1, 5]), (3, [1, 1, 1, 4]), (7, [3, 2, 2])]
)
def test_each_cross_validated_image_is_left_out_once(n_annotated, sizes):
    """Those whose masks are not used have a network with all the masks that are."""
    split = splitting.split(table(7, 5), FEW, 3)
    folds = splitting.folds(split, n_annotated)
    assert list(map(len, folds)) == sizes
    names = [name for fold in folds for name in fold]
    assert sorted(names) == sorted(members(split, "cross"))
    assert set(names[:n_annotated]) == set(splitting.annotated_images(split, n_annotated))


def test_extra_images_with_masks_are_never_left_out():
    images = pd.concat([table(3, 4), table(2).assign(image=["x", "y"], given_subset="extra")])
    split = splitting.split(images.reset_index(drop=True), FEW, 0)
    assert members(split, "cross") == {"a000", "a001", "a002"}
    assert len(split["rank"].dropna()) == 5
    assert {name for fold in splitting.folds(split, 5) for name in fold} == members(split, "cross")


def test_cross_validation_and_the_size_of_the_training_set():
    with pytest.raises(InputError, match="'n_train' of a combined dataset cannot be used"):
        splitting.split(table(5, 5), FEW, 0, n_train=4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("image\t", "name\t"),
        ("\theight", ""),
        ("\t8\t", "\tmany\t"),
        ("\t8\t", "\t9e99\t"),
        ("a000\t", "../../a\t"),
        ("a000\t", "a001\t"),
        ("a000\t", "a000\tb\tc\t"),
    ],
)
def test_tables_changed_by_hand(tmp_path, old, new):
    path = tmp_path / "manifest.tsv"
    manifest.write(table(3), path)
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    message = refusal(manifest.read, path)
    assert str(path) in message and "edited by hand" in message


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\0", b"image\n", b'"', b"\x89PNG\r\n"])
def test_tables_that_are_none(tmp_path, content):
    path = tmp_path / "manifest.tsv"
    path.write_bytes(content)
    assert "edited by hand" in refusal(manifest.read, path)
