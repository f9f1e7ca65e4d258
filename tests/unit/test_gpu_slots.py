"""One GPU for each job: invented GPUs, real processes."""

import json
import os
import subprocess
import sys
import uuid
from select import select

import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.gpu_slots import SCHEDULER_JOBS, check_limit, visible_gpus

linux = pytest.mark.skipif(sys.platform != "linux", reason="slots are names of Linux")

# Takes a slot, tells which and when, keeps it until it is told to end, and tells when it did.
WORKER = """
import json, logging, os, sys, time
from denoiseg_flow import gpu_slots

def tell(what):
    line = json.dumps({"what": what, "pid": os.getpid(), "time": time.monotonic_ns()})
    os.write(1, f"{line}\\n".encode())

class Tell(logging.Handler):
    def emit(self, record):
        if "waiting" in record.getMessage():
            tell("waiting")

logging.basicConfig(level=logging.INFO, handlers=[Tell()])
gpu_slots.POLL_SECONDS = 0.01
for _ in range(int(sys.argv[2])):
    gpu_slots.take_slot(int(sys.argv[1]))
if sys.argv[3] == "fork" and not os.fork():
    tell("child")
    sys.stdin.readline()
    os._exit(0)
tell(os.environ.get("CUDA_VISIBLE_DEVICES"))
sys.stdin.readline()
tell("end")
"""


@pytest.fixture(autouse=True)
def no_slot(monkeypatch):
    """Instead of the one that hides GPUs: no scheduler, no choice of GPUs."""
    for name in ("CUDA_VISIBLE_DEVICES", *SCHEDULER_JOBS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gpus(monkeypatch):
    """Four visible GPUs that no other process of this machine knows of."""
    names = [f"GPU-{uuid.uuid4()}" for _ in range(4)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(names))
    return names


class Worker:
    """A process that takes a slot."""

    def __init__(self, jobs_per_gpu=1, calls=1, then=""):
        arguments = map(str, (jobs_per_gpu, calls, then))
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def line(self):
        """Wait for what it says next."""
        return json.loads(self.process.stdout.readline())

    def says(self):
        return self.line()["what"]

    def end(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.line()

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start():
    """Start a worker; none outlives the test."""
    workers = []

    def start_worker(*arguments, **options):
        workers.append(Worker(*arguments, **options))
        return workers[-1]

    yield start_worker
    for worker in workers:
        worker.kill()
        worker.process.stdin.close()
        worker.process.stdout.close()


@linux
def test_eight_jobs_on_four_gpus(gpus, start):
    """Never two on one; as soon as one ends, one of those that wait has its GPU."""
    running, waiting = {}, {}
    for worker in [start() for _ in range(8)]:
        if (said := worker.says()) == "waiting":
            waiting[worker.process.stdout] = worker
        else:
            assert said not in running
            running[said] = worker
    assert sorted(running) == sorted(gpus) and len(waiting) == 4
    for gpu, worker in running.items():
        ended = worker.end()
        (ready,), _, _ = select(waiting, [], [])
        begun = waiting.pop(ready).line()
        assert begun["what"] == gpu
        assert begun["time"] > ended["time"]


@linux
@pytest.mark.parametrize("jobs", [5, 8])
def test_two_share_a_gpu_only_if_allowed_and_needed(gpus, start, jobs):
    """The first slots of all GPUs are taken before the second of any."""
    workers = []
    for _ in range(jobs):
        workers.append(start(jobs_per_gpu=2))
        workers[-1].gpu = workers[-1].says()
    assert [worker.gpu for worker in workers] == (gpus + gpus)[:jobs]
    others = [start(jobs_per_gpu=2) for _ in range(9 - jobs)]
    assert sorted(other.says() for other in others) == sorted([*gpus[jobs - 4 :], "waiting"])


@linux
@pytest.mark.parametrize("then", ["", "fork"])
def test_slot_of_a_killed_process_is_free_at_once(monkeypatch, gpus, start, then):
    """SIGKILL leaves it no time to tidy up, and a child of it may run on."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus[0])
    holder = start(then=then)
    said = {(line := holder.line())["what"]: line["pid"] for _ in range(2 if then else 1)}
    assert set(said) == {gpus[0], *(["child"] if then else [])}
    holder.kill()
    assert start().says() == gpus[0]  # and not "waiting" first
    if then:
        os.kill(said["child"], 0)  # it still runs


@linux
def test_second_call_keeps_the_slot(monkeypatch, gpus, start):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus[0])
    assert start(calls=2).says() == gpus[0]


@linux
@pytest.mark.parametrize("job", SCHEDULER_JOBS)
def test_stands_aside_where_a_scheduler_chose_the_gpu(monkeypatch, gpus, start, job):
    monkeypatch.setenv(job, "42")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus[0])
    assert [start().says() for _ in range(2)] == [gpus[0]] * 2


@linux
def test_allocation_of_several_gpus_is_shared_out(monkeypatch, gpus, start):
    """Another allocation counts its own from 0 as well, and they are others."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpus[:2]))
    said = {}
    for allocation in ("41", "42", "4" * 200):
        monkeypatch.setenv("SLURM_JOB_ID", allocation)
        said[allocation] = [start().says() for _ in range(3)]
    assert set(map(tuple, said.values())) == {(*gpus[:2], "waiting")}


@linux
@pytest.mark.parametrize("listed", ["", "-1", "NoDevFiles"])
def test_stands_aside_without_a_gpu(monkeypatch, start, listed):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert [start().says() for _ in range(2)] == [listed] * 2


@pytest.fixture
def devices(tmp_path):
    """A folder like /dev, with two GPUs and other files."""
    for name in ("nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    return tmp_path


def test_gpus_of_the_machine(devices):
    """Counted as CUDA does, whatever their files are called."""
    assert visible_gpus(devices) == ["0", "1"]
    assert visible_gpus(devices / "nowhere") == []


def test_gpus_that_a_scheduler_gave_to_others(devices, monkeypatch):
    """Their files are there as well, and cannot be opened."""
    monkeypatch.setattr(os, "access", lambda path, mode: path.name == "nvidia3")
    assert visible_gpus(devices) == ["0"]


@pytest.mark.parametrize(
    "listed, expected",
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", ["1"]),
        (" 1, 0 ", ["1", "0"]),
        ("0,-1,1", ["0"]),
        ("1,3,0", ["1"]),  # there is no GPU 3
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"]),
        ("MIG-a,MIG-GPU-b/1/0", ["MIG-a", "MIG-GPU-b/1/0"]),
    ],
)
def test_gpus_that_the_environment_lists(devices, monkeypatch, listed, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus(devices) == expected


def test_limit_that_has_room(gpus):
    check_limit(None, [])
    check_limit(4, [])
    check_limit(8, [2, 1])


@pytest.mark.parametrize("limit, shares, share, room", [(8, [], 1, 4), (9, [1, 2], 2, 8)])
def test_limit_above_the_slots(gpus, limit, shares, share, room):
    with pytest.raises(InputError) as caught:
        check_limit(limit, shares)
    assert str(caught.value) == (
        f"the limit 'gpu' of --resources is {limit}, but 4 visible GPU(s) with {share} job(s) each "
        f"have room for {room}; lower it, or let more jobs share a GPU by 'jobs_per_gpu' in "
        "profiles/default/profile.yaml"
    )


@pytest.mark.parametrize("share", [0, "attempt"])
def test_share_that_is_no_number_of_jobs(gpus, share):
    with pytest.raises(InputError, match=f"'jobs_per_gpu' is {share}; write a number, 1 or more"):
        check_limit(None, [1, share])


def test_limit_without_a_gpu(monkeypatch):
    """Jobs compute on the CPU: as before, it is only a number."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_limit(8, [])
