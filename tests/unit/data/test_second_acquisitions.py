"""Second acquisitions are prepared like their images, or refused in one sentence."""

import shutil

import numpy as np
import pytest
from refusals import refusal

from denoiseg_flow.data import prepare, sources
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.store import open_image, read_metadata, write_array
from denoiseg_flow.errors import InputError

SHAPES = {"YX": (20, 24), "CYX": (2, 20, 24), "ZYX": (6, 20, 24), "CZYX": (2, 6, 20, 24)}
SIZE = {"Z": 1.0, "Y": 0.5, "X": 0.5}
KINDS = ("images", "second")


def metadata(axes):
    sizes = {axis: SIZE[axis] for axis in axes if axis in SIZE}
    return Metadata(axes, sizes, ("DAPI", "GFP") if "C" in axes else ())


def write_pairs(folder, axes, names="abc"):
    """Two acquisitions of each field, in two folders."""
    rng = np.random.default_rng(0)
    for name in names:
        for kind in KINDS:
            pixels = rng.integers(0, 200, SHAPES[axes]).astype(np.uint16)
            write_array(folder / kind / f"{name}.ome.tif", pixels, metadata(axes))


def spec(folder, axes="YX", **more):
    """The dataset of these folders."""
    how = {"channel": "all"} if "C" in axes else {}
    how |= {"dimensions": 3} if "Z" in axes else {}
    paths = {kind: str(folder / kind) for kind in KINDS}
    return {"source": "folder", "split": {"val": 0.3, "test": 0.3, "seed": 0}} | paths | how | more


def refused(folder, axes="YX", **more):
    message = refusal(prepare.prepare, spec(folder, axes, **more), None, folder / "prepared")
    assert not (folder / "prepared").exists()
    return message.replace(f"{folder}/", "")


@pytest.mark.parametrize("axes", SHAPES)
def test_second_acquisitions_are_copied_and_checksummed(tmp_path, axes):
    write_pairs(tmp_path, axes)
    prepare.prepare(spec(tmp_path, axes), None, tmp_path / "prepared")
    prepared = PreparedData(tmp_path / "prepared")
    assert prepared.is_repeated() and len(prepared.read_manifest()) == 3
    for name in "abc":
        for kind, path in zip(KINDS, (prepared.image(name), prepared.repeats(name)), strict=True):
            original = read_image(tmp_path / kind / f"{name}.ome.tif")
            assert read_image(path).dtype == original.dtype
            assert np.array_equal(read_image(path), original)
            assert read_metadata(path) == metadata(axes)
    with prepared.repeats("b").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(InputError, match=r"repeats/b\.tif"):
        open_image(prepared.repeats("b"))


def test_one_channel_and_single_planes_of_both(tmp_path):
    write_pairs(tmp_path, "CZYX")
    one = spec(tmp_path, dimensions=2, channel="GFP")
    prepare.prepare(one, None, tmp_path / "prepared")
    prepared = PreparedData(tmp_path / "prepared")
    assert prepared.is_repeated() and len(prepared.read_manifest()) == 18
    whole = read_image(tmp_path / "second/b.ome.tif")
    assert np.array_equal(read_image(prepared.repeats("b_z004")), whole[1, 4])


@pytest.mark.parametrize(
    "axes, spoil, sentence",
    [
        (
            "YX",
            lambda pixels: pixels[:, 1:],
            "image images/b.ome.tif is 20 x 24 pixels, but its second acquisition "
            "second/b.ome.tif is 20 x 23 (height x width); export both at the same size",
        ),
        (
            "CZYX",
            lambda pixels: pixels[:, :5],
            "image images/b.ome.tif is 6 x 20 x 24 pixels, but its second acquisition "
            "second/b.ome.tif is 5 x 20 x 24 (depth x height x width); export both at the same "
            "size",
        ),
        (
            "CYX",
            lambda pixels: pixels[[0, 1, 1]],
            "image images/b.ome.tif has 2 channels, but its second acquisition second/b.ome.tif "
            "has 3; export both with the same channels",
        ),
        (
            "CYX",
            lambda pixels: pixels[0],
            "image images/b.ome.tif has 2 channels, but its second acquisition second/b.ome.tif "
            "has 1; export both with the same channels",
        ),
        (
            "YX",
            np.zeros_like,
            "image second/b.ome.tif is constant (every pixel is 0); remove it or export it again",
        ),
    ],
)
def test_pairs_that_do_not_match(tmp_path, axes, spoil, sentence):
    write_pairs(tmp_path, axes)
    path = tmp_path / "second/b.ome.tif"
    spoiled = spoil(read_image(path))
    write_array(path, spoiled, Metadata(axes[-spoiled.ndim :], metadata(axes).pixel_size))
    assert refused(tmp_path, axes) == sentence


def test_a_copy_is_no_second_acquisition(tmp_path):
    write_pairs(tmp_path, "YX")
    shutil.copy(tmp_path / "images/b.ome.tif", tmp_path / "second/b.ome.tif")
    assert refused(tmp_path) == (
        "the acquisition second/b.ome.tif has the same pixels as images/b.ome.tif, and so the same "
        "noise; replace it by another acquisition of the field"
    )


def test_other_numbers_of_time_points(tmp_path):
    write_pairs(tmp_path, "YX")
    for kind, length in (("images", 3), ("second", 2)):
        pixels = np.random.default_rng(length).integers(0, 9, (length, 20, 24)).astype(np.uint8)
        write_array(tmp_path / kind / "b.ome.tif", pixels, Metadata("TYX"))
    assert refused(tmp_path) == (
        "images/b.ome.tif has 3 images, but its second acquisition second/b.ome.tif has 2; export "
        "both with the same time points and z-slices"
    )


def test_combined_datasets_are_paired_if_all_of_them_are(tmp_path):
    for name in ("one", "other"):
        write_pairs(tmp_path / name, "YX")
    datasets = {name: spec(tmp_path / name) for name in ("one", "other")}
    datasets["both"] = {"source": "combine", "of": ["one", "other"]}
    for second in (str(tmp_path / "other/second"), None):
        datasets["other"]["second"] = second
        prepared = [tmp_path / name / "prepared" for name in datasets]
        for name, folder in zip(datasets, prepared, strict=True):
            prepare.prepare(datasets[name], None, folder, prepared[:2])
        assert PreparedData(prepared[2]).is_repeated() == bool(second)
        assert sources.has_repeats(datasets, "both") == bool(second)
        linked = PreparedData(prepared[2]).repeats("b")
        assert np.array_equal(read_image(linked), read_image(tmp_path / "one/second/b.ome.tif"))


def test_photons_need_second_acquisitions_without_negative_values(tmp_path):
    write_pairs(tmp_path, "YX")
    config = {
        "datasets": {"mine": spec(tmp_path)},
        "noises": {"low": {"kind": "poisson", "photons": 2, "seed": 0}},
        "grid": {"datasets": ["mine"], "noises": ["low"]},
    }
    sources.check_intensities(config)
    path = tmp_path / "second/b.ome.tif"
    write_array(path, read_image(path).astype(np.float32) - 50)
    assert f"image {path} holds negative values" in refusal(sources.check_intensities, config)
