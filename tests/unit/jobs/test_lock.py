"""The lock of a job: one process at a time, freed however that one ends."""

import errno
import fcntl
import logging
import signal
import subprocess
import sys
import threading

import pytest

from denoiseg_flow.jobs import lock
from denoiseg_flow.jobs.lock import sole_process
from denoiseg_flow.models import tensor_file
from denoiseg_flow.study.provenance import record_study
from denoiseg_flow.training.checkpoints import Checkpoints

# Tells when it has the lock, and holds it until it is told to go on.
HOLDER = """
import logging, sys
from pathlib import Path
from denoiseg_flow.jobs.lock import sole_process
logging.basicConfig(stream=sys.stdout, format="%(message)s")
sys.stdout.reconfigure(line_buffering=True)
with sole_process(Path(sys.argv[1])) as lock:
    print("mine", lock.predecessor)
    sys.stdin.readline()
    print("awaited" if lock.awaited() else "alone")
"""
# Adds one to a number in a file, many times, each time under the lock.
COUNTER = """
import sys, time
from pathlib import Path
from denoiseg_flow.jobs.lock import sole_process
lock, number = map(Path, sys.argv[1:])
for _ in range(100):
    with sole_process(lock):
        value = int(number.read_text())
        time.sleep(0)
        number.write_text(str(value + 1))
"""


class Holder:
    """Another process that holds the lock, or waits for it."""

    def __init__(self, path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.log.lock"


@pytest.fixture
def start(path):
    started = []

    def start():
        started.append(Holder(path))
        return started[-1]

    yield start
    for holder in started:
        holder.process.kill()
        holder.process.communicate()


def test_nothing_is_left(path):
    with sole_process(path) as lock:
        assert path.exists()
        assert not lock.awaited()
    assert not path.exists()


def test_second_process_waits_and_says_for_whom(path, start):
    first = start()
    assert first.line() == "mine"
    second = start()
    said = second.line()
    assert f"process {first.process.pid} on " in said
    assert str(path) in said
    first.go_on()
    assert first.line() == "awaited"
    assert second.line().startswith(f"mine process {first.process.pid} on ")
    second.go_on()
    assert second.line() == "alone"
    assert second.process.wait() == first.process.wait() == 0
    assert not path.exists()


def test_killed_holder_frees_the_lock(path, start):
    first = start()
    assert first.line() == "mine"
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert path.exists()
    second = start()
    assert second.line() == "mine"
    second.go_on()
    second.process.wait()
    assert not path.exists()


def test_who_holds_a_lock_is_told_without_taking_it(path, start):
    assert lock.holder(path) is None
    first = start()
    assert first.line() == "mine"
    assert lock.holder(path).startswith(f"process {first.process.pid} on ")
    first.process.kill()
    first.process.wait()
    assert path.exists() and lock.holder(path) is None
    path.write_text("process 7 on elsewhere")
    assert lock.holder(path) == "process 7 on elsewhere"
    second = start()
    assert second.line() == "mine", "nobody waits for whoever asked"


def test_killed_waiter_is_not_waited_for(path, start):
    first, second = start(), None
    assert first.line() == "mine"
    second = start()
    assert "is already running this job" in second.line()
    second.process.kill()
    second.process.wait()
    first.go_on()
    assert first.line() == "alone"


def test_never_two_at_once(path, tmp_path):
    """The file comes and goes, and the lock with it: no addition is lost all the same."""
    number = tmp_path / "number"
    number.write_text("0")
    counters = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTER, str(path), str(number)], stderr=subprocess.DEVNULL
        )
        for _ in range(4)
    ]
    assert [counter.wait(timeout=120) for counter in counters] == [0, 0, 0, 0]
    assert number.read_text() == "400"


@pytest.mark.parametrize(
    ("name", "write"),
    [
        (".model.pt.lock", lambda folder: tensor_file.save({"step": 1}, folder / "model.pt")),
        (".model.pt.lock", lambda folder: Checkpoints(folder / "model.pt", 1).remove()),
        (".study.json.lock", lambda folder: record_study(folder, {}, {}, {})),
    ],
)
def test_what_others_have_not_finished_is_not_touched(tmp_path, name, write):
    """Neither written over nor removed while they are at it."""
    holder = Holder(tmp_path / name)
    assert holder.line() == "mine"
    partial = tmp_path / name.replace(".lock", ".partial")
    partial.write_text("half")
    thread = threading.Thread(target=write, args=[tmp_path])
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and partial.read_text() == "half"
    holder.go_on()
    thread.join()
    holder.process.communicate()
    assert not partial.exists() and not (tmp_path / name).exists()


def test_file_systems_without_locks(path, monkeypatch, caplog):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", fail)
    with caplog.at_level(logging.WARNING), sole_process(path):
        pass
    assert "does not support locks (No locks available)" in caplog.text
    assert not path.exists()


def test_other_errors_are_not_hidden(path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "lockf", fail)
    with pytest.raises(OSError, match="Input/output"), sole_process(path):
        pass


def test_cluster_jobs_say_which_they_are(path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with sole_process(path):
        assert path.read_text().endswith("SLURM job 4711")
