"""Every source ends in the same canonical folder, or in one sentence and no folder."""

import zipfile

import numpy as np
import pytest
import tifffile

from denoiseg_flow.data import archives, datasets, manifest, simulator
from denoiseg_flow.data.images import read_image, read_mask
from denoiseg_flow.data.planes import read_pixel_size
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
    datasets.prepare(spec, raw, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "clean", "images", "manifest.tsv", "masks",
    ]  # fmt: skip
    return manifest.read(folder / "manifest.tsv")


def refusal(spec, raw, folder):
    with pytest.raises(InputError) as caught:
        datasets.prepare(spec, raw, folder)
    assert "\n" not in str(caught.value)
    assert not folder.exists() and not list(folder.parent.glob(".*partial"))
    return str(caught.value)


def test_folder(user, tmp_path):
    table = prepared_table(folder_spec(user), None, tmp_path / "prepared")
    assert table["image"].tolist() == [f"sim_{i:04d}" for i in range(5)]
    assert table["annotated"].tolist() == [1, 1, 1, 0, 0]
    assert table["n_objects"][1] == 0 and table["n_objects"][0] > 0
    assert set(table["dtype"]) == {"uint8"} and not table["clean"].any()
    assert table["source"][0] == "sim_0000.tif" and set(table["given_subset"]) == {""}
    prepared = tmp_path / "prepared"
    assert len(list((prepared / "masks").iterdir())) == 3
    for kind, read in (("images", read_image), ("masks", read_mask)):
        one, other = prepared / kind / "sim_0002.tif", user / kind / "sim_0002.tif"
        np.testing.assert_array_equal(read(one), read(other))
    assert tifffile.imread(prepared / "masks" / "sim_0002.tif").dtype == np.int32


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
    datasets.prepare(folder_spec(user), None, tmp_path / "prepared")
    for kind in ("images", "masks"):
        size = read_pixel_size(tmp_path / "prepared" / kind / "sim_0000.tif")
        assert size == pytest.approx((0.2, 0.2))


def test_simulated(tmp_path):
    spec = {"source": "simulate", "split": SPLIT, "binary_masks": "warn"} | SIMULATION
    simulator.write(tmp_path / "raw", **datasets.simulator_options(spec))
    table = prepared_table(spec, tmp_path / "raw", tmp_path / "prepared")
    assert table["annotated"].tolist() == [1, 1, 1, 0, 0] and table["clean"].all()
    first = next(simulator.simulate(**SIMULATION))
    clean = read_image(tmp_path / "prepared" / "clean" / "sim_0000.tif")
    np.testing.assert_array_equal(clean, first.clean)


def test_preparing_twice_gives_the_same_bytes(user, tmp_path):
    for name in ("one", "two"):
        datasets.prepare(folder_spec(user), None, tmp_path / name)
    for path in (tmp_path / "one").rglob("*.t*"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_preparing_again_forgets_what_is_gone(user, tmp_path):
    datasets.prepare(folder_spec(user), None, tmp_path / "prepared")
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


@pytest.mark.parametrize("top", ["", "top/"])
def test_remote_folder(user, tmp_path, top):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in user.rglob("*.tif"):
            archive.write(path, top + str(path.relative_to(user)))
        archive.writestr("__MACOSX/images/._sim_0000.tif", b"")
    archives.unpack(tmp_path / "a.zip", tmp_path / "raw")
    spec = {"source": "remote", "format": "folder", "images": "images", "clean": "clean"}
    table = prepared_table(spec, tmp_path / "raw", tmp_path / "prepared")
    assert len(table) == 5 and table["clean"].all() and not table["annotated"].any()
    message = refusal(spec | {"masks": "labels"}, tmp_path / "raw", tmp_path / "out" / "prepared")
    assert "labels" in message and "`masks`" in message
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
    np.testing.assert_array_equal(read_mask(tmp_path / "prepared/masks/test_00001.tif"), y[3])


def test_annotated_for_training(user):
    assert datasets.annotated_for_training(folder_spec(user)) == 1
    assert datasets.annotated_for_training(folder_spec(user, masks=None)) == 0
    remote = {"source": "remote", "format": "folder", "split": SPLIT}
    simulated = {"source": "simulate", "split": SPLIT, "n_images": 40}
    assert datasets.annotated_for_training(simulated) == 24
    assert datasets.annotated_for_training(remote | {"images": "images"}) is None
    with pytest.raises(InputError, match="lacks `images`"):
        datasets.annotated_for_training(remote)
    with pytest.raises(InputError, match="split: given"):
        datasets.annotated_for_training(simulated | {"split": "given"})


def test_what_is_known_in_advance_is_what_happens(user, tmp_path):
    table = prepared_table(folder_spec(user), None, tmp_path / "prepared")
    ranks = manifest.split(table, SPLIT, 0)["rank"]
    assert ranks.notna().sum() == datasets.annotated_for_training(folder_spec(user))


def test_check_sources(user):
    config = {
        "datasets": {"mine": folder_spec(user), "unused": {"source": "folder", "images": "none"}},
        "noises": {"n20": {"kind": "gaussian", "sigma": 20, "seed": 0}, "bad": {"kind": "salt"}},
        "methods": {"n2v": {"alpha": 1}, "denoiseg": {"alpha": 0.5}},
        "grid": {
            "datasets": ["mine"], "noises": ["n20"], "methods": ["denoiseg"], "n_labelled": [1],
        },
    }  # fmt: skip

    def with_grid(**more):
        return config | {"grid": config["grid"] | more}

    datasets.check_sources(config)
    with pytest.raises(InputError, match=r"asks for 2 .* dataset mine has only 1 annotated"):
        datasets.check_sources(with_grid(n_labelled=[2, 1]))
    datasets.check_sources(with_grid(n_labelled=[2], methods=["n2v"]))
    with pytest.raises(InputError, match=r"noises\.bad"):
        datasets.check_sources(with_grid(noises=["n20", "bad"]))
    with pytest.raises(InputError, match="folder none"):
        datasets.check_sources(with_grid(datasets=["unused"]))
