"""A file or folder is there once it is complete, whoever else makes it."""

import pytest

from denoiseg_flow.jobs.atomic import new_file, new_folder

MAKER = """
import logging, sys
from pathlib import Path
from denoiseg_flow.jobs.atomic import new_folder
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
sys.stdout.reconfigure(line_buffering=True)
with new_folder(Path(sys.argv[1])) as unfinished:
    (unfinished / "first").write_text("")
    print("at work", flush=True)
    sys.stdin.readline()
    (unfinished / "last").write_text("")
"""


@pytest.fixture
def make(tmp_path, start_python):
    return lambda: start_python(MAKER, tmp_path / "a/folder")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_processes_make_it_one_after_the_other(make, tmp_path):
    first = make()
    assert first.stdout.readline() == "at work\n"
    second = make()
    assert "is already running this job" in second.stdout.readline()
    first.communicate("\n")
    assert second.communicate("\n")[0] == "at work\n"
    assert first.returncode == second.returncode == 0
    assert names(tmp_path / "a") == ["folder"]
    assert names(tmp_path / "a/folder") == ["first", "last"]


def test_what_a_killed_process_left_is_no_part_of_it(make, tmp_path):
    killed = make()
    killed.stdout.readline()
    killed.kill()
    killed.wait()
    with new_folder(tmp_path / "a/folder") as unfinished:
        assert names(unfinished) == []
    assert names(tmp_path / "a") == ["folder"]


def test_after_an_error_the_former_one_is_there(tmp_path):
    with new_folder(tmp_path / "folder") as unfinished:
        (unfinished / "former").touch()
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "folder") as unfinished:
        raise ZeroDivisionError
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["former"]


@pytest.mark.parametrize("former", [None, "former"])
def test_a_file_is_complete_or_as_before(tmp_path, former):
    path = tmp_path / "a/file"
    if former:
        path.parent.mkdir()
        path.write_text(former)
    with pytest.raises(ZeroDivisionError), new_file(path) as unfinished:
        unfinished.write_text("half")
        raise ZeroDivisionError
    assert names(tmp_path / "a") == (["file"] if former else [])
    with new_file(path) as unfinished:
        unfinished.write_text("whole")
        assert not path.exists() or path.read_text() == former
    assert names(tmp_path / "a") == ["file"] and path.read_text() == "whole"
