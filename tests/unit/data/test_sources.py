"""Every source ends in the same canonical folder, or in one sentence and no folder."""

import os
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from plates import write_plate

from denoiseg_flow.data import download, manifest, prepare, sources, splitting
from denoiseg_flow.data.files.reader import ImageFile, read_image
from denoiseg_flow.data.simulated import simulator
from denoiseg_flow.data.store import read_metadata
from denoiseg_flow.errors import InputError

SPLIT = {"val": 0.15, "test": 0.25, "seed": 0}
SIMULATION = {"n_images": 5, "size": 40, "n_nuclei": [1, 3], "annotated": 3, "seed": 7}


@pytest.fixture
def user(tmp_path):
    """Folders of a user: five images, three masks, one of them without objects."""
    folder = tmp_path / "user"
    simulator.write(folder, **SIMULATION)
    tifffile.imwrite(folder / "masks" / "sim_0001.tif", np.zeros((40, 40), np.uint8))
    return folder


def folder_spec(user, **more):
    return {
        "source": "folder",
        "images": str(user / "images"),
        "masks": str(user / "masks"),
        "split": SPLIT,
    } | more


def prepared_table(spec, raw, folder):
    prepare.prepare(spec, raw, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checksums.sha256", "clean", "images", "manifest.tsv", "masks", "second",
    ]  # fmt: skip
    return manifest.read(folder / "manifest.tsv")


def refusal(spec, raw, folder):
    with pytest.raises(InputError) as caught:
        prepare.prepare(spec, raw, folder)
    assert "\n" not in str(caught.value)
    assert not folder.exists() and not list(folder.parent.glob(".*partial"))
    return str(caught.value)


def test_plate(user, tmp_path):
    """Of images and of masks, with the fields of a well in one subset."""
    names = [f"sim_{number:04d}.tif" for number in range(5)]
    places = dict(zip(["A/1/0", "A/1/1", "A/2/0", "B/1/0", "B/1/1"], names, strict=True))
    plates = {
        kind: str(
            write_plate(
                tmp_path / f"{kind}.zarr",
                {
                    place: read_image(user / kind / name)
                    for place, name in places.items()
                    if (user / kind / name).exists()
                },
            )
        )
        for kind in ("images", "masks")
    }
    spec = folder_spec(user, **plates, split=SPLIT | {"group": "well", "val": 0})
    table = prepared_table(spec, None, tmp_path / "prepared")
    assert table["image"].tolist() == ["A1_f0", "A1_f1", "A2_f0", "B1_f0", "B1_f1"]
    assert table["source"][3] == "images.zarr/B/1/0"
    assert table["annotated"].tolist() == [1, 1, 1, 0, 0]
    found = read_image(tmp_path / "prepared/images/B1_f0.tif")
    np.testing.assert_array_equal(found, read_image(user / "images" / names[3]))
    split = splitting.split(table, spec["split"], 1)
    assert split["group"].tolist() == ["images_A1"] * 2 + ["images_A2"] + ["images_B1"] * 2
    assert (split.groupby("group")["subset"].nunique() == 1).all()
    planned = sources.split_in_advance(spec, 1)
    assert planned["subset"].tolist() == split["subset"].tolist()


def test_folder(user, tmp_path):
    table = prepared_table(folder_spec(user), None, tmp_path / "prepared")
    assert table["image"].tolist() == [f"sim_{i:04d}" for i in range(5)]
    assert table["annotated"].tolist() == [1, 1, 1, 0, 0]
    assert table["n_objects"][1] == 0 and table["n_objects"][0] > 0
    assert set(table["dtype"]) == {"uint8"} and not table["clean"].any()
    assert table["source"][0] == "sim_0000.tif" and set(table["given_subset"]) == {""}
    prepared = tmp_path / "prepared"
    assert len(list((prepared / "masks").iterdir())) == 3
    for kind, read in (("images", read_image), ("masks", read_image)):
        one, other = prepared / kind / "sim_0002.tif", user / kind / "sim_0002.tif"
        np.testing.assert_array_equal(read(one), read(other))
    assert tifffile.imread(prepared / "masks" / "sim_0002.tif").dtype == np.int32


@pytest.mark.parametrize("how", [{"channel": "DAPI"}, {"channel": "all"}, {"axes": "CYX"}])
def test_masks_have_no_channels(user, tmp_path, how):
    """Whatever is said of those of the images, it is not about the masks."""
    for kind in ("images", "masks"):
        for path in (user / kind).iterdir():
            pixels = read_image(path)
            named = {"Channel": {"Name": ["DAPI", "GFP"]}} if "channel" in how else {}
            options = {"photometric": "minisblack", "metadata": {"axes": "CYX"} | named}
            path.unlink()
            tifffile.imwrite(path.with_suffix(".ome.tif"), np.stack([pixels] * 2), **options)
    spec = folder_spec(user, **{"channel": "all"} | how)
    message = refusal(spec, None, tmp_path / "prepared")
    assert "masks/sim_0000.ome.tif has" in message
    assert "masks must have none" in message or "masks have no channels" in message


def test_what_is_left_out_is_remembered(user, tmp_path):
    """For the checks of the dataset, and of those that it is a part of."""
    prepare.prepare(folder_spec(user), None, tmp_path / "one")
    assert prepare.about_files(tmp_path / "one") == []
    (user / "masks" / "sim_0003.jpg").touch()
    prepare.prepare(folder_spec(user), None, tmp_path / "two")
    (found,) = prepare.about_files(tmp_path / "two")
    assert found.severity == "warning" and "sim_0003.jpg" in found.sentence
    parts = [tmp_path / "one", tmp_path / "two"]
    prepare.prepare({"source": "combine", "of": ["one", "two"]}, None, tmp_path / "all", parts)
    assert prepare.about_files(tmp_path / "all") == [found]


def test_images_as_their_own_clean_truth(user, tmp_path):
    spec = folder_spec(user, clean=str(user / "images"))
    assert prepared_table(spec, None, tmp_path / "prepared")["clean"].all()
    clean = read_image(tmp_path / "prepared" / "clean" / "sim_0003.tif")
    assert clean.dtype == np.float32
    np.testing.assert_array_equal(clean, read_image(user / "images" / "sim_0003.tif"))


def test_pixel_size_is_kept(user, tmp_path):
    image = read_image(user / "images" / "sim_0000.tif")
    tifffile.imwrite(
        user / "images" / "sim_0000.tif", image, imagej=True, resolution=(5, 5),
        metadata={"unit": "um"},
    )  # fmt: skip
    prepare.prepare(folder_spec(user), None, tmp_path / "prepared")
    for kind in ("images", "masks"):
        size = read_metadata(tmp_path / "prepared" / kind / "sim_0000.tif").spacing()
        assert size == pytest.approx((0.2, 0.2))


def test_simulated(tmp_path):
    spec = {"source": "simulate", "split": SPLIT, "binary_masks": "warn"} | SIMULATION
    simulator.write(tmp_path / "raw", **sources.simulator_options(spec))
    table = prepared_table(spec, tmp_path / "raw", tmp_path / "prepared")
    assert table["annotated"].tolist() == [1, 1, 1, 0, 0] and table["clean"].all()
    first = next(simulator.simulate(**SIMULATION))
    clean = read_image(tmp_path / "prepared" / "clean" / "sim_0000.tif")
    np.testing.assert_array_equal(clean, first.clean)


def test_preparing_twice_gives_the_same_bytes(user, tmp_path):
    for name in ("one", "two"):
        prepare.prepare(folder_spec(user), None, tmp_path / name)
    for path in (tmp_path / "one").rglob("*.t*"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_preparing_again_forgets_what_is_gone(user, tmp_path):
    prepare.prepare(folder_spec(user), None, tmp_path / "prepared")
    (user / "images" / "sim_0004.tif").unlink()
    assert len(prepared_table(folder_spec(user), None, tmp_path / "prepared")) == 4
    assert not (tmp_path / "prepared" / "images" / "sim_0004.tif").exists()


def test_mistakes_name_the_file_and_leave_nothing(user, tmp_path):
    prepared = tmp_path / "out" / "prepared"
    mask = user / "masks" / "sim_0002.tif"
    tifffile.imwrite(mask, np.zeros((40, 41), np.uint8))
    message = refusal(folder_spec(user), None, prepared)
    assert str(mask) in message and "40 x 41" in message and "mask" in message
    mask.unlink()
    clean = user / "clean" / "sim_0003.tif"
    tifffile.imwrite(clean, np.eye(30))
    message = refusal(folder_spec(user, clean=str(user / "clean")), None, prepared)
    assert str(clean) in message and "clean image" in message
    tifffile.imwrite(user / "images" / "sim_0004.tif", np.zeros((40, 40)))
    assert "sim_0004.tif is constant" in refusal(folder_spec(user), None, prepared)


def test_binary_masks_are_split_if_asked_for(user, tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[2:9, 2:9] = mask[20:30, 20:30] = 255
    tifffile.imwrite(user / "masks" / "sim_0000.tif", mask)
    spec = folder_spec(user, binary_masks="connected_components")
    assert prepared_table(spec, None, tmp_path / "prepared")["n_objects"][0] == 2


def test_scribbles(user, tmp_path):
    painted = np.zeros((40, 40), np.uint8)
    painted[2, 2:30], painted[20, 2:9], painted[30, 2:9] = 1, 2, 3
    (user / "scribbles").mkdir()
    tifffile.imwrite(user / "scribbles" / "sim_0000.tif", painted)
    values = {"background_label": 1, "ignore_label": 0}
    spec = folder_spec(user, masks=str(user / "scribbles"), **values)
    assert prepared_table(spec, None, tmp_path / "prepared")["n_objects"][0] == 2
    mask = tifffile.imread(tmp_path / "prepared/masks/sim_0000.tif")
    assert (mask.dtype, (mask < 0).sum()) == (np.int32, 1600 - 28 - 14)


@pytest.mark.parametrize("top", ["", "top/"])
def test_remote_folder(user, tmp_path, top):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in user.rglob("*.tif"):
            archive.write(path, top + str(path.relative_to(user)))
        archive.writestr("__MACOSX/images/._sim_0000.tif", b"")
    download.unpack(tmp_path / "a.zip", tmp_path / "raw")
    spec = {"source": "remote", "format": "folder", "images": "images", "clean": "clean"}
    table = prepared_table(spec, tmp_path / "raw", tmp_path / "prepared")
    assert len(table) == 5 and table["clean"].all() and not table["annotated"].any()
    message = refusal(spec | {"masks": "labels"}, tmp_path / "raw", tmp_path / "out" / "prepared")
    assert "labels" in message and "'masks'" in message
    assert "no folder .." in refusal(
        spec | {"images": "../user/images"}, tmp_path / "raw", tmp_path / "out" / "prepared"
    )


def test_denoiseg_npz(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 8, 8), np.float32), rng.integers(0, 4, (4, 8, 8)).astype(np.float32)
    x[1], y[1] = 0, 0  # a patch from an empty corner is an annotated image without objects
    for part in ("train", "test"):
        (tmp_path / "raw" / "DSB" / part).mkdir(parents=True)
    np.savez(
        tmp_path / "raw/DSB/train/train_data.npz", X_train=x[:2], Y_train=y[:2],
        X_val=x[2:3], Y_val=y[2:3],
    )  # fmt: skip
    np.savez(tmp_path / "raw/DSB/test/test_data.npz", X_test=x[3:], Y_test=y[3:])
    spec = {"source": "remote", "format": "denoiseg_npz", "split": "given"}
    table = prepared_table(spec, tmp_path / "raw", tmp_path / "prepared")
    assert table["given_subset"].tolist() == ["train", "train", "val", "test"]
    assert table["annotated"].all() and table["clean"].all() and set(table["dtype"]) == {"float32"}
    row = table.set_index("image").loc["train_00002"]
    assert row["n_objects"] == 0 and row["source"] == "train_data.npz:X_train[1]"
    np.testing.assert_array_equal(read_image(tmp_path / "prepared/clean/val_00001.tif"), x[2])
    np.testing.assert_array_equal(read_image(tmp_path / "prepared/masks/test_00001.tif"), y[3])


def available(spec):
    return sources.annotated_for_training({"it": spec}, "it")


def test_annotated_for_training(user):
    assert available(folder_spec(user)) == 1
    assert available(folder_spec(user, masks=None)) == 0
    remote = {"source": "remote", "format": "folder", "split": SPLIT}
    simulated = {"source": "simulate", "split": SPLIT, "n_images": 40}
    assert available(simulated) == 24
    assert available(simulated | {"structure": "filaments"}) == 0
    assert available(remote | {"images": "images"}) is None
    with pytest.raises(InputError, match="lacks 'images'"):
        available(remote)
    with pytest.raises(InputError, match="split: given"):
        available(simulated | {"split": "given"})
    with pytest.raises(InputError, match="annotated"):
        available(simulated | {"structure": "filaments", "annotated": 2})
    assert available(simulated | {"depth": 8, "z_step": 3.0}) == 24
    with pytest.raises(InputError, match="filaments are simulated in 2D only"):
        available(simulated | {"structure": "filaments", "depth": 8})
    with pytest.raises(InputError, match="without 'depth'"):
        available(simulated | {"z_step": 3.0})


def test_what_is_known_in_advance_is_what_happens(user, tmp_path):
    table = prepared_table(folder_spec(user), None, tmp_path / "prepared")
    ranks = splitting.split(table, SPLIT, 0)["rank"]
    assert ranks.notna().sum() == available(folder_spec(user))


# --- datasets made of others -------------------------------------------------------------------


@pytest.fixture
def defined(user):
    """A dataset of each kind, and one made of two of them."""
    simulated = {"source": "simulate", "split": SPLIT, "n_images": 10}
    return {
        "mine": folder_spec(user),
        "cells": simulated,
        "lines": simulated | {"structure": "filaments"},
        "far": {"source": "remote", "format": "denoiseg_npz", "split": "given"},
        "both": {"source": "combine", "of": ["mine", "cells"]},
    }


@pytest.fixture
def prepared_parts(user, tmp_path):
    """Prepared folders of the user's images and of two images of filaments."""
    simulator.write(tmp_path / "raw", n_images=2, size=32, structure="filaments")
    one, other = tmp_path / "one" / "prepared", tmp_path / "other" / "prepared"
    prepare.prepare(folder_spec(user), None, one)
    prepare.prepare({"source": "simulate"}, tmp_path / "raw", other)
    return one, other


def combine(folder, prepared_parts, of=("cells", "x.ray")):
    prepare.prepare({"source": "combine", "of": list(of)}, None, folder, prepared_parts)


@pytest.mark.parametrize("links", [True, False])
def test_combined(tmp_path, monkeypatch, prepared_parts, links):
    if not links:  # as on a file system without hard links
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError(1, "no")))
    both = tmp_path / "both" / "prepared"
    combine(both, prepared_parts)
    table, alone = (manifest.read(path / "manifest.tsv") for path in (both, prepared_parts[0]))
    pd.testing.assert_frame_equal(table.head(5), alone)
    assert tuple(table.columns) == manifest.MANIFEST_COLUMNS
    extra = table.tail(2)
    assert extra["image"].tolist() == ["x.ray_sim_0000", "x.ray_sim_0001"]
    assert set(extra["given_subset"]) == {"extra"} and extra["clean"].all()
    assert extra["height"].tolist() == [32, 32] and extra["source"].iloc[1] == "sim_0001.tif"
    stems = {kind.name: sorted(p.stem for p in kind.iterdir()) for kind in both.glob("*/")}
    assert stems == {
        "images": sorted(table["image"]),
        "masks": sorted(table.loc[table["annotated"] == 1, "image"]),
        "clean": sorted(table.loc[table["clean"] == 1, "image"]),
        "second": [],
    }
    original = prepared_parts[1] / "images" / "sim_0001.tif"
    linked = both / "images" / "x.ray_sim_0001.tif"
    assert linked.read_bytes() == original.read_bytes() and linked.samefile(original) == links


def test_combining_again_and_what_is_made_of_others_outlives_them(tmp_path, prepared_parts):
    both = tmp_path / "both" / "prepared"
    combine(both, prepared_parts)
    shutil.rmtree(prepared_parts[1])
    assert read_image(both / "images" / "x.ray_sim_0001.tif").shape == (32, 32)
    with pytest.raises(FileNotFoundError):
        combine(tmp_path / "more" / "prepared", prepared_parts)
    assert not list((tmp_path / "more").iterdir())


def test_damaged_images_are_not_linked(tmp_path, prepared_parts):
    part = prepared_parts[1]
    with (part / "images" / "sim_0001.tif").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    with pytest.raises(InputError, match=f"is damaged \\(wrong checksum\\): delete {part} and"):
        combine(tmp_path / "both" / "prepared", prepared_parts)
    assert not list((tmp_path / "both").iterdir())


def test_names_that_clash_are_refused(user, tmp_path, prepared_parts):
    (user / "images" / "sim_0003.tif").rename(user / "images" / "x.ray_sim_0001.tif")
    prepare.prepare(folder_spec(user), None, prepared_parts[0])
    with pytest.raises(InputError, match=r"would have the name x\.ray_sim_0001; rename") as caught:
        combine(tmp_path / "both" / "prepared", prepared_parts)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "both").iterdir())


def test_annotated_images_of_a_combined_dataset(defined):
    assert sources.annotated_for_training(defined, "both") == 1 + 10
    defined["both"]["of"] = ["cells", "mine", "lines"]
    assert sources.annotated_for_training(defined, "both") == 5 + 3
    for of in (["cells", "far"], ["far", "cells"]):
        defined["both"]["of"] = of
        assert sources.annotated_for_training(defined, "both") is None
    defined["both"]["of"] = ["mine", "far"]
    defined["mine"]["split"] = "given"
    with pytest.raises(InputError, match="split: given"):
        sources.annotated_for_training(defined, "both")


def test_split_of(defined):
    defined["mine"]["split"] = SPLIT | {"seed": 3}
    assert sources.split_of(defined, "both") == sources.split_of(defined, "mine")
    assert sources.split_of(defined, "both")["seed"] == 3


# --- what the user says about the split ----------------------------------------------------------


def in_subfolders(user, subset_of):
    """Move images and masks into subfolders."""
    for kind in ("images", "masks"):
        for path in list((user / kind).iterdir()):
            target = user / kind / subset_of(path.stem)
            target.mkdir(parents=True, exist_ok=True)
            path.rename(target / path.name)


SUBSETS = dict(zip((f"sim_{k:04d}" for k in range(5)), ["train", "val", "test"] * 2, strict=False))


def test_subfolders_are_the_split(user, tmp_path):
    in_subfolders(user, SUBSETS.get)
    spec = folder_spec(user, split=SPLIT | {"subset": "folder"})
    table = prepared_table(spec, None, tmp_path / "prepared")
    assert set(zip(table["image"], table["given_subset"], table["source"], strict=True)) == {
        (f"{subset}_{name}", subset, f"{subset}/{name}.tif") for name, subset in SUBSETS.items()
    }
    known = sources.images_in_advance(spec)
    columns = ["image", "annotated", "source", "given_subset"]
    pd.testing.assert_frame_equal(known[columns], table[columns], check_dtype=False)
    split = splitting.split(table, spec["split"], 0)
    assert split["subset"].tolist() == table["given_subset"].tolist()
    assert splitting.count_subsets(splitting.divide(table, spec["split"])) == (
        sources.sizes_in_advance(spec)
    )


def check(spec, n_annotated=0, predicted_images="test"):
    config = {"datasets": {"mine": spec}, "noises": {}, "predicted_images": predicted_images}
    sources.check_sources(config | {"grid": {"datasets": ["mine"], "noises": []}},
                          {"mine": n_annotated})  # fmt: skip


def table_of(user, text):
    """A dataset whose table is written, `0` standing for the first image."""
    lines = [f"sim_000{line}" if line[0].isdigit() else line for line in text.split()]
    (user / "splits.csv").write_text("\n".join(lines))
    return folder_spec(user, split=SPLIT | {"file": str(user / "splits.csv")})


def test_subsets_are_counted_before_any_job(user):
    spec = table_of(user, "image,subset,group 0,train,A 1,val,B 2,test,C 3,test,D 4,train,E")
    assert sources.sizes_in_advance(spec) == splitting.SubsetSizes(2, 1, 2, 1, 1, 1)
    assert sources.annotated_for_training({"mine": spec}, "mine") == 1
    assert sources.is_grouped({"mine": spec}, "mine")
    check(spec, 1)


@pytest.mark.parametrize(
    ("text", "n_annotated", "sentence"),
    [
        ("image,subset 0,train 1,val 2,train 3,val 4,train", 0,
         "dataset mine keeps no image for testing, so nothing would be predicted; put images into"),
        ("image,subset 0,train 1,test 2,train 3,val 4,train", 1,
         "dataset mine has too few annotated images to choose the threshold of the segmentation on"
         " validation images; put annotated images into the subset val"),
        ("image,subset 0,train 1,val 2,train 3,test 4,train", 1,
         "no test image of dataset mine has a mask, so no segmentation could be scored; add masks"),
        ("image,subset 0,train 1,val 2,test 3,test 4,train", 2,
         "grid.n_annotated asks for 2 annotated images, but dataset mine has only 1 annotated "),
        ("image,rank 0,1 1,2 2,3 3,4 4,", 0,
         "{user}/splits.csv, line 5: the image has rank 4, which is the order in which training "
         "images are annotated, but has no mask; add it, or leave the rank empty"),
        ("image,subset 0,train 1,test", 0, "{user}/splits.csv does not name image sim_0002.tif"),
    ],
)  # fmt: skip
def test_bad_tables_are_found_before_any_job(user, text, n_annotated, sentence):
    with pytest.raises(InputError) as caught:
        check(table_of(user, text), n_annotated)
    assert str(caught.value).startswith(sentence.format(user=user))


def test_two_stacks_may_be_ranked_but_groups_of_them_are_too_few(user):
    """Each file has several images, in as many groups as there are files."""
    for path in (user / "images").iterdir():
        path.unlink()
    for name in ("sim_0000.tif", "sim_0001.tif"):
        stack = np.random.default_rng(0).integers(0, 9, (5, 40, 40), np.uint8)
        tifffile.imwrite(user / "images" / name, stack, photometric="minisblack")
    stacks = {"masks": None, "axes": "ZYX", "dimensions": 2}
    spec = table_of(user, "image,rank 0, 1,") | stacks
    check(spec)
    assert sources.sizes_in_advance(spec) is None
    with pytest.raises(InputError, match="2 groups"):
        check(table_of(user, "image,group 0,A 1,B") | stacks)


def test_tables_of_images_that_are_not_yet_known(user):
    """Of an archive: what the table itself shows is checked."""
    spec = table_of(user, "image,subset 0,train 1,tst")
    remote = {"source": "remote", "format": "folder", "images": "images", "split": spec["split"]}
    with pytest.raises(InputError, match="line 3: subset 'tst' is unknown"):
        check(remote)
    check(remote | {"split": SPLIT | {"subset": "folder", "group": "folder"}})
    for group in ("(", "x"):
        with pytest.raises(InputError, match=r"config key 'split\.group' is"):
            check(remote | {"split": SPLIT | {"group": group}})


@pytest.mark.parametrize("source", ["simulate", "remote"])
@pytest.mark.parametrize("key", ["subset", "group"])
def test_subfolders_need_folders(source, key):
    spec = {"source": source, "format": "denoiseg_npz", "split": SPLIT | {key: "folder"}}
    with pytest.raises(InputError, match=f"config key 'split.{key}' is 'folder', but"):
        check(spec)


def test_simulated_images_have_names_too(tmp_path):
    spec = {"source": "simulate", **SIMULATION, "split": SPLIT | {"group": r"(\d)$|(?<=_)(x)"}}
    with pytest.raises(InputError, match="has 2 pairs of parentheses"):
        check(spec)
    check(spec | {"split": SPLIT | {"group": r"(\d)\.tif$", "test": 0.4}})


def test_has_clean_truth_and_has_masks(defined, user):
    def both(name, **more):
        given = defined | {name: defined[name] | more}
        return sources.has_clean_truth(given, name), sources.has_masks(given, name)

    assert both("cells") == (True, True)
    assert both("cells", annotated=0) == both("cells", annotated=0.0) == (True, False)
    assert both("lines") == (True, False)
    assert both("far") == (True, True)
    assert both("mine") == (False, True)
    assert both("mine", masks=None, clean="clean") == (True, False)
    remote = {"format": "folder", "images": "images"}
    assert both("far", **remote) == (False, False)
    assert both("far", **remote, masks="masks", clean="clean") == (True, True)
    assert both("both") == (False, True)
    assert both("both", of=["lines", "cells"]) == (True, False)
    assert both("both", of=["cells", "lines"]) == (True, True)


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        ([], "at least two others, or one and 'n_train', not 0"),
        (["mine"], "at least two others, or one and 'n_train', not 1"),
        (["mine", "cels"], "unknown dataset 'cels'; available: mine, cells, lines, far"),
        (["mine", "cells", "mine"], "dataset mine is named more than once"),
        (["mine", "again"], "dataset again is combined itself"),
        (["both", "mine"], "dataset both is combined itself"),
    ],
)
def test_mistakes_in_a_combined_dataset(defined, of, sentence):
    defined["both"]["of"] = of
    if "again" in of:
        defined["again"] = {"source": "combine", "of": ["mine", "cells"]}
    config = {
        "datasets": defined,
        "noises": {},
        "grid": {"datasets": ["both"], "noises": []},
        "predicted_images": "test",
    }
    with pytest.raises(InputError) as caught:
        sources.check_sources(config, {"both": 1})
    message = str(caught.value)
    assert sentence in message
    assert message.endswith("(config key datasets.both.of)") and "\n" not in message
    config["grid"]["datasets"] = ["mine"]
    sources.check_sources(config, {"mine": 1})


def test_fewer_training_images(defined):
    """One dataset alone with `n_train`; more than there are is refused before any job."""
    defined["some"] = {"source": "combine", "of": ["mine"], "n_train": 2}
    config = {"datasets": defined, "noises": {}, "predicted_images": "test"}
    config["grid"] = {"datasets": ["some"], "noises": []}
    assert sources.annotated_for_training(defined, "some") <= 2
    defined["some"]["n_train"] = 1000
    with pytest.raises(InputError) as caught:
        sources.check_sources(config, {"some": 0})
    assert "config key datasets.some.n_train is 1000, but only" in str(caught.value)


@pytest.mark.parametrize("kind", ["poisson", "poisson_gaussian", "poisson_gaussian_bernoulli"])
def test_photons_need_images_without_negative_values(user, kind):
    config = {
        "datasets": {"mine": folder_spec(user)},
        "noises": {
            "n20": {"kind": "gaussian", "sigma": 20, "seed": 0},
            "low": {"kind": kind, "photons": 2, "sigma": 3, "dropped": 0.1, "seed": 0},
        },
        "grid": {"datasets": ["mine"], "noises": ["n20", "low"]},
    }
    plane = np.random.default_rng(0).normal(10, 2, (40, 40)).astype(np.float32)
    tifffile.imwrite(user / "images" / "sim_0001.tif", plane - plane.min())
    tifffile.imwrite(user / "images" / "sim_0002.tif", np.rint(abs(plane)).astype(np.int16))
    sources.check_intensities(config)
    for spoiled in (plane - 20, np.rint(plane - 20).astype(np.int16)):
        tifffile.imwrite(user / "images" / "sim_0003.tif", spoiled)
        words = r"images/sim_0003\.tif holds negative values.* noises\.low"
        with pytest.raises(InputError, match=words):
            sources.check_intensities(config)
    sources.check_intensities(config | {"grid": config["grid"] | {"noises": ["n20"]}})
    config["datasets"] |= {
        "nuclei": {"source": "simulate"},
        "both": {"source": "combine", "of": ["nuclei", "mine"]},
    }
    config["grid"]["datasets"] = ["nuclei"]
    sources.check_intensities(config)
    config["grid"]["datasets"] = ["both"]
    with pytest.raises(InputError, match=words):
        sources.check_intensities(config)


def test_intensities_are_read_only_where_they_may_be_negative(user, monkeypatch):
    for name, ending, plane in (
        ("sim_0001", "tif", np.arange(1600, dtype=np.uint16)),
        ("sim_0002", "tif", np.arange(1600, dtype=np.float32)),
        ("sim_0003", "tif", np.arange(1600, dtype=np.int32)),
        ("sim_0004", "PNG", np.arange(1600, dtype=np.uint16)),
    ):
        (user / "images" / f"{name}.tif").unlink()
        path, plane = user / "images" / f"{name}.{ending}", plane.reshape(40, 40)
        if ending == "PNG":
            Image.fromarray(plane).save(path)
        else:
            tifffile.imwrite(path, plane)
    read = []
    piece = ImageFile.read
    monkeypatch.setattr(
        ImageFile, "read", lambda file, place: read.append(file.path.stem) or piece(file, place)
    )
    noises = {"low": {"kind": "poisson", "photons": 2, "seed": 0}}
    config = {"datasets": {"mine": folder_spec(user)}, "noises": noises}
    sources.check_intensities(config | {"grid": {"datasets": ["mine"], "noises": ["low"]}})
    assert read == ["sim_0002", "sim_0003"]


def test_intensities_of_a_damaged_image(user):
    (user / "images" / "sim_0002.tif").write_bytes(b"II*\0nonsense")
    noises = {"low": {"kind": "poisson", "photons": 2, "seed": 0}}
    config = {"datasets": {"mine": folder_spec(user)}, "noises": noises}
    with pytest.raises(InputError, match=r"cannot read .*sim_0002\.tif"):
        sources.check_intensities(config | {"grid": {"datasets": ["mine"], "noises": ["low"]}})


def test_check_sources(user):
    config = {
        "datasets": {"mine": folder_spec(user), "unused": {"source": "folder", "images": "none"}},
        "noises": {"n20": {"kind": "gaussian", "sigma": 20, "seed": 0}, "bad": {"kind": "salt"}},
        "grid": {"datasets": ["mine"], "noises": ["n20"]},
        "predicted_images": "test",
    }

    def with_grid(**more):
        return config | {"grid": config["grid"] | more}

    for enough in (0, 1):
        sources.check_sources(config, {"mine": enough})
    with pytest.raises(InputError, match=r"asks for 2 .* dataset mine has only 1 annotated"):
        sources.check_sources(config, {"mine": 2})
    with pytest.raises(InputError, match=r"noises\.bad"):
        sources.check_sources(with_grid(noises=["n20", "bad"]), {"mine": 1})
    with pytest.raises(InputError, match="folder none"):
        sources.check_sources(with_grid(datasets=["unused"]), {"unused": 0})


def test_something_must_be_predicted(user):
    spec = folder_spec(user) | {"split": {"val": 0.15, "test": 0, "seed": 0}}
    config = {
        "datasets": {"mine": spec},
        "noises": {},
        "grid": {"datasets": ["mine"], "noises": []},
    }
    sources.check_sources(config | {"predicted_images": "all"}, {"mine": 0})
    with pytest.raises(
        InputError, match=r"dataset mine keeps no image for testing, .*; set 'test'"
    ):
        sources.check_sources(config | {"predicted_images": "test"}, {"mine": 0})
