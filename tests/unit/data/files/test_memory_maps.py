"""Arrays in files, and the memory that they take."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from denoiseg_flow.data import store
from denoiseg_flow.data.files import memory_maps
from denoiseg_flow.data.files.memory_maps import release, temporary_map

STATM = Path("/proc/self/statm")


def resident():
    """Bytes of files and shared memory that count as memory of this process."""
    return int(STATM.read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_temporary_map_is_zero_and_leaves_nothing(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = temporary_map((3, 5), dtype)
    assert (array.shape, array.dtype) == ((3, 5), dtype)
    assert not array.any()
    array[1, 2] = 7
    assert array[1].tolist() == [0, 0, 7, 0, 0]
    assert not list(tmp_path.iterdir())


def test_full_disk_is_an_error(monkeypatch):
    """Not a signal that kills the process while it writes to the map."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory_maps, "reserve", full)
    with pytest.raises(OSError, match="No space left"):
        temporary_map((3, 5), np.int32)


@pytest.mark.skipif(not STATM.exists(), reason="needs the memory figures of Linux")
def test_release_gives_memory_back_and_keeps_values(tmp_path):
    size = 32 * 2**20
    path = tmp_path / "a.tif"
    for array in (temporary_map((2**10, size // 2**12), np.float32),
                  store.create_array(path, (2**10, size // 2**12), None)):  # fmt: skip
        before = resident()
        array[:] = 3
        assert resident() - before > 0.9 * size
        release(array)
        assert resident() - before < 0.1 * size
        assert (array == 3).all()
        release(array)
    array = store.open_image(path)
    before = resident()
    assert (array == 3).all()
    assert resident() - before > 0.9 * size
    release(array)
    assert resident() - before < 0.1 * size


def test_release_leaves_other_arrays_alone():
    array = np.arange(6).reshape(2, 3)
    release(array)
    release(array[0])
    release(None)
    assert np.array_equal(array, [[0, 1, 2], [3, 4, 5]])
