"""What a training says of itself."""

import io
import logging
import re
import sys
from types import ModuleType

import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.training import progress
from denoiseg_flow.training.progress import Progress, last_reported


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def recipe(make_recipe):
    return make_recipe(epochs=4, steps_per_epoch=10, batch_size=8)


@pytest.mark.parametrize("network, others", [(1, 0), (1, 2), (2, 1), (3, 0)])
def test_log(clock, caplog, recipe, network, others):
    """The remaining time includes the networks that follow."""
    caplog.set_level(logging.INFO)
    networks = network + others
    shown = Progress("blobs", recipe, 10, network, networks)
    for _ in range(10):
        clock[0] += 0.5
        shown.advance()
    shown.report({"step": 20, "loss": 0.25, "val_loss": 0.5})
    clock[0] += 5
    for _ in range(20):
        shown.advance()
    shown.close()
    several = f"network {network} of {networks}, " if networks > 1 else ""
    left = 10 + others * 20
    assert caplog.messages == [
        f"{several}epoch 2 of 4, step 20 of 40, loss 0.2500, validation 0.5000, 16 patches/s, "
        f"{left} s left",
        "30 steps in 10 s",
    ]
    log = "\n".join(["12:00:00 INFO earlier", *(f"12:00:00 INFO {one}" for one in caplog.messages)])
    assert last_reported(log) == (f"{several}epoch 2 of 4", left)


def test_without_an_epoch_nothing_is_reported():
    assert last_reported("") is None
    assert last_reported("12:00:00 INFO computing on cpu\n") is None


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_is_drawn_for_a_terminal_only(monkeypatch, make_recipe, terminal):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(progress.sys, "stderr", screen)
    shown = Progress("blobs n20", make_recipe(epochs=2, steps_per_epoch=1), done=1)
    shown.advance()
    shown.close()
    assert bool(re.search(r"blobs n20: .*1/2", screen.getvalue())) == terminal


def test_events_continue_after_the_last_checkpoint(tmp_path, recipe):
    """What an interrupted training wrote after it is void, and is written again."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for done, value in ((0, 1.0), (20, 2.0)):
        shown = Progress("blobs", recipe, done, events=tmp_path)
        for step in range(done, 40):
            shown.advance()
            if (step + 1) % 10 == 0:
                shown.report({"step": step + 1, "loss": value, "val_loss": value, "rate": 0.5})
        shown.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "val_loss", "rate"}
    assert [(each.step, each.value) for each in events.Scalars("loss")] == [
        (10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0)
    ]  # fmt: skip


def test_events_need_tensorboard(tmp_path, monkeypatch, recipe):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="'tensorboard' is true, but TensorBoard is not installed"):
        Progress("blobs", recipe, 0, events=tmp_path / "events")
    assert not (tmp_path / "events").exists()
    Progress("blobs", recipe, 0).close()


def test_events_are_the_columns_of_the_history(tmp_path, monkeypatch, recipe):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, *scalar):
            written.append(scalar)

        def flush(self):
            pass

    fake = ModuleType("tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    shown = Progress("blobs", recipe, 19, events=tmp_path)
    shown.advance()
    shown.report({"step": 20, "loss": 0.25, "val_loss": 0.5, "learning_rate": 1e-3})
    assert written == [
        (str(tmp_path), 20), ("loss", 0.25, 20), ("val_loss", 0.5, 20), ("learning_rate", 1e-3, 20)
    ]  # fmt: skip
