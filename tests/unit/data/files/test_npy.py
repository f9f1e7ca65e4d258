"""Labels in npy files, of NumPy and of Cellpose."""

import os
import pickle

import numpy as np
import pytest
from refusals import refusal

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import open_image_file, read_image

LABELS = np.random.default_rng(0).integers(0, 40, (12, 17))


def save_cellpose(path, labels, **more):
    """Save a dictionary as Cellpose does, with what else it stores."""
    flows = [np.zeros((*labels.shape, 3), np.uint8), np.ones(labels.shape, np.float32), []]
    found = {
        "outlines": labels * 0,
        "masks": labels,
        "chan_choose": [0, 0],
        "ismanual": np.zeros(int(labels.max()), bool),
        "filename": "img01.tif",
        "flows": flows,
        "diameter": np.nan,
        "est_diam": np.float64(17.5),
        "manual_changes": [["11/29/2026, 10:00:00", "added mask", [1]]],
        "normalize_params": {"lowhigh": None, "percentile": [1.0, 99.0], "invert": False},
    }
    np.save(path, found | more)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u4", "i8", "?", "f4"])
def test_plain_labels(tmp_path, dtype):
    np.save(tmp_path / "a.npy", LABELS.astype(dtype))
    found = read_image(tmp_path / "a.npy", indexed=True)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, LABELS.astype(dtype))


def test_columns_first(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(LABELS))
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", indexed=True), LABELS)


@pytest.mark.parametrize("dtype", ["u2", ">u4", "i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_labels_of_cellpose(tmp_path, dtype, order):
    save_cellpose(tmp_path / "a_seg.npy", np.asarray(LABELS, dtype, order=order))
    found = read_image(tmp_path / "a_seg.npy", indexed=True)
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found, LABELS)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_labels_of_older_versions(tmp_path, protocol):
    save_cellpose(tmp_path / "a_seg.npy", LABELS.astype(np.uint16))
    content = np.load(tmp_path / "a_seg.npy", allow_pickle=True)
    header = (tmp_path / "a_seg.npy").read_bytes()[:128]
    pickled = pickle.dumps(content, protocol)
    (tmp_path / "a_seg.npy").write_bytes(header + pickled)
    np.testing.assert_array_equal(read_image(tmp_path / "a_seg.npy", indexed=True), LABELS)


def test_a_stack_has_the_axes_of_its_image(tmp_path):
    stack = np.stack([LABELS] * 3).astype(np.uint16)
    np.save(tmp_path / "a.npy", stack)
    save_cellpose(tmp_path / "a_seg.npy", stack)
    for name in ("a.npy", "a_seg.npy"):
        assert "does not say" in refusal(open_image_file, tmp_path / name, indexed=True)
        with open_image_file(tmp_path / name, None, True, "TYX") as file:
            assert file.metadata == Metadata("TYX")
            np.testing.assert_array_equal(file.read([slice(None)] * 3), stack)
    save_cellpose(tmp_path / "one_seg.npy", stack[:1])
    with open_image_file(tmp_path / "one_seg.npy", indexed=True) as file:
        assert file.metadata == Metadata("YX") and file.shape == LABELS.shape


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("place", ["masks", "filename", None])
def test_nothing_in_a_pickle_is_called(tmp_path, place):
    """NumPy would, if it were allowed to read the file."""
    evil = Evil(str(tmp_path / "made"))
    if place:
        save_cellpose(tmp_path / "a_seg.npy", LABELS.astype(np.uint16), **{place: evil})
    else:
        np.save(tmp_path / "a_seg.npy", np.array(evil, object))
    if place == "filename":
        np.testing.assert_array_equal(read_image(tmp_path / "a_seg.npy", indexed=True), LABELS)
    else:
        assert "cannot read" in refusal(read_image, tmp_path / "a_seg.npy", indexed=True)
    assert not (tmp_path / "made").exists()
    np.load(tmp_path / "a_seg.npy", allow_pickle=True)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (b"\x80\x02\x82\x01.", "extension code"),
        (b"\x80\x02", "damaged"),
        (b"\x80\x05\x96" + b"\xff" * 4 + b"\0\0\0\0.", "damaged"),
        (b"\x80\x02}.", "has no array 'masks'"),
        (b"\x80\x02cos\nsystem\n.", "has no array 'masks'"),
        (b"\x80\x02cos\nsystem\n(lR.", "has no array 'masks'"),
        (pickle.dumps(np.array({"a": 1}, object), 4), "has no array 'masks'"),
        (pickle.dumps(np.array({"masks": [1]}, object), 4), "has no array 'masks'"),
        (pickle.dumps(np.array({"masks": np.array(["a"])}, object), 4), "pixel type 'U1'"),
    ],
)
def test_pickles_that_are_no_files_of_cellpose(tmp_path, pickled, said):
    np.save(tmp_path / "a.npy", np.array({}, object))
    header = (tmp_path / "a.npy").read_bytes()[:128]
    (tmp_path / "a.npy").write_bytes(header + pickled)
    message = refusal(read_image, tmp_path / "a.npy", indexed=True)
    assert "cannot read" in message and said in message


@pytest.mark.parametrize("cut", [3, 9, 100, 200])
def test_incomplete_files(tmp_path, cut):
    np.save(tmp_path / "a.npy", LABELS)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:cut])
    assert "seems damaged" in refusal(read_image, tmp_path / "a.npy", indexed=True)
