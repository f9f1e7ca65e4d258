"""Whatever the bytes: an image, or a sentence, and no more memory than the file is worth."""

import io
import json
import shutil
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy
from PIL import Image

from denoiseg_flow.data.denoiseg_npz import read_images
from denoiseg_flow.data.download import unpack
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.ome_zarr import create_ome_zarr
from denoiseg_flow.data.files.reader import open_image_file
from denoiseg_flow.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 17, 20), np.uint8)
MEMORY = 2**24  # bytes, for files of at most a few thousand
LENIENT = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@contextmanager
def read_or_refused():
    """Let nothing through but refusals of one line; NumPy's arrays count, too."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < MEMORY


def look_at(path):
    with read_or_refused(), open_image_file(path) as image:
        image.read([slice(0, 40)] * len(image.shape))


def tif_bytes(**options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS, metadata={"axes": "ZYX"}, **options)
    return buffer.getvalue()


def lzw_bytes():
    """As Pillow writes them, which reads them, too, where imagecodecs is missing."""
    buffer = io.BytesIO()
    first, *others = map(Image.fromarray, PIXELS)
    first.save(buffer, "TIFF", save_all=True, append_images=others, compression="tiff_lzw")
    return buffer.getvalue()


def png_bytes():
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(buffer, "png")
    return buffer.getvalue()


FILES = {
    "plain.tif": tif_bytes(photometric="minisblack"),
    "tiles.tif": tif_bytes(photometric="minisblack", tile=(16, 16), compression="zlib"),
    "lzw.tif": lzw_bytes(),
    "a.ome.tif": tif_bytes(ome=True),
    "imagej.tif": tif_bytes(imagej=True),
    "a.png": png_bytes(),
}


@LENIENT
@given(st.sampled_from(sorted(FILES)), st.integers(0, 12), st.binary(max_size=300))
def test_any_bytes_after_a_valid_beginning(tmp_path, name, kept, rest):
    path = tmp_path / name
    path.write_bytes(FILES[name][:kept] + rest)
    look_at(path)


@LENIENT
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 10**9), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_any_bytes_in_a_valid_file(tmp_path, name, changes):
    path, content = tmp_path / name, bytearray(FILES[name])
    for place, value in changes:
        place %= len(content)
        content[place : place + len(value)] = value
    path.write_bytes(content)
    look_at(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("valid") / "a.zarr"
    with create_ome_zarr(path, PIXELS.shape, "u1", Metadata("ZYX", {"Z": 2.0})) as array:
        array[...] = PIXELS
    return path


@LENIENT
@given(st.data())
def test_any_values_in_the_metadata_of_a_store(tmp_path, store, data):
    path = tmp_path / "a.zarr"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(store, path)
    file = path / data.draw(st.sampled_from([".zattrs", "0/.zarray"]))
    whole = {"": json.loads(file.read_text())}
    holder, key = whole, ""
    while data.draw(st.integers(0, 6)) and isinstance(holder[key], dict | list) and holder[key]:
        holder = holder[key]
        keys = sorted(holder) if isinstance(holder, dict) else range(len(holder))
        key = data.draw(st.sampled_from(list(keys)))
    holder[key] = data.draw(JSON)
    file.write_text(json.dumps(whole[""]))
    look_at(path)


@LENIENT
@given(st.binary(max_size=100))
def test_any_bytes_in_the_chunk_of_a_store(tmp_path, store, content):
    path = tmp_path / "a.zarr"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(store, path)
    (path / "0" / "0" / "0" / "0").write_bytes(content)
    look_at(path)


def pickles():
    """Bytes that are often a pickle: opcodes of all kinds, with what they need."""
    names = ["numpy\nndarray", "numpy\ndtype", "numpy.core.multiarray\n_reconstruct",
             "_codecs\nencode", "os\nsystem", "builtins\neval"]  # fmt: skip
    pieces = [
        st.sampled_from([f"c{name}\n".encode() for name in names]),
        st.sampled_from([bytes([n]) for n in b"()]}lt0123RbNaesu.d\x81\x85\x86\x87\x88\x94"]),
        st.binary(max_size=9).map(lambda b: b"C" + bytes([len(b)]) + b),
        st.binary(min_size=4, max_size=4).map(lambda b: b"r" + b),
        st.binary(min_size=8, max_size=8).map(lambda b: b"\x8e" + b),
        st.integers(0, 255).map(lambda n: b"K" + bytes([n])),
    ]
    return st.lists(st.one_of(pieces), max_size=30).map(lambda parts: b"\x80\x04" + b"".join(parts))


@LENIENT
@given(st.one_of(st.binary(max_size=99), pickles()), st.booleans())
def test_any_pickle_in_an_archive(tmp_path, content, as_objects):
    stream = io.BytesIO()
    if as_objects:
        header = {"descr": "|O", "fortran_order": False, "shape": (3,)}
        npy.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("X.npy", stream.getvalue() + content)
    with read_or_refused():
        for _ in read_images(tmp_path / "a.npz", "X"):
            pass


@LENIENT
@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=9)), max_size=4), st.binary())
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_any_names_in_an_archive(tmp_path, members, damage):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in members:
            try:
                archive.writestr(name, content)
            except (UnicodeEncodeError, IndexError):  # zipfile does not write such names
                continue
    with read_or_refused():
        unpack(tmp_path / "a.zip", tmp_path / "unpacked")
    assert {path.name for path in tmp_path.iterdir()} <= {"a.zip", "unpacked"}
