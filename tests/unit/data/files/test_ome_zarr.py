"""OME-Zarr images: those of other programs, those that are written, and damaged ones."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numcodecs.pickles
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from ome_zarr.format import FormatV04, FormatV05
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr.writer import write_image, write_plate_metadata, write_well_metadata
from refusals import refusal

from denoiseg_flow.data.files import ome_zarr
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.ome_zarr import add_labels, create_ome_zarr
from denoiseg_flow.data.files.reader import open_image_file, read_image
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.data.store import read_metadata

PIXELS = np.random.default_rng(0).integers(1, 2**16, (2, 3, 40, 50), np.uint16)
AXES = [
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "nanometer"},
    {"name": "x", "type": "space", "unit": "nanometer"},
]
FORMATS = {"0.4": FormatV04(), "0.5": FormatV05()}


def whole(path, axes=None):
    with open_image_file(path, axes) as image:
        pixels = image.read((slice(None),) * len(image.shape))
        assert (pixels.shape, pixels.dtype) == (image.shape, image.dtype)
        return image.metadata, pixels


def write(path, version="0.4", pixels=PIXELS, axes=AXES, scale=(1.0, 2.0, 500.0, 250.0), **options):
    """Write an image with the reference implementation."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    write_image(
        pixels,
        group,
        axes=axes,
        scale_factors=[],
        fmt=FORMATS[version],
        scale=dict(zip("czyx", scale, strict=True)),
        storage_options={"chunks": tuple(min(16, n) for n in pixels.shape), **options},
    )
    return path


def change(path, change_metadata):
    """Apply a function to the OME metadata of an image of either format."""
    file = path / ".zattrs" if (path / ".zattrs").exists() else path / "zarr.json"
    content = json.loads(file.read_text())
    change_metadata(content.get("attributes", {}).get("ome", content))
    file.write_text(json.dumps(content))


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", FORMATS)
def test_image_of_the_reference_implementation(tmp_path, version):
    path = write(tmp_path / "a.ome.zarr", version)
    channels = [{"label": "DAPI", "color": "0000FF"}, {"color": "00FF00"}]
    change(path, lambda metadata: metadata.update(omero={"channels": channels}))
    metadata, found = whole(path)
    sizes = pytest.approx({"Z": 2, "Y": 0.5, "X": 0.25})
    assert metadata == Metadata("CZYX", sizes, ("DAPI", "C2"), ("0000FF", "00FF00"))
    np.testing.assert_array_equal(found, PIXELS)
    assert read_metadata(path).spacing() == pytest.approx((2, 0.5, 0.25))
    assert whole(path, "TZYX")[0].axes == "TZYX"


@pytest.mark.parametrize("version", FORMATS)
def test_scales_multiply_and_units_may_be_missing(tmp_path, version):
    axes = [*AXES[:1], {"name": "z", "type": "space"}, *AXES[2:]]
    path = write(tmp_path / "a.zarr", version, axes=axes)
    scale = [{"type": "scale", "scale": [1, 10, 10, 10]}]
    change(path, lambda m: m["multiscales"][0].update(coordinateTransformations=scale))
    assert whole(path)[0] == Metadata("CZYX", pytest.approx({"Y": 5, "X": 2.5}))


def test_axes_of_length_1_and_plane(tmp_path):
    path = write(tmp_path / "a.zarr", pixels=PIXELS[:1, :1])
    assert whole(path)[0] == Metadata("YX", pytest.approx({"Y": 0.5, "X": 0.25}))
    np.testing.assert_array_equal(read_image(path), PIXELS[0, 0])


def test_first_level_of_several(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    write_image(PIXELS, group, axes="czyx", fmt=FORMATS["0.4"], storage_options={"chunks": 16})
    assert len(list(group.arrays())) > 1
    np.testing.assert_array_equal(whole(tmp_path / "a.zarr")[1], PIXELS)


def test_image_in_a_folder_of_bioformats2raw(tmp_path):
    outer = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    outer.attrs.put({"bioformats2raw.layout": 3})
    write(tmp_path / "a.zarr" / "0")
    zarr.open_group(str(tmp_path / "a.zarr" / "OME"), mode="w", zarr_format=2)
    np.testing.assert_array_equal(whole(tmp_path / "a.zarr")[1], PIXELS)
    write(tmp_path / "a.zarr" / "1")
    message = refusal(open_image_file, tmp_path / "a.zarr")
    assert "holds 2 images; give one of them, such as" in message and "a.zarr/0" in message
    np.testing.assert_array_equal(whole(tmp_path / "a.zarr" / "1")[1], PIXELS)


@pytest.mark.parametrize("version", FORMATS)
def test_field_of_a_plate(tmp_path, version):
    form = FORMATS[version]
    plate = zarr.open_group(str(tmp_path / "p.zarr"), mode="w", zarr_format=form.zarr_format)
    write_plate_metadata(plate, ["A"], ["1", "2"], ["A/2"], fmt=form)
    write_well_metadata(plate.require_group("A/2"), ["0", "1"], fmt=form)
    well = tmp_path / "p.zarr" / "A" / "2"
    for field in ("0", "1"):
        write(well / field, version)
    assert refusal(open_image_file, tmp_path / "p.zarr") == (
        f"{tmp_path}/p.zarr is a plate; give one of its fields, such as {well}/0, or a well, such "
        f"as {well}"
    )
    np.testing.assert_array_equal(whole(well / "0")[1], PIXELS)
    assert list(find_images([well])) == ["p_A_2_0", "p_A_2_1"]
    assert "not a file" in refusal(open_image_file, well)


def test_pieces_are_read_by_chunk(tmp_path):
    path = write(tmp_path / "a.zarr", chunks=(1, 3, 16, 16))
    with open_image_file(path) as image:
        shutil.rmtree(_level(path) / "1")  # chunks that are not needed
        place = (0, slice(1, 3), slice(-10, None), 49)
        np.testing.assert_array_equal(image.read(place), PIXELS[place])
        assert not image.read((1, 0, 0, slice(None))).any()  # as zarr reads what is not there


# --- refusals ------------------------------------------------------------------------------------


def _level(path):
    return next(folder for folder in path.iterdir() if folder.is_dir())


def _chunks(path):
    names = (".zarray", ".zattrs", "zarr.json")
    return [f for f in sorted(_level(path).rglob("*")) if f.is_file() and f.name not in names]


@pytest.mark.parametrize(
    ("version", "options", "n_chunks"),
    [
        ("0.4", {}, 2 * 3 * 4),
        ("0.5", {}, 2 * 3 * 4),
        ("0.5", {"shards": (1, 3, 32, 32)}, 2 * 2 * 2),
    ],
)
def test_missing_chunks(tmp_path, version, options, n_chunks):
    path = write(tmp_path / "a.zarr", version, chunks=(1, 3, 16, 16), **options)
    np.testing.assert_array_equal(whole(path)[1], PIXELS)
    files = _chunks(path)
    assert len(files) == n_chunks
    for file in files[1:3]:
        file.unlink()
    assert refusal(open_image_file, path) == (
        f"{path} misses 2 of its {n_chunks} chunks, because they were lost or because empty "
        "chunks were not written; copy it again, or write it with write_empty_chunks=True"
    )


def test_missing_chunks_of_labels_are_background(tmp_path):
    path = write(tmp_path / "a.zarr", chunks=(1, 3, 16, 16))
    first, *others = _chunks(path)
    for file in others:
        file.unlink()
    with open_image_file(path, indexed=True) as file:
        found = file.read([slice(None)] * 4)
    assert 0 < np.count_nonzero(found) < np.count_nonzero(PIXELS)
    np.testing.assert_array_equal(found[found > 0], PIXELS[found > 0])
    first.unlink()
    assert "misses 24 of its 24 chunks" in refusal(open_image_file, path, indexed=True)


def test_promise_of_more_than_there_is(tmp_path):
    path = write(tmp_path / "a.zarr")
    file = _level(path) / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": [10**6] * 4}))
    assert "chunks" in refusal(open_image_file, path)


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("damage", [b"", b"nonsense", None], ids=["empty", "other", "cut off"])
def test_damaged_chunk(tmp_path, version, damage):
    path = write(tmp_path / "a.zarr", version)
    file = _chunks(path)[0]
    file.write_bytes(file.read_bytes()[:100] if damage is None else damage)
    with open_image_file(path) as image:
        message = refusal(image.read, (0, 0, slice(None), slice(None)))
        assert str(path) in message and "damaged or incomplete" in message


@pytest.mark.parametrize("version", FORMATS)
def test_without_metadata(tmp_path, version):
    path = write(tmp_path / "a.zarr", version)
    for name in ("zarr.json", ".zgroup"):
        (path / name).unlink(missing_ok=True)
    assert "has no zarr metadata" in refusal(open_image_file, path)
    (tmp_path / "empty.zarr").mkdir()
    assert "has no zarr metadata" in refusal(open_image_file, tmp_path / "empty.zarr")


def test_no_multiscale_image(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 5), dtype="u1")
    zarr.create_array(str(tmp_path / "b.zarr"), shape=(4, 5), dtype="u1", zarr_format=2)
    zarr.open_group(str(tmp_path / "c.zarr"), mode="w")
    for name in "abc":
        assert "not an OME-Zarr image" in refusal(open_image_file, tmp_path / f"{name}.zarr")


def test_several_images(tmp_path):
    path = write(tmp_path / "a.zarr")
    change(path, lambda metadata: metadata["multiscales"].append({}))
    assert "holds 2 images" in refusal(open_image_file, path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"datasets": []},
        {"datasets": [{"path": "none"}]},
        {"axes": ["y", "x"]},
        {"axes": 3},
        {"coordinateTransformations": [{"type": "scale", "scale": [1.0]}]},
    ],
)
@pytest.mark.parametrize("version", FORMATS)
def test_damaged_metadata(tmp_path, version, metadata):
    path = write(tmp_path / "a.zarr", version)
    change(path, lambda found: found["multiscales"][0].update(metadata))
    message = refusal(open_image_file, path)
    assert str(path) in message and "damaged or incomplete" in message


@pytest.mark.parametrize("version", FORMATS)
def test_metadata_cut_off(tmp_path, version):
    path = write(tmp_path / "a.zarr", version)
    file = path / ("zarr.json" if version == "0.5" else ".zattrs")
    file.write_text(file.read_text()[:60])
    assert "damaged or incomplete" in refusal(open_image_file, path)


def test_axes_of_unknown_meaning(tmp_path):
    path = write(tmp_path / "a.zarr")
    change(path, lambda m: m["multiscales"][0]["axes"][0].update(name="angle", type="other"))
    assert "axes QZYX" in refusal(open_image_file, path)
    assert whole(path, "CZYX")[0].axes == "CZYX"


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        Metadata("YX"),
        Metadata("YX", {"Y": 0.5, "X": 0.25}),
        Metadata("ZYX", {"Z": 2.0, "Y": 0.5, "X": 0.25}),
        Metadata("CZYX", {"Y": 0.5, "X": 0.25}, ("DAPI", "GFP"), ("0000FF", "00FF00")),
        Metadata("TCZYX", {"Z": 1.5}, ("DAPI", "GFP"), ("0000FF", "00FF00"), 90.0),
    ],
    ids=lambda metadata: metadata.axes,
)
def test_reference_implementation_reads_what_is_written(tmp_path, metadata):
    path = tmp_path / "a.ome.zarr"
    shape = (2, 2, 3, 40, 50)[-len(metadata.axes) :]
    pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pixels[..., :20, :20] = 0  # whole chunks of zeros
    with create_ome_zarr(
        path, shape, np.float32, metadata, tuple(min(n, 16) for n in shape)
    ) as out:
        out[...] = pixels
    (node,) = Reader(parse_url(path))()
    np.testing.assert_array_equal(np.asarray(node.data[0]), pixels)
    axes = [
        {"name": axis.lower(), "type": {"T": "time", "C": "channel"}.get(axis, "space")}
        | ({"unit": "micrometer"} if axis in metadata.pixel_size else {})
        | ({"unit": "second"} if axis == "T" else {})
        for axis in metadata.axes
    ]
    assert node.metadata["axes"] == axes
    steps = {"T": metadata.time_step, **metadata.pixel_size}
    scale = [steps.get(axis, 1) for axis in metadata.axes]
    assert node.metadata["coordinateTransformations"] == [[{"type": "scale", "scale": scale}]]
    if metadata.channels:
        assert node.metadata["channel_names"] == list(metadata.channels)
        assert [colour[1] for colour in node.metadata["colormap"]] == [[0, 0, 1], [0, 1, 0]]
    assert node.metadata["name"] == "a"
    found, read = whole(path)
    assert found == metadata
    np.testing.assert_array_equal(read, pixels)


@given(st.data())
def test_pieces_of_what_is_written(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("zarr") / "a.zarr"
    axes = data.draw(st.sampled_from(["YX", "ZYX", "CYX", "TCYX", "TCZYX"]))
    shape = tuple(data.draw(st.integers(2, 9)) for _ in axes)
    chunks = tuple(data.draw(st.integers(1, 9)) for _ in axes)
    pixels = np.random.default_rng(0).integers(0, 3, shape, np.uint8)
    with create_ome_zarr(path, shape, np.uint8, Metadata(axes), chunks) as array:
        array[...] = pixels
    ends = st.one_of(st.none(), st.integers(-10, 10))
    place = tuple(
        data.draw(st.one_of(st.integers(-n, n - 1), st.builds(slice, ends, ends))) for n in shape
    )
    with open_image_file(path) as image:
        np.testing.assert_array_equal(image.read(place), pixels[place])


def attributes_of(path):
    return json.loads((path / ".zattrs").read_text())


def test_colours_and_range_of_channels(tmp_path):
    """Without colours in the file, channels differ; a single outlier darkens no channel."""
    pixels = np.stack([np.arange(4000), np.arange(4000) + 500]).reshape(2, 40, 100).astype("f4")
    pixels[0, 0, 0] = 10**6
    path = tmp_path / "a.zarr"
    with create_ome_zarr(
        path, pixels.shape, "f4", Metadata("CYX", {}, ("DAPI", "GFP")), (1, 16, 16)
    ) as array:
        array[...] = pixels
    first, second = attributes_of(path)["omero"]["channels"]
    assert first["color"] != second["color"]
    assert first["window"] == {
        "min": 1, "max": 10**6, "start": pytest.approx(5, abs=1), "end": pytest.approx(3996, abs=1)
    }  # fmt: skip
    assert (second["window"]["min"], second["window"]["max"]) == (500, 4499)


def test_a_single_channel_is_white(tmp_path):
    with create_ome_zarr(
        tmp_path / "a.zarr", (1, 4, 5), "u1", Metadata("CYX", {}, ("DAPI",))
    ) as array:
        array[...] = 1
    (channel,) = attributes_of(tmp_path / "a.zarr")["omero"]["channels"]
    assert (channel["label"], channel["color"]) == ("DAPI", "FFFFFF")


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        (("ff00ff", "#00FF00"), ("FF00FF", "00FF00")),
        (("FF00FF", "green"), ("FF00FF", "FF00FF")),
        ((None, 3), ()),
        (("FFFFFF", "FFFFFF"), ()),
    ],
)
def test_colours_as_others_write_them(tmp_path, colours, expected):
    path = write(tmp_path / "a.zarr")
    channels = [{"color": colour} for colour in colours]
    change(path, lambda metadata: metadata.update(omero={"channels": channels}))
    assert whole(path)[0].channel_colours == expected


@pytest.mark.parametrize(
    ("unit", "step", "expected"),
    [("second", 2.5, 2.5), ("minute", 1.5, 90), ("millisecond", 20, 0.02), (None, 1, None)],
)
def test_time_step(tmp_path, unit, step, expected):
    path = tmp_path / "a.zarr"
    with create_ome_zarr(path, (3, 4, 5), "u1", Metadata("TYX", {"Y": 0.325, "X": 0.325})) as array:
        array[...] = 1
    assert "unit" not in attributes_of(path)["multiscales"][0]["axes"][0]

    def described(metadata):
        (image,) = metadata["multiscales"]
        image["axes"][0] |= {"unit": unit} if unit else {}
        image["datasets"][0]["coordinateTransformations"][0]["scale"][0] = step

    change(path, described)
    assert whole(path)[0] == Metadata("TYX", {"Y": 0.325, "X": 0.325}, time_step=expected)


def written(folder, axes="CZYX"):
    """An image with its labels, as predictions are written."""
    shape, image, labels = (2, 3, 40, 50), folder / "i/a.ome.zarr", folder / "l/a.ome.zarr"
    metadata = Metadata(axes, {"Z": 2.0, "Y": 0.5, "X": 0.25}, ("DAPI", "GFP"))
    with create_ome_zarr(image, shape, "f4", metadata) as array:
        array[...] = PIXELS
    spatial = metadata.only("ZYX")
    source = "../../i/a.ome.zarr"
    with create_ome_zarr(labels, shape[1:], "u2", spatial, labels=True, source=source) as array:
        array[...] = PIXELS[0]
    add_labels(image, labels, "objects")
    return image, labels


def test_viewers_show_labels_on_their_image(tmp_path):
    image, labels = written(tmp_path)
    nodes = {str(node.zarr.basename()): node for node in Reader(parse_url(image))()}
    assert list(nodes) == ["a.ome.zarr", "labels", "objects"]
    np.testing.assert_array_equal(np.asarray(nodes["objects"].data[0]), PIXELS[0])
    paths = [str(node.zarr).split()[0] for node in Reader(parse_url(labels))()]
    assert paths[0] == str(image) and paths[-1] == str(labels)
    np.testing.assert_array_equal(whole(image)[1], PIXELS)
    np.testing.assert_array_equal(whole(image / "labels/objects")[1], PIXELS[0])


def test_what_is_written_is_valid(tmp_path):
    models = pytest.importorskip(
        "ome_zarr_models.v04",
        reason="ome-zarr-models, which needs pydantic below 2.13, is not installed",
    )
    image, labels = written(tmp_path)
    found = models.Image.from_zarr(zarr.open_group(image, mode="r"))
    assert found.labels.attributes.labels == ["objects"]
    assert found.attributes.omero.channels[0].window.max == PIXELS[0].max()
    for path in (labels, image / "labels/objects"):
        valid = models.ImageLabel.from_zarr(zarr.open_group(path, mode="r"))
        source = path / valid.attributes.image_label.source.image
        assert source.resolve() == image.resolve()


def test_default_chunks(tmp_path):
    shape = (2, 2, 40, 600, 700)
    with create_ome_zarr(tmp_path / "a.zarr", shape, np.uint8, Metadata("TCZYX")) as array:
        assert array.chunks == (1, 1, 16, 512, 512)
    with create_ome_zarr(tmp_path / "b.zarr", (30, 40), np.uint8, Metadata("YX")) as array:
        assert array.chunks == (30, 40)


@pytest.mark.parametrize("labels", [False, True])
def test_smaller_copies_for_browsing(tmp_path, monkeypatch, labels):
    monkeypatch.setattr(ome_zarr, "BROWSABLE", 40)
    monkeypatch.setattr(ome_zarr, "SMALLEST", 20)
    pixels = np.random.default_rng(0).integers(0, 2**16, (2, 30, 77), np.uint16)
    metadata = Metadata("ZYX", {"Z": 2.0, "Y": 0.5, "X": 0.25})
    path = tmp_path / "a.zarr"
    with create_ome_zarr(path, pixels.shape, np.uint16, metadata, (1, 8, 8), labels) as array:
        array[...] = pixels
    (node,) = Reader(parse_url(path))()
    assert [level.shape for level in node.data] == [(2, 30, 77), (2, 15, 39), (2, 8, 20)]
    scales = [level[0]["scale"] for level in node.metadata["coordinateTransformations"]]
    assert scales == [[2, 0.5, 0.25], [2, 1, 0.5], [2, 2, 1]]
    half = np.asarray(node.data[1])
    if labels:
        np.testing.assert_array_equal(half, pixels[:, ::2, ::2])
    else:
        means = pixels[:, :, :76].reshape(2, 15, 2, 38, 2).mean((2, 4))
        np.testing.assert_array_equal(half[..., :38], np.rint(means))
        np.testing.assert_array_equal(
            half[..., 38], np.rint(pixels[:, :, 76].reshape(2, 15, 2).mean(2))
        )
    np.testing.assert_array_equal(whole(path)[1], pixels)


def test_what_is_not_finished_is_no_image(tmp_path):
    path = tmp_path / "a.zarr"
    with (
        pytest.raises(KeyboardInterrupt),
        create_ome_zarr(path, (20, 30), np.uint8, Metadata("YX")) as array,
    ):
        array[...] = 1
        assert "not an OME-Zarr image" in refusal(open_image_file, path)
        raise KeyboardInterrupt
    assert "not an OME-Zarr image" in refusal(open_image_file, path)
    with pytest.raises(FileExistsError), create_ome_zarr(path, (2, 3), "u1", Metadata("YX")):
        pass


def test_zarr_is_imported_only_when_it_is_needed():
    program = "import sys; import denoiseg_flow.data.files.reader; print('zarr' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "False\n", found.stderr


# --- hostile stores ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["../b.zarr/0", "/etc", "0/../../b.zarr/0"])
def test_pixels_elsewhere(tmp_path, place):
    write(tmp_path / "b.zarr")
    path = write(tmp_path / "a.zarr")
    change(path, lambda m: m["multiscales"][0]["datasets"][0].update(path=place))
    assert "refer to another folder" in refusal(open_image_file, path)


def change_array(path, **changes):
    file = _level(path) / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_huge_chunks(tmp_path):
    """One chunk of a few bytes in the file would be terabytes in memory."""
    path = write(tmp_path / "a.zarr")
    change_array(path, shape=[1, 1, 10**6, 10**6], chunks=[1, 1, 10**6, 10**6])
    assert "has chunks of 1.86e+03 GiB" in refusal(open_image_file, path)


class Trap:
    """Runs a command when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    "kind, first, as_filter",
    [
        *(("|O", None, False), ("|O", "vlen-bytes", True), ("|u1", "vlen-utf8", False)),
        *(("|u1", None, True), ("<U4", "shuffle", False), ("<U4", "vlen-utf8", True)),
        *(("<c8", "vlen-bytes", False), ("<c8", "shuffle", True)),
    ],
)
def test_pickles_in_chunks_run_nothing(tmp_path, monkeypatch, kind, first, as_filter):
    """Even where numcodecs allows for them, as it did once."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    path = write(tmp_path / "a.zarr", pixels=PIXELS[:1, :1, :8, :8].astype("u1"))
    pickled = {"id": "pickle", "protocol": 5}
    filters = ([{"id": first}] if first else []) + ([pickled] if as_filter else [])
    change_array(
        path,
        dtype=kind,
        filters=filters or None,
        compressor=None if as_filter else pickled,
        fill_value=None,
    )
    for chunk in _chunks(path):
        chunk.write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    assert str(path) in refusal(whole, path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("place", [4, 12])
def test_chunks_that_lie_about_their_size(tmp_path, place):
    """Blosc would believe them and end the process."""
    path = tmp_path / "a.zarr"
    with create_ome_zarr(path, PIXELS.shape[-2:], "u2", Metadata("YX")) as array:
        array[...] = PIXELS[0, 0]
    (chunk,) = (path / "0" / "0").iterdir()
    content = bytearray(chunk.read_bytes())
    content[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    chunk.write_bytes(content)
    assert "damaged or incomplete" in refusal(whole, path)
    chunk.write_bytes(content[:7])
    assert "damaged or incomplete" in refusal(whole, path)


def test_folders_that_look_like_addresses(tmp_path):
    path = tmp_path / "memory::b" / "a.zarr"
    with create_ome_zarr(path, PIXELS.shape, "u2", Metadata("CZYX")) as array:
        array[...] = PIXELS
    np.testing.assert_array_equal(whole(path)[1], PIXELS)
