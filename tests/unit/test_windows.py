"""The command on a simulated Windows, see ``tests/windows/sitecustomize.py``."""

import subprocess
import sys

import pytest

from denoiseg_flow.data.store import write_array
from denoiseg_flow.models.model_file import save_model

# In one process, because PyTorch takes seconds to load. In between, an image becomes another one.
PROGRAM = """
import shutil
from denoiseg_flow.cli import main
options = ["predict", "model.pt", "images", "--out", "out", "--device", "cpu"]
status = [main(options)]
shutil.copyfile("images/b.tif", "images/a.tif")
status += [main(options), main([*options, "--format", "ome.zarr"]), main(["describe", "model.pt"])]
assert status == [1, 1, 1, 0], status
"""
IN_USE = """
import os, sys, tempfile, numpy as np
np.save("array.npy", np.arange(3))
array = np.load("array.npy", mmap_mode="r")
temporary = tempfile.NamedTemporaryFile()
for use in (
    lambda: os.remove("array.npy"),
    lambda: os.replace("array.npy", "other.npy"),
    lambda: open(temporary.name),
    lambda: open("a:b", "w"),
    lambda: os.mkdir("aux"),
):
    try:
        use()
    except OSError as error:
        print(type(error).__name__)
del array
os.remove("array.npy")
"""


@pytest.fixture
def run(tmp_path, windows):
    def run(program):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, env=windows, capture_output=True)
        assert done.returncode == 0, done.stderr.decode("cp1252")
        assert b"Traceback" not in done.stderr
        return done.stdout

    return run


def test_predicts_and_replaces_results(tmp_path, make_model, make_blobs, run):
    """Beside an image that cannot be predicted, and with a letter that the console lacks."""
    model = make_model()
    model.identity["dataset"] = "\N{GREEK SMALL LETTER MU}"
    save_model(model, tmp_path / "model.pt")
    for number, name in enumerate("ab"):
        write_array(tmp_path / f"images/{name}.tif", make_blobs(32, number)[0])
    (tmp_path / "images/c.tif").write_bytes(b"no image")
    assert b"dataset: \\u03bc" in run(PROGRAM)
    out = tmp_path / "out"
    for kind in ("denoised", "labels"):
        found = {path.name for path in out.glob(f"{kind}/*")}
        assert found == {f"{name}.{form}" for name in "ab" for form in ("tif", "ome.zarr")}
    assert (out / "overlays/a.png").read_bytes() == (out / "overlays/b.png").read_bytes()
    assert [path.name for path in out.glob(".*")] == [".joined"]


def test_windows_is_simulated(run):
    """Files in use stay where they are, and names that Windows forbids are no names."""
    assert run(IN_USE).split() == [b"PermissionError"] * 3 + [b"OSError"] * 2
