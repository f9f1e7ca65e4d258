"""The lock of a job: one process at a time, freed however that one ends."""

import errno
import logging
import signal
import subprocess
import sys
import threading

import pytest

from denoiseg_flow.jobs import byte_locks
from denoiseg_flow.jobs import lock as jobs_lock
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
with sole_process(Path(sys.argv[1]), bool(sys.argv[2])) as lock:
    print("mine", lock.predecessor)
    sys.stdin.readline()
    print("awaited" if lock.awaited() else "alone")
"""
# Adds one to a number in a file, many times, each time under the lock.
COUNTER = """
import sys, time
from pathlib import Path
from denoiseg_flow.jobs.lock import sole_process
lock, number = map(Path, sys.argv[1:3])
for _ in range(int(sys.argv[3])):
    with sole_process(lock):
        value = int(number.read_text())
        time.sleep(0)
        number.write_text(str(value + 1))
"""


class Holder:
    """Another process that holds the lock, or waits for it."""

    def __init__(self, path, env=None, shared=False):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), "shared" if shared else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.log.lock"


@pytest.fixture(params=["here", "on Windows"])
def env(request, windows):
    """The environment of other processes."""
    return windows if request.param == "on Windows" else None


@pytest.fixture
def start(path, env):
    started = []

    def start(**options):
        started.append(Holder(path, env, **options))
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


@pytest.mark.parametrize("env", [None])  # this process asks, and is not on Windows
def test_who_holds_a_lock_is_told_without_taking_it(path, start):
    assert jobs_lock.holder(path) is None
    first = start()
    assert first.line() == "mine"
    assert jobs_lock.holder(path).startswith(f"process {first.process.pid} on ")
    first.process.kill()
    first.process.wait()
    assert path.exists() and jobs_lock.holder(path) is None
    path.write_text("process 7 on elsewhere")
    assert jobs_lock.holder(path) == "process 7 on elsewhere"
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


def test_shared_lock_is_held_by_several_or_by_one_alone(path, start):
    first, second = start(shared=True), start(shared=True)
    assert first.line() == second.line() == "mine"
    alone = start()
    assert "is already running this job" in alone.line()
    first.go_on()
    assert first.line() == "awaited"
    assert first.process.wait() == 0
    assert path.exists()
    second.go_on()
    assert second.line() == "awaited"
    assert alone.line().startswith("mine process ")
    late = start(shared=True)
    assert "is already running this job" in late.line()
    alone.go_on()
    assert late.line().startswith("mine process ")
    late.go_on()
    assert late.process.wait() == second.process.wait() == alone.process.wait() == 0
    assert not path.exists()


def test_never_two_at_once(path, env, tmp_path):
    """The file comes and goes, and the lock with it: no addition is lost all the same."""
    number = tmp_path / "number"
    number.write_text("0")
    times = 10 if env else 100  # a simulated Windows looks at all processes each time
    counters = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTER, str(path), str(number), str(times)],
            stderr=subprocess.DEVNULL,
            env=env,
        )
        for _ in range(4)
    ]
    assert [counter.wait(timeout=120) for counter in counters] == [0, 0, 0, 0]
    assert number.read_text() == str(4 * times)


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

    monkeypatch.setattr(byte_locks, "_lock", fail)
    with caplog.at_level(logging.WARNING), sole_process(path):
        pass
    assert "does not support locks (No locks available)" in caplog.text
    assert not path.exists()


def test_other_errors_are_not_hidden(path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(byte_locks, "_lock", fail)
    with pytest.raises(OSError, match="Input/output"), sole_process(path):
        pass


def test_cluster_jobs_say_which_they_are(path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with sole_process(path):
        assert path.read_text().endswith("SLURM job 4711")
