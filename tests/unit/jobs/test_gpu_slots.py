"""One GPU for each job: invented GPUs, real processes."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from select import select

import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import gpu_slots
from denoiseg_flow.jobs.gpu_slots import SCHEDULER_JOBS, check_limit, visible_gpus

linux = pytest.mark.skipif(sys.platform != "linux", reason="slots are names of Linux")

# Takes a slot, tells which and when, keeps it until it is told to end, and tells when it did.
WORKER = """
import json, logging, os, sys, time, types
from denoiseg_flow.jobs import gpu_slots

def tell(what):
    line = json.dumps({"what": what, "pid": os.getpid(), "time": time.monotonic_ns()})
    os.write(1, f"{line}\\n".encode())

class Tell(logging.Handler):
    def emit(self, record):
        if "waiting" in record.getMessage():
            tell("waiting")

logging.basicConfig(level=logging.INFO, handlers=[Tell()])
gpu_slots.POLL_SECONDS = 0.01
if sys.argv[4] == "files":
    gpu_slots.sys = types.SimpleNamespace(platform="win32")
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

    def __init__(self, jobs_per_gpu=1, calls=1, then="", slots="names"):
        arguments = map(str, (jobs_per_gpu, calls, then, slots))
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


def test_slots_without_names_of_linux(monkeypatch, tmp_path, gpus, start):
    """They are lock files, also of allocations whose name has other characters."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpus[:2]))
    monkeypatch.setenv("LSB_JOBID", "41[2]:x/y")
    workers = [start(jobs_per_gpu=2, calls=2, slots="files") for _ in range(4)]
    assert sorted(worker.says() for worker in workers) == sorted(gpus[:2] * 2)
    late = start(jobs_per_gpu=2, slots="files")
    assert late.says() == "waiting"
    workers[1].kill()
    assert late.says() in gpus[:2]


@linux
@pytest.mark.parametrize("jobs", [2, 4])
def test_several_jobs_on_the_one_gpu(monkeypatch, gpus, start, jobs):
    """As many at once as ``jobs_per_gpu`` says; the next begins when one of them ends."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus[0])
    workers = [start(jobs_per_gpu=jobs) for _ in range(jobs)]
    assert [worker.says() for worker in workers] == [gpus[0]] * jobs
    late = start(jobs_per_gpu=jobs)
    assert late.says() == "waiting"
    ended = workers[-1].end()
    begun = late.line()
    assert begun["what"] == gpus[0]
    assert begun["time"] > ended["time"]


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
def no_driver(monkeypatch, tmp_path):
    """Nothing of NVIDIA's is found, whatever this machine has; returns what ``PATH`` names."""
    gpu_slots._known_to_driver.cache_clear()
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}")
    monkeypatch.setattr(gpu_slots, "WSL", f"{tmp_path}/wsl")
    monkeypatch.setattr(gpu_slots, "NVML", (f"{tmp_path}/absent.so", f"{tmp_path}/nvml.so"))
    yield programs
    gpu_slots._known_to_driver.cache_clear()


@pytest.fixture
def devices(no_driver, tmp_path):
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


# A library like that of NVIDIA's driver, whose functions return 0 where they succeed.
NVML = """
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = COUNT; return FAILED; }
int nvmlShutdown(void) { return 0; }
"""
needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="compiles a library")


@pytest.fixture
def dev(no_driver, tmp_path):
    """A folder like /dev of WSL2: the GPUs have no files of their own."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/dxg").touch()
    return tmp_path / "dev"


@pytest.fixture
def smi():
    """Return a function that writes a program like NVIDIA's, which records that it was called."""

    def write(folder, script):
        folder.mkdir(exist_ok=True)
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho $1 > {folder}/called\n{script}\n")
        program.chmod(0o755)
        return folder / "called"

    return write


@pytest.fixture
def nvml(tmp_path):
    """Return a function that makes a library like NVIDIA's."""
    compiler = shutil.which("cc")

    def build(**values):
        (tmp_path / "nvml.c").write_text(NVML)
        options = [f"-D{name}={value}" for name, value in values.items()]
        command = [compiler, "-shared", "-fPIC", *options, "-o", "nvml.so", "nvml.c"]
        subprocess.run(command, cwd=tmp_path, check=True, env={"PATH": os.path.dirname(compiler)})

    return build


@needs_compiler
@pytest.mark.parametrize(
    ("init", "failed", "count", "expected"),
    [(0, 0, 2, ["0", "1"]), (0, 0, 0, []), (9, 0, 2, []), (0, 999, 2, [])],
)
def test_gpus_that_only_the_driver_knows(nvml, smi, dev, no_driver, init, failed, count, expected):
    """Its library is asked, and its program not as well."""
    nvml(INIT=init, FAILED=failed, COUNT=count)
    called = smi(no_driver, "echo 'GPU 0: A'; echo 'GPU 1: B'; echo 'GPU 2: C'")
    assert visible_gpus(dev) == expected
    assert not called.exists()


LISTED = """
echo 'GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)'
echo '  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)'
echo 'GPU 1: NVIDIA GeForce RTX 3090 (UUID: GPU-8932f937-d72c-4106-c12f-20bd9faed9f6)'
"""
BROKEN = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that "
    "the latest NVIDIA driver is installed and running."
)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (LISTED, ["0", "1"]),
        ("echo 'No devices were found'", []),
        (f'echo "{BROKEN}"; exit 9', []),
        ("echo 'GPU 0: A'; exit 255", []),
        ("printf '\\377GPU 0: A\\n'", []),
        ("exec sleep 60", []),
    ],
)
@pytest.mark.parametrize("place", ["programs", "wsl"])
def test_gpus_that_the_program_of_the_driver_lists(
    smi, dev, tmp_path, monkeypatch, script, expected, place
):
    """Where its library is not found; one that is broken or hangs knows none."""
    monkeypatch.setattr(gpu_slots, "SMI_SECONDS", 1.0 if "sleep" in script else 60.0)
    called = smi(tmp_path / place, f"PATH=/usr/bin:/bin\n{script}")
    assert visible_gpus(dev) == expected
    assert called.read_text() == "--list-gpus\n"


def test_the_driver_is_asked_once(smi, dev, no_driver):
    called = smi(no_driver, LISTED)
    assert visible_gpus(dev) == ["0", "1"]
    called.unlink()
    assert visible_gpus(dev) == ["0", "1"]
    assert not called.exists()


def test_environment_chooses_among_those_that_the_driver_knows(smi, dev, no_driver, monkeypatch):
    smi(no_driver, LISTED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2,0")  # there is no GPU 2
    assert visible_gpus(dev) == ["1"]


def test_program_that_cannot_be_run(dev, no_driver):
    (no_driver / "nvidia-smi").write_text("not a program")
    (no_driver / "nvidia-smi").chmod(0o755)
    assert visible_gpus(dev) == []


def test_files_are_enough(devices, smi, no_driver):
    """Nothing is asked that takes time; nor is it where all GPUs belong to other jobs."""
    called = smi(no_driver, LISTED)
    assert visible_gpus(devices) == ["0", "1"]
    assert not called.exists()


def test_gpus_of_others_are_not_asked_for(devices, smi, no_driver, monkeypatch):
    called = smi(no_driver, LISTED)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert visible_gpus(devices) == []
    assert not called.exists()


@needs_compiler
def test_library_alone_is_no_hint(nvml, no_driver, tmp_path):
    """Machines without a GPU may have it too, and nothing is loaded there."""
    nvml(INIT=0, FAILED=0, COUNT=2)
    assert visible_gpus(tmp_path / "nowhere") == []


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
        f"--resources gpu={limit} exceeds the {room} slot(s) of 4 visible GPU(s) with {share} "
        "job(s) each; lower it, or increase 'jobs_per_gpu' in profiles/default/profile.yaml"
    )


@pytest.mark.parametrize("share", [0, "attempt"])
def test_share_that_is_no_number_of_jobs(gpus, share):
    with pytest.raises(InputError, match=f"'jobs_per_gpu' is {share}, not a positive integer"):
        check_limit(None, [1, share])


def test_limit_without_a_gpu(monkeypatch):
    """Jobs compute on the CPU: as before, it is only a number."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_limit(8, [])
