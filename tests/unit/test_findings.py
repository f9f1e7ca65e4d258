"""Findings: in order, in the log, and on disk."""

import logging

from denoiseg_flow import findings
from denoiseg_flow.findings import Finding

FOUND = [
    Finding("note", "size", "Two images."),
    Finding("problem", "leak", "A “twin”.\nIt's bad.", ("a b", "ü,c")),
    Finding("warning", "dark", "Dark."),
]


def test_problems_first():
    ordered = findings.in_order(FOUND)
    assert [each.severity for each in ordered] == ["problem", "warning", "note"]
    assert findings.worst(ordered) == ordered[:2]


def test_round_trip(tmp_path):
    for found in (FOUND, []):
        findings.write(found, tmp_path / "found.json")
        assert findings.read(tmp_path / "found.json") == found


def test_warnings_are_warnings(caplog):
    with caplog.at_level(logging.INFO):
        findings.log(FOUND, "cells")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]
    assert caplog.messages[0] == "cells: Two images."
