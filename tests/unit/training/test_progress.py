"""What a training says of itself."""

import io
import logging
import re

import pytest

from denoiseg_flow.training import progress
from denoiseg_flow.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_log(clock, caplog):
    caplog.set_level(logging.INFO)
    shown = Progress("blobs", steps=40, done=10, batch_size=8)
    for _ in range(10):
        clock[0] += 0.5
        shown.advance()
    shown.report(0.25, 0.5)
    clock[0] += 5
    for _ in range(20):
        shown.advance()
    shown.close()
    assert caplog.messages == [
        "step 20 of 40, loss 0.2500, validation 0.5000, 16 patches/s, 10 s left",
        "30 steps in 10 s",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_is_drawn_for_a_terminal_only(monkeypatch, terminal):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(progress.sys, "stderr", screen)
    shown = Progress("blobs n20", steps=2, done=1, batch_size=8)
    shown.advance()
    shown.close()
    assert bool(re.search(r"blobs n20: .*1/2", screen.getvalue())) == terminal
