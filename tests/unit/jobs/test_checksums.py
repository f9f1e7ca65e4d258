"""Checksums of folders: whatever changes in a file afterwards is noticed when it is read."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from refusals import refusal

from denoiseg_flow.data import manifest
from denoiseg_flow.data.store import open_labels, read_metadata, write_array
from denoiseg_flow.jobs import checksums

IMAGE = np.arange(400, dtype=np.float32).reshape(20, 20)


@pytest.fixture
def folder(tmp_path):
    """A folder of two images and a table, with its checksums."""
    folder = tmp_path / "prepared"
    for name in ("a", "b c"):
        write_array(folder / "images" / f"{name}.tif", IMAGE)
    (folder / "manifest.tsv").write_text("image\na\nb c\n")
    checksums.write(folder)
    return folder


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_good_files_pass(folder):
    for name in ("a", "b c"):
        path = folder / "images" / f"{name}.tif"
        assert np.array_equal(open_labels(path), IMAGE)
        assert read_metadata(path).axes == "YX"
    checksums.verify(folder / "manifest.tsv")


@pytest.mark.parametrize("place", [0, 300, -1], ids=["header", "middle", "pixel"])
def test_one_bit(folder, place):
    path = folder / "images/b c.tif"
    flip(path, place)
    for read in (open_labels, read_metadata):
        message = refusal(read, path)
        assert message == (
            f"{path} is damaged (wrong checksum): delete {folder} and run the workflow again"
        )
    assert np.array_equal(open_labels(folder / "images/a.tif"), IMAGE), "the others are good"


# An archive may hold files of any depth and name; what no reader takes is left out.
OTHERS = [
    "deep/down/below/c.txt",
    "two\nlines.txt",
    b"latin\xe9.txt".decode(errors="surrogateescape"),
]


@pytest.mark.parametrize("damage", [lambda path: path.write_text("d"), Path.unlink])
def test_a_whole_folder(folder, damage):
    for name in OTHERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("c")
    checksums.write(folder)
    checksums.verify_folder(folder)
    checksums.verify_folder(folder / "images")  # has none of its own
    damage(folder / OTHERS[0])
    message = refusal(checksums.verify_folder, folder)
    assert message.startswith(f"{folder / OTHERS[0]} is damaged (wrong checksum): delete {folder} ")


def test_files_without_a_checksum_are_not_read(tmp_path, monkeypatch):
    """A slide of many gigabytes, or the folder of an OME-Zarr image."""
    (tmp_path / "slide.tif").touch()
    (tmp_path / "slide.ome.zarr").mkdir()
    monkeypatch.setattr(checksums, "digest", None)
    checksums.verify(tmp_path / "slide.tif")
    checksums.verify(tmp_path / "slide.ome.zarr")


def test_damage_after_the_first_look(folder):
    path = folder / "images/a.tif"
    open_labels(path)
    flip(path, -1)
    refusal(open_labels, path)


def test_lost_file(folder):
    (folder / "images/a.tif").unlink()
    assert "images/a.tif is damaged (wrong checksum)" in refusal(
        open_labels, folder / "images/a.tif"
    )


def test_file_by_itself(tmp_path):
    path = tmp_path / "seed1.tsv"
    path.write_text("image\na\n")
    checksums.write(path)
    assert [each.name for each in tmp_path.iterdir() if each != path] == ["seed1.tsv.sha256"]
    checksums.verify(path)
    path.write_text("image\n")
    assert refusal(manifest.read, path) == (
        f"{path} is damaged (wrong checksum): delete it and run the workflow again"
    )


def test_damaged_table(folder):
    flip(folder / "manifest.tsv", -2)
    assert "manifest.tsv is damaged" in refusal(manifest.read, folder / "manifest.tsv")


def test_damaged_checksums(folder):
    """The file may be good: whichever of the two is damaged, both are made anew."""
    flip(folder / checksums.NAME, 0)
    refusal(open_labels, folder / "images/a.tif")
    (folder / checksums.NAME).write_bytes(b"\xff\x00 nothing that\nmakes sense")
    open_labels(folder / "images/a.tif")


def test_files_without_checksum_pass(folder):
    write_array(folder / "images/new.tif", IMAGE)
    open_labels(folder / "images/new.tif")
    (folder / checksums.NAME).unlink()
    flip(folder / "images/a.tif", -1)
    open_labels(folder / "images/a.tif")


def test_same_folder_same_checksums(folder):
    before = (folder / checksums.NAME).read_bytes()
    (folder / ".snakemake_timestamp").touch()
    checksums.write(folder)
    assert (folder / checksums.NAME).read_bytes() == before


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_sha256sum_agrees(folder):
    command = ["sha256sum", "--check", "--strict", checksums.NAME]
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 0
    flip(folder / "images/a.tif", 5)
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 1
