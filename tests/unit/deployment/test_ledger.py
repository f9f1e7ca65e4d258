"""The record of what a model was used on, whatever became of its file."""

from dataclasses import replace
from pathlib import Path

import pytest

from denoiseg_flow.deployment.ledger import Entry, Record

ENTRIES = [
    Entry(name, f"/data/{name}.tif", 99, 10**18, "0" * 64, 3, "")
    for name in ("a", "b c", 'd"é\t', "{x}")
]


@pytest.fixture
def record(tmp_path):
    record = Record(tmp_path)
    record.replace(ENTRIES)
    return record


def test_reads_what_was_written(record):
    assert list(record.read().values()) == ENTRIES
    assert Record(Path("/nowhere")).read() == {}


def test_reads_a_record_from_before_confidences(record):
    """They stay unknown until the image is predicted again."""
    record.replace(replace(entry, results="labels.tif", confidence="0.9") for entry in ENTRIES)
    rows = [line.rpartition("\t")[0] for line in record.path.read_text().splitlines()]
    record.path.write_text("\n".join(rows) + "\n")
    assert list(record.read().values()) == [replace(e, results="labels.tif") for e in ENTRIES]


@pytest.mark.parametrize(
    "damage",
    [b"77", b"\xff", "²".encode(), b"9" * 5000, b"x" * 200_000, b"\0", b"1\t2", b"-", b"../../b"],
    ids=lambda damage: repr(damage[:8]),
)
def test_the_others_are_kept_where_one_is_damaged(record, damage):
    """That image is predicted again."""
    whole = record.path.read_bytes().splitlines(keepends=True)
    for column in range(4):
        cells = whole[2].split(b"\t")
        cells[column] = damage
        record.path.write_bytes(b"".join([*whole[:2], b"\t".join(cells), *whole[3:]]))
        found = record.read().values()
        assert [entry for entry in found if entry in ENTRIES] == [ENTRIES[0], *ENTRIES[2:]]
        assert all(Path(entry.image).name == entry.image for entry in found)
