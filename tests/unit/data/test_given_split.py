"""What users say about a split is followed, and mistakes in it end in one sentence."""

import logging

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from refusals import refusal

from denoiseg_flow.data import manifest, splitting
from denoiseg_flow.data.given_split import SplitFile, group_of, said_columns
from denoiseg_flow.errors import InputError

HOW = {"val": 0.15, "test": 0.25, "seed": 0, "cross_validate_below": 0}


def images(*sources, annotated=None, given_subset=""):
    """A manifest of these files; by default, all are annotated."""
    names = [source.rsplit(".", 1)[0].replace("/", "_") for source in sources]
    table = pd.DataFrame({"image": names, "source": sources, "given_subset": given_subset})
    table["annotated"] = 1 if annotated is None else annotated
    return table.reindex(columns=list(manifest.MANIFEST_COLUMNS), fill_value=1)


def of_groups(sizes, annotated=None):
    """A manifest of groups A, B, ... of so many images each, named by their files."""
    names = [f"{chr(65 + g)}_{k:02}.tif" for g, size in enumerate(sizes) for k in range(size)]
    return images(*names, annotated=annotated)


BY_NAME = HOW | {"group": "^([A-Z])_"}


@pytest.fixture
def write(tmp_path):
    """Write a table of a split, and return a split that names it."""

    def _write(text, **more):
        path = tmp_path / "splits.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return HOW | {"file": str(path)} | more

    return _write


def subsets(split):
    return dict(zip(split["image"], split["subset"], strict=True))


def ranks(split):
    return dict(zip(split["image"], split["rank"], strict=True))


# --- a table -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "image,subset\na.tif,train\nb,test\nc.ome.tif,val\n",
        "subset\timage\r\ntest\tb.png\r\n\r\nval\tc\r\ntrain\t./a\r\n",
        b'\xef\xbb\xbfimage,operator,subset\n"a",x,"train"\n b , "it\'s", test\nc,,val',
    ],
)
def test_a_table_says_the_subset_of_each_image(write, text):
    split = splitting.split(images("a.tif", "b.png", "c.ome.tif"), write(text), 0)
    assert subsets(split) == {"a": "train", "b": "test", "c.ome": "val"}
    assert tuple(split.columns) == manifest.SPLIT_COLUMNS


def test_accents_and_paths_of_windows_are_the_same(write):
    table = images("día/e\u0301.tif", "día/b.tif")
    split = splitting.split(
        table, write("image,subset\ndi\u0301a\\\u00e9.tif,test\ndía/b,train"), 0
    )
    assert split["subset"].tolist() == ["test", "train"]


def test_a_file_stands_for_all_its_images(write):
    table = images("a.tif", "a.tif", "b.tif").assign(image=["a_t000", "a_t001", "b"])
    split = splitting.split(table, write("image,subset\na,train\nb,test\n", val=0), 0)
    assert split["subset"].tolist() == ["train", "train", "test"]


def test_images_of_an_archive_are_named_by_themselves(write):
    table = images("x.npz:X[0]", "x.npz:X[1]").assign(image=["train_1", "test_1"])
    split = splitting.split(table, write("image,subset\ntrain_1,train\ntest_1,test\n", val=0), 0)
    assert split["subset"].tolist() == ["train", "test"]


@pytest.mark.parametrize("seed", [0, 1])
def test_ranks_are_given_or_drawn(write, seed):
    table = images(*(f"{name}.tif" for name in "abcdef"))
    text = "image,subset,rank\na,train,20\nb,train,\nc,train,3.0\nd,train,\ne,test,\nf,val,\n"
    split = splitting.split(table, write(text), seed)
    assert [ranks(split)[name] for name in "ca"] == [1, 2]
    assert {ranks(split)[name] for name in "bd"} == {3, 4}
    assert split["rank"].isna().sum() == 2
    drawn = [
        splitting.split(table, write("image,rank\n" + "\n".join(f"{n}," for n in "abcdef")), seed)
        for seed in range(2)
    ]
    assert drawn[0]["subset"].tolist() == drawn[1]["subset"].tolist()
    pd.testing.assert_frame_equal(drawn[0], splitting.split(table, HOW, 0))


def test_ranks_alone_order_a_random_split(write):
    names = [f"i{k}" for k in range(12)]
    text = "image,rank\n" + "".join(f"{name},{12 - k}\n" for k, name in enumerate(names))
    split = splitting.split(images(*(f"{name}.tif" for name in names)), write(text), 5)
    ranked = split.dropna(subset="rank").sort_values("rank")["image"].tolist()
    assert ranked == sorted(ranked, reverse=True) and len(ranked) == 7
    fewer = splitting.split(images(*(f"{name}.tif" for name in names)), write(text), 5, n_train=3)
    assert fewer.dropna(subset="rank").sort_values("rank")["image"].tolist() == ranked[:3]
    assert (fewer["subset"] == splitting.UNUSED).sum() == 4


@pytest.mark.parametrize(("annotated", "n_val"), [(1, 2), (0, 2)])
def test_validation_images_are_drawn_if_none_is_given(write, annotated, n_val):
    """Of the training images; with masks, if these have any."""
    names = [f"i{k:02}" for k in range(20)]
    text = "image,subset\n" + "".join(
        f"{name},{'test' if k < 7 else 'train'}\n" for k, name in enumerate(names)
    )
    table = images(*(f"{name}.tif" for name in names), annotated=annotated)
    first, second = (splitting.split(table, write(text), seed) for seed in (1, 2))
    assert (first["subset"] == "val").sum() == n_val
    assert first["subset"].tolist() == second["subset"].tolist()
    assert first["subset"].tolist()[:7] == ["test"] * 7
    none = splitting.split(table, write(text, val=0), 0)
    assert set(none["subset"]) == {"train", "test"}


def test_images_of_other_datasets_are_for_training_only(write):
    table = pd.concat([images("a.tif", "b.tif"), images("x.tif", given_subset="extra")])
    split = splitting.split(table, write("image,subset,group\na,test,P\nb,train,Q\n"), 0)
    assert subsets(split) == {"a": "test", "b": "train", "x": "train"}
    assert split["group"].tolist() == ["P", "Q", "x.tif"]


HEADS = "image,subset,group,rank\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the first line of {} must name the column image, and one or more of subset, "),
        ("image\na\n", "the first line of {} must name the column image, and one or more of"),
        ("image;subset\na;train\n", "the first line of {} must name the column image, and"),
        ("name,subset\na,train\n", "the first line of {} must name the column image, and"),
        ("image,Subset\na,train\n", "{} has a column 'Subset'; did you mean 'subset'? Rename it"),
        ("image,subset,groups\na,train,A\n", "{} has a column 'groups'; did you mean 'group'?"),
        ("image,subset,subset\na,train,val\n", "{} has two columns of one name in its first line"),
        ("image,subset\n", "{} names no image; write a line for each"),
        ("image,subset\na,train,x\n", "{}, line 2 has 3 cells, but the first line has 2"),
        ("image,subset\n,train\n", "{}, line 2: column image is empty; write the name"),
        ("image,subset\na,train\nb,Test\n", "{}, line 3: subset 'Test' is unknown; write train,"),
        ("image,subset\na,\n", "{}, line 2: subset '' is unknown; write train, val or test"),
        (HEADS + "a,train,,\n", "{}, line 2: the group is empty; name the group of each image"),
        (HEADS + "a,train,=1+1,\n", "{}, line 2: group '=1+1' has unprintable characters, or is"),
        (HEADS + "a,train,A,first\n", "{}, line 2: rank 'first' is not a whole number from 1;"),
        (HEADS + "a,train,A,0\n", "{}, line 2: rank '0' is not a whole number from 1;"),
        (HEADS + "a,train,A,1.5\n", "{}, line 2: rank '1.5' is not a whole number from 1;"),
        (HEADS + "a,train,A,nan\n", "{}, line 2: rank 'nan' is not a whole number from 1;"),
        (HEADS + "a,train,A,1\nb,train,A,1\n", "{}, line 3: rank 1 is given twice; number the"),
        ("image,subset\na,train\nz.tif,val\n", "{}, line 3: the dataset has no image 'z.tif';"),
        ("image,subset\na,train\na.tif,val\n", "{}, line 3: image 'a.tif' is named in line 2 alr"),
        ("image,subset\na,train\nb,val\n", "{} does not name image c.tif (and 1 more); write a "),
        (HEADS + "a,train,A,1\nb,test,B,2\nc,val,C,\nd,train,D,\n", "{}, line 3: the image has ra"),
        (HEADS + "a,train,A,\nb,test,B,\nc,val,C,\nd,train,D,4\n", "{}, line 5: the image has ran"),
        (HEADS + "a,train,A,\nb,test,A,\nc,val,C,\nd,train,D,\n", "group 'A' is in two subsets: a"),
        (b"image,subset\na,tr\xff\n", "{} (config key 'split.file') cannot be read as a table ("),
        ('image,subset\n"a,train\n', "{} (config key 'split.file') cannot be read as a table ("),
        ("image,subset\na,tr\0ain\n", "{}, line 2: subset 'tr\\x00ain' is unknown; write train, "),
    ],
)
def test_mistakes_in_a_table(write, text, sentence):
    how = write(text)
    table = images("a.tif", "b.tif", "c.tif", "d.tif", annotated=[1, 1, 1, 0])
    message = refusal(splitting.split, table, how, 0)
    assert message.startswith(sentence.format(how["file"]))


@given(st.one_of(st.binary(max_size=60), st.text("image,subet\t\n\"'=1é\0rank", max_size=60)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_the_file_it_is_read_or_refused(tmp_path, content):
    path = tmp_path / "splits.csv"
    path.write_bytes(content if isinstance(content, bytes) else b"image,rank\n" + content.encode())
    try:
        SplitFile.read(path).of_images(images("1.tif"))
    except InputError as error:
        assert "\n" not in str(error)


def test_a_table_that_is_not_there(tmp_path):
    missing = refusal(SplitFile.read, tmp_path / "splits.csv")
    assert missing.endswith("splits.csv (config key 'split.file') does not exist; correct its path")
    assert "cannot be read as a table" in refusal(SplitFile.read, tmp_path)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [("image,subset\na,train\n", "subset", "folder"), ("image,group\na,A\n", "group", "(a)")],
)
def test_nothing_is_said_twice(write, text, key, value):
    message = refusal(said_columns, write(text) | {key: value})
    assert message.startswith(f"config key 'split.{key}' is set, but ")
    assert f"splits.csv has a column {key}, too; remove one of them" in message


# --- subfolders ----------------------------------------------------------------------------------


def test_subfolders_say_subset_and_group():
    table = images(
        "train/p1/a.tif", "train/p2/a.tif", "val/p3/a.tif", "test/p4/a.tif",
        given_subset=["train", "train", "val", "test"],
    )  # fmt: skip
    split = splitting.split(table, HOW | {"subset": "folder", "group": "folder"}, 0)
    assert split["subset"].tolist() == ["train", "train", "val", "test"]
    assert split["group"].tolist() == ["p1", "p2", "p3", "p4"]


# --- groups --------------------------------------------------------------------------------------


@example([1, 1, 1], [False, True, True] + [False] * 297, 0)
@given(
    st.lists(st.integers(1, 30), min_size=3, max_size=10),
    st.lists(st.booleans(), min_size=300, max_size=300),
    st.integers(0, 5),
)
def test_groups_are_never_divided(sizes, masks, seed):
    """Whatever of them is annotated, images without a mask included."""
    table = of_groups(sizes, annotated=[int(mask) for mask in masks[: sum(sizes)]])
    try:
        split = splitting.split(table, BY_NAME | {"seed": seed}, 0)
    except InputError as error:
        # Groups of one image each are no reason.
        assert "because groups are never divided" in str(error) or set(sizes) == {1}
        annotated = table.loc[table["annotated"] == 1, "image"].str[0]
        assert annotated.nunique() < 3
        return
    assert (split.groupby("group")["subset"].nunique() == 1).all()
    assert set(split["subset"]) == {"train", "val", "test"}
    if table["annotated"].sum() > 2:
        scored = split[split["annotated"] == 1]
        assert set(scored["subset"]) == {"train", "val", "test"}


PLATES = [f"{plate}.zarr/{well}/{n}" for plate in "pq" for well in ("A/1", "B/2") for n in (0, 1)]


@pytest.mark.parametrize(
    ("how", "groups"),
    [("well", ["p_A1", "p_B2", "q_A1", "q_B2"]), ("plate", ["p", "q"]), (r"/([AB])/", ["A", "B"])],
)
def test_groups_of_plates(how, groups):
    assert sorted({group_of(source, how) for source in PLATES}) == groups


def test_plates_in_subfolders():
    assert group_of("day 1/p.zarr/A/1/0", "folder") == "day 1"
    assert group_of("train/p.zarr/A/1/0", "well") == "train_p_A1"
    assert group_of("train/p.zarr/A/1/0", "plate") == "train_p"


@pytest.mark.parametrize("how", ["well", "plate"])
def test_images_in_no_plate(how):
    assert refusal(group_of, "a/b.zarr", how) == (
        f"config key 'split.group' is '{how}', but image a/b.zarr is in no plate; give plates of "
        "OME-Zarr, or write a pattern that finds the group in file names"
    )
    table = of_groups([3, 3, 3, 3])
    assert "is in no plate" in refusal(splitting.split, table, HOW | {"group": how}, 0)


def test_groups_of_one_image_each_are_divided_like_images():
    table = images(*(f"{k:02}.tif" for k in range(20)))
    grouped = splitting.split(table, HOW | {"group": r"^(\d+\.tif)"}, 3)
    pd.testing.assert_frame_equal(grouped.drop(columns="group"), splitting.split(table, HOW, 3))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({}, "that are to be divided into test and val and train are of 2 groups (A, B), but at "),
        ({"val": 0, "test": 0.7}, None),
        ({"cross_validate_below": 99}, None),
    ],
)
def test_too_few_groups(how, sentence):
    table = of_groups([5, 5])
    if sentence is None:
        assert splitting.split(table, BY_NAME | how, 0)["subset"].nunique() > 0
    else:
        assert sentence in refusal(splitting.split, table, BY_NAME | how, 0)
    one = of_groups([9])
    assert "are of 1 group (A)" in refusal(splitting.split, one, BY_NAME | how, 0)


def test_too_few_groups_to_draw_validation_images_from(write):
    text = "image,subset,group\na,train,A\nb,train,A\nc,test,C\n"
    message = refusal(splitting.split, images("a.tif", "b.tif", "c.tif"), write(text), 0)
    assert "divided into val and train are of 1 group (A), but at least 2 are needed" in message


@pytest.mark.parametrize("n_annotated", [0, 2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_folds_are_of_whole_groups(n_annotated, seed):
    """A network that predicts a group saw no image of it; it saw some mask, if any is used."""
    table = of_groups([3, 5, 2, 4], annotated=[1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0])
    how = BY_NAME | {"cross_validate_below": 7}
    split = splitting.split(table, how, seed)
    assert set(split.loc[split["annotated"] == 1, "subset"]) == {"cross"}
    group = dict(zip(split["image"], split["group"], strict=True))
    first = splitting.annotated_images(split, 3)
    assert {group[name] for name in first} == {"A", "B", "C"}
    folds = splitting.folds(split, n_annotated)
    cross = split.loc[split["subset"] == "cross", "image"]
    predicted = [name for fold in folds for name in fold]
    assert set(cross) <= set(predicted) and len(predicted) == len(set(predicted))
    trained = set(split.loc[split["subset"].isin(manifest.TRAINED), "image"])
    revealed = set(splitting.annotated_images(split, n_annotated))
    for fold in folds:
        left = trained - set(fold)
        assert not {group[name] for name in left} & {group[name] for name in fold}
        assert not revealed or revealed & left
        assert set(fold) & set(cross)
    # The images without a mask that validate are of groups without any.
    assert {group[name] for name in split.loc[split["subset"] == "val", "image"]} <= {"D"}


def test_folds_need_masks_of_two_groups(write):
    text = "image,group,rank\n" + "".join(f"{n},{n[0]},{k}\n" for k, n in enumerate(
        ["A_00", "A_01", "B_00", "B_01"], start=1))  # fmt: skip
    split = splitting.split(of_groups([2, 2]), write(text, cross_validate_below=9), 0)
    assert "2 annotated images are all of group 'A'" in refusal(splitting.folds, split, 2)
    assert len(splitting.folds(split, 3)) == 2


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("(A", "config key 'split.group' is '(A', which is no regular expression (missing )"),
        ("A", "config key 'split.group' is 'A', which has 0 pairs of parentheses; put one pair"),
        ("(A)(B)", "config key 'split.group' is '(A)(B)', which has 2 pairs of parentheses;"),
        (
            "^(A)",
            "config key 'split.group' is '^(A)', which finds no group in the name of B_00.tif",
        ),
        (
            "^(X?)",
            "config key 'split.group' is '^(X?)', which finds no group in the name of A_00.t",
        ),
    ],
)
def test_mistakes_in_a_pattern(pattern, sentence):
    how = HOW | {"group": pattern}
    assert refusal(splitting.split, of_groups([3, 3, 3]), how, 0).startswith(sentence)


def test_groups_survive_writing(tmp_path):
    split = splitting.split(of_groups([3, 3, 3]), BY_NAME, 0)
    manifest.write(split, tmp_path / "split.tsv")
    back = manifest.read(tmp_path / "split.tsv")
    pd.testing.assert_frame_equal(back, split, check_dtype=False)
    assert manifest.units(back).tolist() == split["group"].tolist()
    assert manifest.units(back.drop(columns="group")).tolist() == split["source"].tolist()


def test_groups_without_masks_for_scores(caplog):
    """Two masks stay in training, with all images of their groups."""
    table = of_groups([4, 4, 4, 4], annotated=[1, *[0] * 3, 1, *[0] * 11])
    with caplog.at_level(logging.WARNING):
        split = splitting.split(table, BY_NAME, 0)
    assert "only 2 of 16" in caplog.text
    kept = split.loc[split["subset"] == "train", "group"]
    assert {"A", "B"} <= set(kept) and set(split["subset"]) == {"train", "val", "test"}
