"""Parts of the run that is prepared for a GPU; tests/workflow rehearses the whole on the CPU."""

import json
import subprocess
import sys

import pandas as pd
import pytest


@pytest.fixture
def load(root, monkeypatch):
    """Import a module of the run, whose files find each other in their own folder."""
    known = set(sys.modules)
    for folder in ("workers", "gpu"):
        monkeypatch.syspath_prepend(root / "benchmarks" / folder)
    yield __import__
    for name in set(sys.modules) - known:
        if str(root / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_without_a_pack_it_says_how_to_make_one(root, tmp_path):
    script = root / "benchmarks" / "gpu" / "run.py"
    command = [sys.executable, script, "--device", "cpu", "--pack", tmp_path, "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (f"there is no pack in {tmp_path}; make it with benchmarks/gpu/pack.sh\n")


def test_a_phase_notes_what_fails_and_goes_on(load, tmp_path, capsys):
    phase = load("phase").Phase("some", tmp_path, seconds=60)
    phase.do("good", lambda value: {"value": value}, 1.23456)
    phase.do("wrong", lambda: {"ok": False, "value": 2})
    phase.do("broken", lambda: 1 / 0)
    phase.do("long", lambda: {}, needs=61)
    rows = json.loads((tmp_path / "some.json").read_text())
    assert [row["status"] for row in rows] == ["ok", "FAILED", "error", "no time"]
    assert rows[0]["value"] == 1.23456 and rows[1]["value"] == 2
    assert rows[2]["error"] == "ZeroDivisionError: division by zero"
    assert "some: good: status ok, value 1.23" in capsys.readouterr().out


def test_differences_are_paired_by_draw(load):
    """Two draws: 0.3 and 0.1 ahead, so 0.2 with a standard error of 0.1."""
    values = {"denoiseg": [0.8, 0.5], "baseline": [0.5, 0.4]}
    scores = pd.DataFrame(
        [
            {"noise": "n20", "n_annotated": 2, "seed": seed, "method": method, "AP": ap, "SEG": ap}
            for method, both in values.items()
            for seed, ap in enumerate(both)
        ]
    )
    rows = load("good").differences(scores)
    assert [(row["pair"], row["metric"]) for row in rows] == [
        ("denoiseg - baseline", "AP"),
        ("denoiseg - baseline", "SEG"),
    ]
    assert rows[0]["mean"] == pytest.approx(0.2)
    assert rows[0]["standard_error"] == pytest.approx(0.1)
    assert rows[0]["draws"] == 2 and not rows[0]["leads_by_two"]


def test_goals_beside_what_was_measured(load):
    """1,600 steps of 2 ms, and nothing of what the phases had no time for."""
    step = {"item": "2x16, batch 16, bf16, replayed, channels last", "ms_per_step": 2.0}
    checks = [{"item": "a", "status": "ok"}, {"item": "b", "status": "FAILED"}]
    goals = dict(load("session").goals({"correct": checks, "fast": [step]}))
    assert goals["1600 steps of 'fast' in 10 s"] == "3.2 s"
    assert goals["80000 steps of 'paper' in 40 minutes"] == "not measured"
    assert goals["all checks passed"] == "1 of 2"
    assert goals["joint training leads by two standard errors"] == "not measured"
