"""Files of microscopes, with a reader that records what it reads, and with those of bioio."""

import sys
from datetime import timedelta
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tifffile
from refusals import refusal

from denoiseg_flow.data import folders
from denoiseg_flow.data.files import microscopes
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import open_image_file, read_image
from denoiseg_flow.data.given_split import group_of
from denoiseg_flow.deployment.ledger import state

PIXELS = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)


class Lazy:
    """An array that records which places are read."""

    def __init__(self, pixels, read):
        self.pixels, self.read = pixels, read
        self.shape, self.dtype = pixels.shape, pixels.dtype

    def __getitem__(self, place):
        self.read.append(tuple((part.start, part.stop) for part in place))
        return self.pixels[place]


@pytest.fixture
def package(monkeypatch):
    """A package with the interface of a reader of bioio, and what it knows of its files."""
    known = SimpleNamespace(
        scenes={"Image:0": PIXELS},
        dims="TCZYX",
        channel_names=["DAPI", "GFP", "RFP"],
        sizes=(2.0, 0.325, 0.32499999999999996),
        time_interval=timedelta(minutes=1.5),
        read=[],
    )

    class Reader:
        def __init__(self, path):
            if path.read_bytes() == b"damaged":
                raise RuntimeError("no such segment\nin the file")
            self.scenes = tuple(known.scenes)
            self.channel_names, self.time_interval = known.channel_names, known.time_interval
            self.physical_pixel_sizes = known.sizes

        def set_scene(self, number):
            lazy = Lazy(list(known.scenes.values())[number], known.read)
            self.xarray_dask_data = SimpleNamespace(
                dims=tuple(known.dims), shape=lazy.shape, dtype=lazy.dtype, data=lazy
            )
            if "M" in known.dims:
                joined = np.concatenate(list(lazy.pixels), axis=-1)
                self.mosaic_xarray_dask_data = SimpleNamespace(
                    dims=tuple(known.dims[1:]), shape=joined.shape, dtype=lazy.dtype, data=joined
                )

    module = ModuleType("bioio_nd2")
    module.Reader = Reader
    monkeypatch.setitem(sys.modules, "bioio_nd2", module)
    return known


@pytest.fixture
def file(tmp_path, package):
    path = tmp_path / "i" / "a.ND2"
    path.parent.mkdir()
    path.write_bytes(b"nd2")
    return path


def test_only_what_is_needed_is_read(file, package):
    with open_image_file(file) as image:
        assert image.shape == PIXELS.shape and image.dtype == np.uint16
        assert image.metadata == Metadata(
            "TCZYX",
            {"Z": 2, "Y": 0.325, "X": 0.325},
            ("DAPI", "GFP", "RFP"),
            time_step=90,
        )
        assert package.read == []
        np.testing.assert_array_equal(
            image.read((1, 2, 3, slice(1, 3), 5)), PIXELS[1, 2, 3, 1:3, 5]
        )
        assert package.read == [((1, 2), (2, 3), (3, 4), (1, 3), (5, 6))]
    assert list(folders.find_images([file.parent])) == ["a"]


def test_what_a_file_does_not_know(file, package):
    package.dims, package.scenes = "CYX", {"": PIXELS[0, :1, 0]}
    package.channel_names, package.sizes, package.time_interval = None, (None, None, 0.0), None
    with open_image_file(file) as image:
        assert image.metadata == Metadata("YX")
    np.testing.assert_array_equal(read_image(file), PIXELS[0, 0, 0])


def test_tiles_are_joined(file, package):
    package.dims, package.scenes = "MYX", {"": PIXELS[0, 0]}
    assert read_image(file).shape == (5, 24)


def test_axes_of_unknown_meaning_and_colours(file, package):
    package.dims, package.scenes = "HYX", {"": PIXELS[0, 0]}
    assert "does not say what they are (axes QYX)" in refusal(open_image_file, file)
    package.dims, package.scenes = "YXS", {"": np.moveaxis(PIXELS[0, :, 0], 0, -1)}
    assert "is a colour image" in refusal(open_image_file, file)


def test_scenes_are_images(file, package):
    package.scenes = {"Pos/1": PIXELS, "Pos:1": PIXELS[..., :3], "..": PIXELS + 1}
    names = ["a_Pos-1", "a_Pos-1-1", "a_scene2"]
    found = folders.find(file.parent)
    assert [each.name for each in found] == names
    assert [each.file for each in found] == ["a.ND2/Pos-1", "a.ND2/Pos-1-1", "a.ND2/scene2"]
    for each, pixels in zip(found, package.scenes.values(), strict=True):
        np.testing.assert_array_equal(read_image(each.image), pixels)
        assert state(each.image) == state(file) != (0, 0)
    for given in ([file.parent], [file], [each.image for each in found]):
        assert list(folders.find_images(given)) == names
    assert [each.name for each in folders.find(file)] == names
    assert folders.about_files([file.parent]) == folders.about_files([file]) == []
    message = refusal(open_image_file, file)
    assert message == f"{file} holds 3 scenes; give one of them, such as {file}/Pos-1"
    message = refusal(open_image_file, file / "Pos-7")
    assert message == f"{file} has no scene Pos-7; available: Pos-1, Pos-1-1, scene2"
    assert "does not exist" in refusal(folders.find_images, [file.parent / "b.nd2/Pos-1"])


def test_masks_of_scenes(file, package, tmp_path):
    package.scenes = {"P1": PIXELS, "P2": PIXELS}
    (tmp_path / "m").mkdir()
    (tmp_path / "m/a_P2.tif").touch()
    first, second = folders.find(file.parent, tmp_path / "m")
    assert first.mask is None and second.mask == tmp_path / "m/a_P2.tif"


def test_groups_of_scenes():
    assert group_of("day 1/a.lif/P1", "folder") == "day 1"
    assert group_of("a.lif/P1", r"^(.*)\.lif/") == "a"


def test_damaged_file(file):
    file.write_bytes(b"damaged")
    sentence = f"cannot read {file}, it seems damaged or incomplete (no such segment)"
    for function in (open_image_file, folders.find):
        assert refusal(function, file).startswith(sentence)


def test_damaged_plane(file, package, monkeypatch):
    def fail(self, place):
        raise RuntimeError("broken")

    with open_image_file(file) as image:
        monkeypatch.setattr(Lazy, "__getitem__", fail)
        assert "damaged or incomplete (broken)" in refusal(image.read, [slice(None)] * 5)


@pytest.mark.parametrize("ending", microscopes.ENDINGS)
def test_without_the_package(tmp_path, monkeypatch, ending):
    package = f"bioio{ending.replace('.', '_')}"
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"a{ending}"
    path.touch()
    name = package.replace("_", "-")
    for given in (tmp_path, path):
        assert refusal(folders.find_images, [given]) == (
            f"{path} is a file of a microscope, and {name} is needed to read it; run 'python -m "
            f"pip install {name}', or export it as OME-TIFF"
        )


def test_paths_that_bioio_would_take_for_an_address(tmp_path, package):
    path = tmp_path / "memory::b.nd2"
    path.touch()
    assert "'::', which bioio would take for an address; rename it" in refusal(
        open_image_file, path
    )


# --- the readers of bioio ------------------------------------------------------------------------


def test_czi(tmp_path):
    """As the library of the manufacturer writes it."""
    pytest.importorskip("bioio_czi", reason="bioio-czi is not installed")
    czi = pytest.importorskip("pylibCZIrw.czi", reason="pylibCZIrw is not installed")
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as document:
        for place in np.ndindex(*PIXELS.shape[:3]):
            plane = dict(zip("TCZ", place, strict=True))
            document.write(data=PIXELS[place][..., None], plane=plane)
        document.write_metadata(
            document_name="a",
            channel_names={0: "DAPI", 1: "GFP", 2: "RFP"},
            scale_x=0.325e-6,
            scale_y=0.65e-6,
            scale_z=2e-6,
        )
    with open_image_file(path) as image:
        sizes = {"Z": 2, "Y": 0.65, "X": 0.325}
        assert image.metadata == Metadata("TCZYX", sizes, ("DAPI", "GFP", "RFP"))
        np.testing.assert_array_equal(
            image.read((1, 2, 3, slice(1, 3), 5)), PIXELS[1, 2, 3, 1:3, 5]
        )
    np.testing.assert_array_equal(read_image(path), PIXELS)
    assert list(folders.find_images([tmp_path])) == ["a"]
    path.write_bytes(path.read_bytes()[:500])
    assert "damaged or incomplete" in refusal(read_image, path)


def test_scenes_of_a_reader_of_bioio(tmp_path, monkeypatch):
    """Those of an OME-TIFF with two images, which stands for the formats that nothing writes."""
    pytest.importorskip("bioio_ome_tiff", reason="bioio-ome-tiff is not installed")
    options = microscopes._PLANES
    monkeypatch.setitem(microscopes._READERS, ".lif", ("bioio_ome_tiff", options))
    path = tmp_path / "a.lif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for pixels in (PIXELS, PIXELS[..., :4]):
            metadata = {"axes": "TCZYX", "PhysicalSizeX": 0.325, "PhysicalSizeY": 0.325}
            tif.write(pixels, photometric="minisblack", metadata=metadata)
    images = folders.find_images([tmp_path])
    assert list(images) == ["a_Image-0", "a_Image-1"]
    for image, pixels in zip(images.values(), (PIXELS, PIXELS[..., :4]), strict=True):
        np.testing.assert_array_equal(read_image(image), pixels)
        with open_image_file(image) as file:
            assert file.metadata.pixel_size == {"Y": 0.325, "X": 0.325}


@pytest.mark.parametrize("ending", microscopes.ENDINGS)
def test_readers_refuse_what_is_not_theirs(tmp_path, ending):
    pytest.importorskip(microscopes._READERS[ending][0], reason="it is not installed")
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"\x00\x01nonsense" * 100)
    assert "damaged or incomplete" in refusal(open_image_file, path)
