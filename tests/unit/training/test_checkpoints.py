"""Files that are whole or not there, and that run no code when they are read."""

import errno
import os
import pickle
import random
import resource
import zipfile
from contextlib import contextmanager

import pytest
import torch

from denoiseg_flow.models import tensor_file
from denoiseg_flow.training import checkpoints

CONTENT = {"weights": torch.arange(5000.0), "step": 7, "loss": float("inf"), "name": "a"}


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "folder" / "model.pt"
    tensor_file.save(CONTENT, path)
    loaded = tensor_file.load(path)
    assert torch.equal(loaded.pop("weights"), CONTENT["weights"])
    assert loaded == {"step": 7, "loss": float("inf"), "name": "a"}
    assert os.listdir(path.parent) == ["model.pt"]


@contextmanager
def full_disk(free):
    """No file can grow beyond ``free`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("free", [0, 4096])
def test_full_disk_leaves_the_old_file_and_no_other(tmp_path, free):
    path = tmp_path / "model.pt"
    tensor_file.save({"step": 1}, path)
    with pytest.raises(OSError) as caught, full_disk(free):
        tensor_file.save(CONTENT, path)
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == ["model.pt"]
    assert tensor_file.load(path) == {"step": 1}


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), KeyboardInterrupt()])
def test_interruption_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error):
    path = tmp_path / "model.pt"
    tensor_file.save({"step": 1}, path)

    def fail(source, target):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)):
        tensor_file.save({"step": 2}, path)
    assert os.listdir(tmp_path) == ["model.pt"]
    assert tensor_file.load(path) == {"step": 1}


class Trap:
    """What a malicious model file holds: code that runs when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def pickle_to(content, path):
    """Write a plain pickle, as torch did long ago."""
    path.write_bytes(pickle.dumps(content["trap"], protocol=2))


@pytest.mark.parametrize("write", [torch.save, pickle_to])
def test_code_is_refused_and_does_not_run(tmp_path, write):
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    write({"weights": torch.zeros(3), "trap": Trap(marker)}, path)
    with pytest.raises(ValueError, match=r"model\.pt is damaged or not a file of tensors"):
        tensor_file.load(path)
    assert not marker.exists()
    # The trap itself works, so that the test can fail.
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert marker.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_file(tmp_path, share):
    path = tmp_path / "model.pt"
    tensor_file.save(CONTENT, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"model\.pt is damaged"):
        tensor_file.load(path)


def test_one_changed_number_is_noticed(tmp_path):
    """PyTorch alone would read the file, and train on with another weight."""
    path = tmp_path / "model.pt"
    tensor_file.save(CONTENT, path)
    whole = path.read_bytes()
    place = whole.index(CONTENT["weights"][1000:1004].numpy().tobytes())
    path.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    assert not torch.equal(torch.load(path)["weights"], CONTENT["weights"])
    with pytest.raises(ValueError, match=r"model\.pt is damaged"):
        tensor_file.load(path)


# Two generations


@pytest.fixture
def pair(tmp_path):
    return checkpoints.Checkpoints(tmp_path / "run" / "checkpoint.pt", seconds=0)


def test_newest_state_then_the_one_before(pair, caplog):
    assert pair.load("cpu", {"step"}) is None
    for step in (1, 2, 3):
        pair.save({"step": step})
    assert pair.load("cpu", {"step"}) == {"step": 3}
    pair.path.write_bytes(b"")
    assert pair.load("cpu", {"step"}) == {"step": 2}
    pair.path.unlink()
    pair.previous.write_bytes(b"")
    assert pair.load("cpu", {"step"}) is None
    damaged = [pair.path, pair.previous]
    assert caplog.messages == [
        f"{path} is damaged or not a file of tensors; ignoring it" for path in damaged
    ]


def test_state_of_another_version_is_left_aside(pair, caplog):
    """A sound file that lacks what this version needs."""
    pair.save({"step": 1, "average": 0})
    pair.save({"step": 2, "mean": 0})
    assert pair.load("cpu", {"step", "average"}) == {"step": 1, "average": 0}
    assert caplog.messages == [
        f"{pair.path} was written by another version of the workflow; ignoring it"
    ]


@pytest.mark.parametrize("call", [1, 2])
def test_one_is_whole_whenever_writing_stops(pair, monkeypatch, call):
    """Before the old file is moved aside, and before the new one takes its place."""
    pair.save({"step": 1})
    replace, calls = os.replace, []

    def stop(source, target):
        calls.append(target)
        if len(calls) == call:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        pair.save({"step": 2})
    assert pair.load("cpu", {"step"}) == {"step": 1}


def test_remove_leaves_nothing(pair):
    pair.save({"step": 1})
    pair.save({"step": 2})
    pair.path.with_name(".checkpoint.pt.partial").write_bytes(b"half")
    pair.remove()
    assert os.listdir(pair.path.parent) == []
    pair.remove()


def test_trainings_of_one_job_have_files_of_their_own(pair):
    """They go together: what removes the first removes the others."""
    first, second = pair.beside("a.1"), pair.beside("b")
    for number, each in enumerate((pair, first, second)):
        each.save({"step": number})
        each.save({"step": 10 + number})
    for number, each in enumerate((pair, first, second)):
        assert each.load("cpu", {"step"}) == {"step": 10 + number}
    names = {"checkpoint.pt", "checkpoint_a.1.pt", "checkpoint_b.pt"}
    assert set(os.listdir(pair.path.parent)) == names | {f"{name}.previous" for name in names}
    pair.remove()
    assert os.listdir(pair.path.parent) == []


def test_due_after_the_interval(tmp_path, monkeypatch):
    now = [50.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    files = checkpoints.Checkpoints(tmp_path / "c.pt", seconds=60)
    assert not files.due()
    now[0] += 60
    assert files.due()
    files.save({"step": 1})
    assert not files.due()


@pytest.mark.parametrize(
    "text", ["step\tloss\n1\t0.5\n", "<html>404</html>", "\x80\x02", "a" * 999]
)
def test_file_of_something_else(tmp_path, text):
    path = tmp_path / "model.pt"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"model\.pt is damaged"):
        tensor_file.load(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_changed_bytes_are_survived(tmp_path):
    """Whatever is damaged: the file is read or refused, nothing else is raised."""
    path, draw = tmp_path / "model.pt", random.Random(0)
    tensor_file.save({"weights": torch.arange(20.0), "step": 7, "name": "abc"}, path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            tensor_file.load(path)
        except ValueError as error:
            refused += "is damaged" in str(error)
    assert refused > 20


def test_something_else_than_a_mapping(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt is damaged or not a file of tensors"):
        tensor_file.load(tmp_path / "model.pt")


def test_missing_file_is_missing_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        tensor_file.load(tmp_path / "model.pt")


# Bombs


def compressed(path):
    """Write the same members again, compressed."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in members.items():
            new.writestr(name, content)


def laughs():
    value = ["ha"] * 10
    for _ in range(30):
        value = [value] * 10
    return value


def deep():
    value = []
    for _ in range(150):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(torch.zeros(1).expand(10**12), id="a number said to be many"),
        pytest.param(laughs(), id="a billion laughs"),
        pytest.param(deep(), id="deep"),
        pytest.param({torch.float32}, id="a set"),
        pytest.param(torch.float32, id="a type"),
    ],
)
def test_values_that_are_not_what_they_seem(tmp_path, value):
    path = tmp_path / "model.pt"
    torch.save({"a": 1, "b": [value]}, path)
    with pytest.raises(ValueError, match=r"model\.pt is damaged or not a file of tensors"):
        tensor_file.load(path)


def test_compressed_tensors_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(10**6)}, path)
    tensor_file.load(path)
    compressed(path)
    assert path.stat().st_size < 10**5
    with pytest.raises(ValueError, match="damaged"):
        tensor_file.load(path)
