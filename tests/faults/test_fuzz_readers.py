"""A short run of the fuzzer, and that it would tell what it looks for."""

from itertools import islice

import fuzz_readers
import pytest
from fuzz_readers import READERS, Reader, fuzz, numbered, try_input

from denoiseg_flow.errors import InputError


def test_readers_survive_a_hundred_damaged_files():
    each = 12
    counts, findings = fuzz(islice(numbered(list(READERS)), each * len(READERS)), 0, minutes=5)
    assert findings == {}
    assert [found.total() for found in counts.values()] == [each] * len(READERS)
    assert all(found["refused"] for found in counts.values())
    assert sum(found["read"] for found in counts.values()) > each


def make(folder):
    (folder / "a.tif").write_bytes(b"123")


def fail(path, folder):
    raise KeyError(path)


def take_much(path, folder):
    try:
        raise MemoryError
    except MemoryError as error:
        raise InputError("it seems damaged") from error


def say_much(path, folder):
    raise InputError("first line\nsecond line")


@pytest.mark.parametrize(
    ("read", "words"),
    [(fail, "KeyError"), (take_much, "too much memory"), (say_much, "second line")],
)
def test_what_is_a_finding(tmp_path, monkeypatch, read, words):
    (tmp_path / "tif").mkdir()
    make(tmp_path / "tif")
    monkeypatch.setitem(fuzz_readers.READERS, "tif", Reader(make, read))
    outcome, said = try_input("tif", 3, 0, tmp_path)
    assert outcome == "finding" and words in said


def test_inputs_are_made_again_by_their_number(tmp_path):
    made = []
    for number in (5, 5, 6):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        (tmp_path / "valid").mkdir(exist_ok=True)
        fuzz_readers.make_pngs(tmp_path / "valid")
        path = fuzz_readers.make_input("png", number, 0, tmp_path / "valid", folder)
        made.append((path.name, path.read_bytes()))
    assert made[0] == made[1] != made[2]
