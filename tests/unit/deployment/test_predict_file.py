"""A trained model on time series, z-stacks, volumes and images of several channels."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from plates import write_plate

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.ome_zarr import create_ome_zarr
from denoiseg_flow.data.files.reader import open_image_file, read_image
from denoiseg_flow.data.files.regions import Reading
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.data.store import read_metadata, write_array
from denoiseg_flow.deployment.object_tables import join_results, refuse_failures
from denoiseg_flow.deployment.predict_images import predict_images
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model import ClassicalModel, ThresholdModel
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.predict_run import predict_file
from denoiseg_flow.models.tiled_prediction import predict_tiles

SIZE = {"Z": 2.0, "Y": 0.5, "X": 0.25}
VOLUMES = Layout(3, patch_depth=4, z_factors=(1,))


@pytest.fixture
def draw(make_blobs):
    """An image of discs (..., 48, 48) of type uint16, each plane another one."""

    def make(*above):
        planes = [make_blobs(48, seed)[0] for seed in range(int(np.prod(above)))]
        return np.reshape(planes, (*above, 48, 48)).clip(0, 255).astype(np.uint16)

    return make


@pytest.fixture
def model_of(tmp_path, make_model):
    """Write a joint model that finds objects; return its file."""

    def make(layout=None, method=None):
        model = make_model(*filter(None, [method]), layout=layout)
        if model.threshold:
            model.threshold = type(model.threshold)(0.2, 0.5, 1)
        if model.layout.channels > 1:
            model.normalisation = Normalisation((100.0, 300.0), (25.0, 50.0))
        save_model(model, tmp_path / "model.pt")
        return model, tmp_path / "model.pt"

    return make


def write(folder, name, image, axes, **known):
    metadata = Metadata(axes, {axis: SIZE[axis] for axis in axes if axis in SIZE}, **known)
    write_array(folder / name, image, metadata)
    return metadata


def predict_all(file, folder, **how):
    out = folder.parent / "out"
    form, tile = how.pop("form", "tif"), how.pop("tile", None)
    images = find_images([folder])
    predict_images(file, images, out, reading=Reading(**how), form=form, tile=tile)
    refuse_failures(join_results(images, out), len(images), out)
    return out


def refusal(*arguments, **how):
    """Why the one image could not be predicted, in one sentence."""
    with pytest.raises(InputError):
        predict_all(*arguments, **how)
    table = pd.read_csv(arguments[1].parent / "out/images.tsv", sep="\t", keep_default_na=False)
    (reason,) = table["failed"]
    assert reason and "\n" not in reason
    return reason


def alone(model, image, folder, axes="YX"):
    """What the workflow makes of one of the images in a file."""
    write_array(folder / "alone" / "a.tif", image, Metadata(axes))
    predict_file(model, folder / "alone" / "a.tif", folder / "alone", False)
    return read_image(folder / "alone/denoised/a.tif"), read_image(folder / "alone/labels/a.tif")


def check_objects(out, name, labels):
    """Each object has its number once, in the table as in the image."""
    table = pd.read_csv(out / "objects" / f"{name}.csv")
    counts = np.bincount(labels.ravel())[1:]
    assert table["label"].tolist() == list(range(1, len(counts) + 1))
    assert table[{"area", "volume"}.intersection(table).pop()].tolist() == counts.tolist()
    return table


def test_every_time_point_is_an_image(model_of, draw, tmp_path):
    model, file = model_of()
    series = draw(3)
    metadata = write(tmp_path / "in", "a.tif", series, "TYX")
    out = predict_all(file, tmp_path / "in")
    denoised, labels = (read_image(out / kind / "a.tif") for kind in ("denoised", "labels"))
    before = 0
    for image, found, numbered in zip(series, denoised, labels, strict=True):
        expected, objects = alone(model, image, tmp_path)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(numbered, np.where(objects, objects + before, 0))
        before += objects.max()
    table = check_objects(out, "a", labels)
    assert table["t"].tolist() == [int(np.argwhere(labels == n)[0, 0]) for n in table["label"]]
    for kind in ("denoised", "labels"):
        assert read_metadata(out / kind / "a.tif") == metadata


def test_planes_of_a_stack_only_if_asked_for(model_of, draw, tmp_path):
    model, file = model_of()
    stack = draw(2, 3)
    metadata = write(tmp_path / "in", "a.tif", stack, "TZYX")
    reason = refusal(file, tmp_path / "in")
    assert "a.tif is a stack of 3 planes, but the model was trained on planes" in reason
    assert "--planes" in reason
    out = predict_all(file, tmp_path / "in", dimensions=2)
    denoised, labels = (read_image(out / kind / "a.tif") for kind in ("denoised", "labels"))
    assert denoised.shape == labels.shape == stack.shape
    for place in np.ndindex(2, 3):
        np.testing.assert_array_equal(denoised[place], alone(model, stack[place], tmp_path)[0])
    table = check_objects(out, "a", labels)
    assert {"t", "z", "y", "x"} < set(table)
    for row in table.itertuples():
        assert (labels[row.t, row.z] == row.label).any()
    assert read_metadata(out / "labels/a.tif") == metadata


def test_volumes(model_of, draw, tmp_path):
    model, file = model_of(VOLUMES)
    volume = draw(5)
    metadata = write(tmp_path / "in", "a.tif", volume, "ZYX")
    out = predict_all(file, tmp_path / "in")
    denoised, labels = (read_image(out / kind / "a.tif") for kind in ("denoised", "labels"))
    (tile,) = predict_tiles(model, volume[None])
    np.testing.assert_array_equal(denoised, tile.denoised[0])
    np.testing.assert_array_equal(labels, alone(model, volume, tmp_path, "ZYX")[1])
    table = check_objects(out, "a", labels)
    assert table["volume_um3"].to_numpy() == pytest.approx(table["volume"].to_numpy() * 0.25)
    assert read_metadata(out / "denoised/a.tif") == read_metadata(out / "labels/a.tif") == metadata
    series = draw(2, 5)
    write(tmp_path / "in", "a.tif", series, "TZYX")
    out = predict_all(file, tmp_path / "in")
    np.testing.assert_array_equal(read_image(out / "denoised/a.tif")[0], denoised)


@pytest.mark.parametrize("form", ["tif", "ome.zarr"])
def test_other_channels_stay_as_they_are_bit_for_bit(model_of, draw, tmp_path, form):
    model, file = model_of()
    both = draw(2)
    both[1, 0, :2] = 65535, 12345  # what a normalisation of both would show
    known = {"channels": ("DAPI", "GFP"), "channel_colours": ("0000FF", "00FF00")}
    metadata = write(tmp_path / "in", "a.tif", both, "CYX", **known)
    reason = refusal(file, tmp_path / "in")
    assert "2 channels, 0 (DAPI), 1 (GFP)" in reason and "--channel" in reason
    for channel in ("DAPI", 0):
        out = predict_all(file, tmp_path / "in", channel=channel, form=form)
        denoised = read_image(out / "denoised" / f"a.{form}")
        assert denoised[1].tobytes() == both[1].astype(np.float32).tobytes()
        expected, labels = alone(model, both[0], tmp_path)
        np.testing.assert_array_equal(denoised[0], expected)
        np.testing.assert_array_equal(read_image(out / "labels" / f"a.{form}"), labels)
        assert read_metadata(out / "denoised" / f"a.{form}") == metadata
        assert read_metadata(out / "labels" / f"a.{form}") == metadata.only("YX")
    # And the other way round, on what was made of the first: both are denoised then.
    last = predict_all(file, tmp_path / "in", channel="GFP", form=form)
    denoised = read_image(last / "denoised" / f"a.{form}")
    assert denoised[0].tobytes() == both[0].astype(np.float32).tobytes()
    assert not np.array_equal(denoised[1], both[1])
    assert "reads one channel" in refusal(file, tmp_path / "in", channel="all")
    for channel in ("RFP", 2):
        assert f"no channel {channel!r}" in refusal(file, tmp_path / "in", channel=channel)


@pytest.mark.parametrize("axes, layout", [("CYX", Layout()), ("CZYX", VOLUMES)])
def test_one_network_for_all_channels(model_of, draw, tmp_path, axes, layout):
    model, file = model_of(replace(layout, channels=2))
    image = draw(*{"CYX": (2,), "CZYX": (2, 5)}[axes])
    metadata = write(tmp_path / "in", "a.tif", image, axes, channels=("DAPI", "GFP"))
    out = predict_all(file, tmp_path / "in")
    (tile,) = predict_tiles(model, image)
    np.testing.assert_array_equal(read_image(out / "denoised/a.tif"), tile.denoised)
    check_objects(out, "a", read_image(out / "labels/a.tif"))
    assert read_metadata(out / "denoised/a.tif") == metadata
    assert "reads 2 channels at once" in refusal(file, tmp_path / "in", channel=0)
    write(tmp_path / "in", "a.tif", image[0], axes[1:])
    assert "reads 2 channels at once" in refusal(file, tmp_path / "in")


def test_planes_are_no_volumes(model_of, draw, tmp_path):
    _, file = model_of(VOLUMES)
    write(tmp_path / "in", "a.tif", draw(), "YX")
    assert "trained on volumes, but" in refusal(file, tmp_path / "in")
    write(tmp_path / "in", "a.tif", draw(5), "ZYX")
    assert "plane by plane" in refusal(file, tmp_path / "in", dimensions=2)
    tifffile.imwrite(tmp_path / "in/a.tif", draw(5), metadata={"axes": "ZYX"})
    assert "how far apart its planes" in refusal(file, tmp_path / "in")
    out = predict_all(file, tmp_path / "in", pixel_size=(2.0, 0.5, 0.25))
    assert read_metadata(out / "labels/a.tif") == Metadata("ZYX", SIZE)


def test_axes_that_the_user_tells(model_of, draw, tmp_path):
    """A plain tif of several planes says nothing of what they are."""
    _, file = model_of()
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/a.tif", draw(3), photometric="minisblack")
    assert "write 'axes'" in refusal(file, tmp_path / "in")
    assert "fewer letters" in refusal(file, tmp_path / "in", axes="YX")
    out = predict_all(file, tmp_path / "in", axes="TYX")
    assert read_metadata(out / "denoised/a.tif").axes == "TYX"


def test_ome_zarr_in_and_out(model_of, draw, tmp_path):
    """With axes, pixel sizes and names of channels, and the same values as in tif."""
    _, file = model_of(VOLUMES)
    image = draw(2, 5)
    metadata = Metadata("CZYX", SIZE, ("DAPI", "GFP"), ("0000FF", "FF0000"))
    (tmp_path / "in").mkdir()
    with create_ome_zarr(tmp_path / "in/a.ome.zarr", image.shape, "u2", metadata) as array:
        array[:] = image
    found = {}
    for form in ("tif", "ome.zarr"):
        out = predict_all(file, tmp_path / "in", channel="GFP", form=form)
        for kind, kept in (("denoised", "CZYX"), ("labels", "ZYX")):
            with open_image_file(out / kind / f"a.{form}") as result:
                assert result.metadata == metadata.only(kept)
                found[kind, form] = result.read([slice(None)] * len(kept))
    for kind in ("denoised", "labels"):
        np.testing.assert_array_equal(found[kind, "tif"], found[kind, "ome.zarr"])
    assert not list(out.glob(".unfinished*"))
    inside = out / "denoised/a.ome.zarr/labels/objects"
    np.testing.assert_array_equal(read_image(inside), found["labels", "tif"])
    for place in (inside, out / "labels/a.ome.zarr"):
        assert image_of(place) == out / "denoised/a.ome.zarr"


def image_of(labels):
    """The image that an OME-Zarr image of labels says it belongs to."""
    label = json.loads((labels / ".zattrs").read_text())["image-label"]
    return Path(os.path.normpath(labels / label["source"]["image"]))


def test_objects_of_a_plate(model_of, draw, tmp_path):
    """The table says where each object is, whether the whole plate is given or a field."""
    _, file = model_of()
    plate = write_plate(tmp_path / "p.zarr", {"A/1/0": draw(), "B/02/1": draw()})
    out = predict_all(file, plate)
    table = pd.read_csv(out / "objects.csv", dtype=str)
    assert list(table)[:5] == ["image", "plate", "well", "field", "label"]
    places = table.groupby("image")[["plate", "well", "field"]].agg(lambda column: set(column))
    assert places.loc["A1_f0"].tolist() == [{"p"}, {"A1"}, {"0"}]
    assert places.loc["B02_f1"].tolist() == [{"p"}, {"B02"}, {"1"}]
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "objects.parquet")[["image", "plate", "well", "field"]],
        table[["image", "plate", "well", "field"]],
    )
    table = pd.read_csv(predict_all(file, plate / "B/02/1") / "objects.csv", dtype=str)
    assert set(table["well"]) == {"B02"}
    series = write_plate(tmp_path / "q.zarr", {"A/1/0": draw()})
    out = predict_all(file, series / "A/1")
    table = pd.read_csv(out / "objects/q_A_1_0.csv")
    assert set(table["plate"]) == {"q"} and set(table["well"]) == {"A1"}


def test_labels_alone_belong_to_the_input(draw, tmp_path):
    """In an OME-Zarr image; another format could not be named."""
    model = ThresholdModel(Method("otsu", "", segmenter="otsu"), {}, Layout(), (20.0,))
    save_model(model, tmp_path / "model.pt")
    (tmp_path / "in").mkdir()
    with create_ome_zarr(tmp_path / "in/a.zarr", (48, 48), "u2", Metadata("YX")) as array:
        array[:] = draw()
    write(tmp_path / "in", "b.tif", draw(), "YX")
    out = predict_all(tmp_path / "model.pt", tmp_path / "in", form="ome.zarr")
    assert image_of(out / "labels/a.ome.zarr") == tmp_path / "in/a.zarr"
    attributes = json.loads((out / "labels/b.ome.zarr/.zattrs").read_text())
    assert attributes["image-label"] == {"version": "0.4"}


def test_results_are_named_and_timed_like_the_image(model_of, draw, tmp_path):
    _, file = model_of()
    write(tmp_path / "in", "day 1.tif", draw(2), "TYX", time_step=90.0)
    for form in ("tif", "ome.zarr"):
        out = predict_all(file, tmp_path / "in", form=form)
        for kind in ("denoised", "labels"):
            path = out / kind / f"day 1.{form}"
            assert read_metadata(path).time_step == 90
            if form == "tif":
                assert '<Image ID="Image:0" Name="day 1">' in tifffile.TiffFile(path).ome_metadata
            else:
                (found,) = json.loads((path / ".zattrs").read_text())["multiscales"]
                assert found["name"] == "day 1"


def test_classical_denoisers_take_what_there_is(draw, tmp_path):
    for planes in (False, True):
        method = Method("gaussian", classical="gaussian", planes=planes)
        save_model(ClassicalModel(method, {}, 1.0, None), tmp_path / "model.pt")
        write(tmp_path / "in", "a.tif", draw(2, 5), "CZYX", channels=("a", "b"))
        out = predict_all(tmp_path / "model.pt", tmp_path / "in", channel=1)
        found = read_image(out / "denoised/a.tif")
        assert np.array_equal(found[0], draw(2, 5)[0])
        moved = np.roll(draw(2, 5)[1], 1, axis=0)
        write(tmp_path / "in", "a.tif", np.stack([moved, moved]), "CZYX", channels=("a", "b"))
        again = read_image(
            predict_all(tmp_path / "model.pt", tmp_path / "in", channel=1) / "denoised/a.tif"
        )
        assert np.allclose(np.roll(found[1], 1, axis=0)[2], again[1, 2], atol=1e-4) == planes


@pytest.mark.parametrize("segmenter", ["otsu", "local_threshold"])
def test_thresholds_find_objects_in_denoised_images(draw, tmp_path, make_blobs, segmenter):
    before = ClassicalModel(Method("gaussian", classical="gaussian"), {}, 1.0, None)
    method = Method("m", segmenter=segmenter, input="gaussian")
    save_model(ThresholdModel(method, {}, Layout(), (20.0,), before), tmp_path / "model.pt")
    write(tmp_path / "in", "a.tif", draw(), "YX")
    out = predict_all(tmp_path / "model.pt", tmp_path / "in", tile=20)
    labels = read_image(out / "labels/a.tif")
    truth = make_blobs(48, 0)[1]
    assert labels.max() == truth.max() == len(pd.read_csv(out / "objects/a.csv"))
    assert ((labels > 0) == (truth > 0)).mean() > 0.95
    assert read_image(out / "denoised/a.tif").std() < draw().std()
    write(tmp_path / "in", "a.tif", draw(3), "ZYX")
    assert "the model was trained on planes" in refusal(tmp_path / "model.pt", tmp_path / "in")


def test_tables_of_different_files_are_one(model_of, draw, tmp_path):
    """The columns of time series stand beside those of plain images."""
    _, file = model_of()
    write(tmp_path / "in", "a.tif", draw(), "YX")
    write(tmp_path / "in", "b.tif", draw(2), "TYX")
    table = pd.read_csv(predict_all(file, tmp_path / "in") / "objects.csv")
    assert table["t"].isna().tolist() == (table["image"] == "a").tolist()
    assert table["area"].notna().all() and set(table["image"]) == {"a", "b"}


@pytest.mark.parametrize("layout, least", [(None, 20), (VOLUMES, 20)])
def test_a_tile_must_hold_what_the_network_sees(model_of, draw, tmp_path, layout, least):
    """Of a network of depth 1 that looks 9 pixels away, in steps of 2."""
    model, file = model_of(layout)
    shape = draw(*([] if layout is None else [5]))
    least = 2 * (-(-max(model.network.halo) // 2) * 2) + 2
    write(tmp_path / "in", "a.tif", shape, Metadata.of_shape(shape.shape).axes)
    with pytest.raises(InputError, match=f"smaller than the receptive field .* at least {least}"):
        predict_all(file, tmp_path / "in", tile=least - 1)
    assert not (tmp_path / "out").exists()
    whole = read_image(predict_all(file, tmp_path / "in") / "denoised/a.tif")
    (tmp_path / "out/denoised/a.tif").unlink()
    found = read_image(predict_all(file, tmp_path / "in", tile=least) / "denoised/a.tif")
    assert np.abs(found - whole).max() < 1e-4 * np.ptp(whole)


def test_pixels_of_another_size_are_a_warning(model_of, draw, tmp_path, caplog):
    model, file = model_of()
    model.origin = {"pixel_size": {"Y": 0.5, "X": 0.5}}
    save_model(model, file)
    write(tmp_path / "in", "a.tif", draw(), "YX")
    predict_all(file, tmp_path / "in")
    assert "0.25 micrometres along X" in caplog.text
    caplog.clear()
    predict_all(file, tmp_path / "in", pixel_size=(0.55, 0.45))
    assert "micrometres" not in caplog.text


def test_changed_chunks_of_ome_zarr_are_predicted_again(model_of, draw, tmp_path, caplog):
    caplog.set_level("INFO")
    _, file = model_of()
    path = tmp_path / "in/a.zarr"
    path.parent.mkdir()
    with create_ome_zarr(path, (48, 48), "u2", Metadata("YX")) as array:
        array[:] = draw()
    predict_all(file, tmp_path / "in")
    before = read_image(tmp_path / "out/denoised/a.tif")
    predict_all(file, tmp_path / "in")
    assert "1 of 1 images are done already" in caplog.text
    array[:] = draw() + 7
    predict_all(file, tmp_path / "in")
    assert not np.array_equal(read_image(tmp_path / "out/denoised/a.tif"), before)
