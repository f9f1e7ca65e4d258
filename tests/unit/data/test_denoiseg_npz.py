"""DenoiSeg archives are read faithfully, and a pickle in them cannot run anything."""

import io
import os
import pickle
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from denoiseg_flow.data import denoiseg_npz
from denoiseg_flow.data.denoiseg_npz import read_denoiseg_npz, read_images
from denoiseg_flow.errors import InputError


def objects(*items):
    """Return a one-dimensional object array."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def write_npz(path, key, array, protocol=3, payload=None, as_numpy_1=False):
    """Write an object array as NumPy does, or any other pickle ``payload`` in its place."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(
        stream, {"descr": "|O", "fortran_order": False, "shape": array.shape}
    )
    content = pickle.dumps(array, protocol) if payload is None else payload
    if as_numpy_1:
        assert b"numpy._core.multiarray" in content
        content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    stream.write(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{key}.npy", stream.getvalue())


def refusal(path, key="X"):
    with pytest.raises(InputError) as caught:
        list(read_images(path, key))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


RNG = np.random.default_rng(0)
SIZES = [(4, 5), (7, 3), (6, 6)]


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int64, np.float32, np.float64, ">f4", bool]
)
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_arrays(tmp_path, dtype, shape, order):
    array = np.asarray(RNG.integers(0, 200, shape).astype(dtype), order=order)
    np.savez_compressed(tmp_path / "a.npz", X=array)
    images = list(read_images(tmp_path / "a.npz", "X"))
    np.testing.assert_array_equal(np.array(images), array.reshape(5, 6, 7))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, ">i2"])
def test_object_arrays_as_numpy_writes_them(tmp_path, dtype):
    images = [RNG.integers(0, 200, size).astype(dtype) for size in SIZES]
    images[1] = np.asfortranarray(images[1])
    images[2] = images[2][..., None]
    np.savez(tmp_path / "a.npz", X=objects(*images))
    back = list(read_images(tmp_path / "a.npz", "X"))
    assert len(back) == 3
    for one, other in zip(back, images, strict=True):
        np.testing.assert_array_equal(one, other.reshape(one.shape))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3])
def test_object_arrays_of_other_numpy_versions(tmp_path, protocol):
    images = [RNG.integers(0, 255, size).astype(np.uint8) for size in SIZES]
    write_npz(tmp_path / "a.npz", "X", objects(*images), protocol, as_numpy_1=True)
    for one, other in zip(read_images(tmp_path / "a.npz", "X"), images, strict=True):
        np.testing.assert_array_equal(one, other)


class Malicious:
    """Runs a command when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("nested", [False, True])
def test_malicious_pickle_runs_nothing(tmp_path, nested):
    evil = Malicious(tmp_path / "ran")
    payload = pickle.dumps(objects(np.zeros((2, 2)), evil) if nested else evil)
    pickle.loads(payload)
    assert (tmp_path / "ran").exists(), "the pickle does nothing, so the test shows nothing"
    (tmp_path / "ran").unlink()
    write_npz(tmp_path / "a.npz", "X", objects(0), payload=payload)
    assert "system" in refusal(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps([1, 2]),
        pickle.dumps(np.zeros(3)),
        pickle.dumps(objects("text", 3)),
        pickle.dumps(objects(objects(1, 2))),
        pickle.dumps(objects(np.array(["text"]))),
        pickle.dumps(objects(np.zeros(2, "f4,f4"))),
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nndarray\n(I1000000000000\ntR.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00rot1tR.",
        b"not a pickle",
        b"",
    ],
)
def test_other_pickles_are_refused(tmp_path, payload):
    write_npz(tmp_path / "a.npz", "X", objects(0), payload=payload)
    assert "something other than images" in refusal(tmp_path / "a.npz")


def test_damaged_and_unfit_arrays(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.zeros((3, 4)), Y=np.zeros((2, 3, 4), complex), Z=np.zeros((2, 3, 4, 3)))
    for key in "XYZ":
        assert f"array {key}" in refusal(path, key)
    assert "no array V" in refusal(path, "V")
    path.write_bytes(path.read_bytes()[:200])
    assert "damaged" in refusal(path)
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6, 10**6)}
    npy.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", stream.getvalue() + bytes(64))
    assert "does not match" in refusal(path)


def test_whole_archive(tmp_path):
    (tmp_path / "DSB" / "train").mkdir(parents=True)
    (tmp_path / "DSB" / "test").mkdir()
    x, y = RNG.random((3, 4, 4), np.float32), RNG.integers(0, 9, (3, 4, 4))
    train = tmp_path / "DSB" / "train" / "train_data.npz"
    np.savez(train, X_train=x[:2], Y_train=y[:2], X_val=x[2:], Y_val=y[2:])
    with pytest.raises(InputError, match=r"0 files named test_data\.npz"):
        list(read_denoiseg_npz(tmp_path))
    test = tmp_path / "DSB" / "test" / "test_data.npz"
    np.savez(test, X_test=objects(x[0], x[1, :2]), Y_test=objects(y[0], y[1, :2]))
    items = list(read_denoiseg_npz(tmp_path))
    assert [(item.name, item.subset) for item in items] == [
        ("train_00001", "train"), ("train_00002", "train"), ("val_00001", "val"),
        ("test_00001", "test"), ("test_00002", "test"),
    ]  # fmt: skip
    np.testing.assert_array_equal(items[2].image, x[2])
    assert items[2].clean is items[2].image
    np.testing.assert_array_equal(items[4].mask, y[1, :2])
    np.savez(test, X_test=x, Y_test=y[:2])
    with pytest.raises(InputError, match="different number"):
        list(read_denoiseg_npz(tmp_path))


def test_more_images_than_there_are_bytes(tmp_path):
    """A million references to one image would fill the disk."""
    one = np.zeros((100, 100))
    write_npz(tmp_path / "a.npz", "X", objects(*[one] * 3))
    assert "more images than it has bytes" in refusal(tmp_path / "a.npz")


def test_opcodes_that_ask_for_memory(tmp_path):
    """The unpickling in C would reserve 32 GiB for this."""
    payload = b"\x80\x03Nr\xff\xff\xff\x7f."
    limits = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    write_npz(tmp_path / "a.npz", "X", objects(0), payload=payload)
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, limits[1]))
    try:
        assert "not an array of images" in refusal(tmp_path / "a.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_what_does_not_fit_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(denoiseg_npz, "MAX_READ", 3000)
    path, images = tmp_path / "a.npz", np.zeros((20, 10, 20), np.uint8)
    large, larger = np.zeros((1, 50, 50), np.uint8), np.zeros((1, 100, 60), np.uint8)
    np.savez_compressed(path, X=images, F=np.asfortranarray(images), Y=large, Z=larger)
    assert len(list(read_images(path, "X"))) == 20 and len(list(read_images(path, "Y"))) == 1
    assert "read at once" in refusal(path, "F")
    assert "read at once" in refusal(path, "Z")


def test_headers_of_another_kind(tmp_path):
    path = tmp_path / "a.npz"
    for content in (
        b"\x93NUMPY\x02\0\xff\xff\xff\xff",
        b"\x93NUMPY\x01\0\x10\0" + b"{'a': (((((((((((",
        b"\x93NUMPY\x01\0\x10\0" + b"}}}}}}}}}}}}}}}}",
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", content)
        assert "array X" in refusal(path)
