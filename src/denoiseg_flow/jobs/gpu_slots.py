"""Choose the GPU of a job, and limit how many jobs share one.

Snakemake counts the jobs that use a GPU but does not say which GPU each should use: all jobs would
take the first. So every job takes a slot: one of ``jobs_per_gpu`` numbered places on a GPU.

A slot is the name of an abstract Linux socket. The kernel gives a name to only one process of the
machine at a time, across all users, and frees it when that process ends, however it ends. Lock
files would need a folder that all users share, with its permissions and stale files. On Windows,
which has no such names, a slot is a lock file in the temporary folder of the user.
"""

import ctypes
import errno
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import byte_locks

POLL_SECONDS = 1.0
# Environment variables of schedulers: the first that is set identifies the job.
SCHEDULER_JOBS = (
    "SLURM_JOB_ID",
    "PBS_JOBID",
    "LSB_JOBID",
    "JOB_ID",  # Grid Engine
    "OAR_JOB_ID",
    "FLUX_JOB_ID",
    "_CONDOR_SLOT",
    "AWS_BATCH_JOB_ID",
    "KUBERNETES_SERVICE_HOST",
)
LONGEST_NAME = 107  # bytes in the name of a socket
WSL = "/usr/lib/wsl/lib"  # folder of the driver in WSL2, not always on the search path
NVML = ("libnvidia-ml.so.1", f"{WSL}/libnvidia-ml.so.1")
SMI_SECONDS = 10.0  # a driver that does not answer has no GPU

logger = logging.getLogger(__name__)

# The slot of this process, until it ends.
_held: list[socket.socket | BinaryIO] = []


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """Return the GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES.

    As in CUDA, these are the entries of that variable up to the first invalid one: indices, and
    UUIDs of whole GPUs or of MIG partitions. Without the variable, all GPUs are returned.
    """
    # Schedulers deny access to the GPUs of other jobs; containers have fewer device files. CUDA
    # numbers the rest from 0, even if only /dev/nvidia3 is left.
    files = list(devices.glob("nvidia[0-9]*"))
    usable = sum(os.access(file, os.R_OK | os.W_OK) for file in files)
    numbers = [str(number) for number in range(usable if files else _known_to_driver(devices))]
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return numbers
    gpus: list[str] = []
    for entry in map(str.strip, listed.split(",")):
        is_name = re.fullmatch(r"(GPU|MIG)-\S+", entry)
        if not is_name and entry not in numbers:
            break
        gpus.append(entry)
    return gpus


def take_slot(jobs_per_gpu: int = 1) -> None:
    """Wait for a GPU with a free slot, make it the only visible one, and keep it until exit.

    Call this before CUDA is initialised, because CUDA reads CUDA_VISIBLE_DEVICES only once. Jobs
    take the first slots of all GPUs before the second slot of any. Nothing happens if no GPU is
    visible, or if a scheduler has already chosen a single GPU.

    A GPU is identified by its entry in CUDA_VISIBLE_DEVICES: if one job uses the index and another
    the UUID of the same GPU, both may take it. Other programs that use the GPU are ignored.

    Parameters
    ----------
    jobs_per_gpu
        How many processes may use a GPU at once.
    """
    gpus, allocation = visible_gpus(), _allocation()
    if _held or not gpus or (allocation and len(gpus) == 1):
        return
    gpu = _try_all(gpus, jobs_per_gpu, allocation)
    if gpu is None:
        logger.info(
            "waiting for a GPU: all slots of the visible GPUs (%s), %d each, are taken",
            ", ".join(gpus),
            jobs_per_gpu,
        )
    while gpu is None:
        time.sleep(POLL_SECONDS)
        gpu = _try_all(gpus, jobs_per_gpu, allocation)
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    logger.info("using GPU %s of %s", gpu, ", ".join(gpus))


def check_limit(limit: int | None, shares: Sequence[int | str]) -> None:
    """Reject a limit of concurrent GPU jobs above the number of slots on this machine.

    Without a GPU, jobs compute on the CPU and nothing is checked.

    Parameters
    ----------
    limit
        How many jobs with ``gpu=1`` Snakemake starts at once on this machine; None if unlimited.
    shares
        The ``jobs_per_gpu`` of every rule that sets it.

    Raises
    ------
    InputError
        If a share is not a positive integer, or the GPUs have fewer slots than the limit.
    """
    gpus = len(visible_gpus())
    if not gpus:
        return
    numbers = []
    for share in shares:
        if not isinstance(share, int) or share < 1:
            raise InputError(
                f"resource 'jobs_per_gpu' is {share}, not a positive integer; set it to 1 or more, "
                "or set the config key 'device' to 'cpu'"
            )
        numbers.append(share)
    share = max(numbers, default=1)
    if limit is not None and limit > gpus * share:
        raise InputError(
            f"--resources gpu={limit} exceeds the {gpus * share} slot(s) of {gpus} visible GPU(s) "
            f"with {share} job(s) each; lower it, or increase 'jobs_per_gpu' in "
            "profiles/default/profile.yaml"
        )


@cache  # an idle driver takes seconds to answer
def _known_to_driver(devices: Path) -> int:
    """Count GPUs without device files, as in WSL2, by asking the driver if there is one."""
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=WSL)
    if not program and not (devices / "dxg").exists():
        return 0
    for name in NVML:
        with suppress(OSError):
            return _known_to_nvml(ctypes.CDLL(name))
    return _known_to_smi(program) if program else 0


def _known_to_nvml(library: ctypes.CDLL) -> int:
    """Count GPUs with the library of the driver; its functions return 0 on success."""
    count = ctypes.c_uint()
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return 0
    library.nvmlShutdown()
    return count.value


def _known_to_smi(program: str) -> int:
    """Count GPUs with ``nvidia-smi``."""
    try:
        answer = subprocess.run([program, "--list-gpus"], capture_output=True, timeout=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return 0 if answer.returncode else len(re.findall(rb"^GPU \d+:", answer.stdout, re.MULTILINE))


def _allocation() -> str:
    """Return the id of the scheduler job that this process belongs to; empty without one."""
    return next((job for name in SCHEDULER_JOBS if (job := os.environ.get(name))), "")


def _try_all(gpus: list[str], jobs_per_gpu: int, allocation: str) -> str | None:
    """Take the first free slot; return its GPU, or None if there is none."""
    for slot in range(jobs_per_gpu):
        for gpu in gpus:
            if _try_slot(f"denoiseg_flow GPU {gpu} slot {slot} {allocation}"):
                return gpu
    return None


def _try_slot(name: str) -> bool:
    """Take a slot unless another process has it; return whether that worked.

    The name contains the allocation, because a scheduler may number the GPUs of each job from 0.
    """
    slot = _take_name(name) if sys.platform == "linux" else _take_file(name)
    if slot is not None:
        _held.append(slot)
    return slot is not None


def _take_name(name: str) -> socket.socket | None:
    if sys.platform == "win32":  # for type checkers
        raise AssertionError
    slot = socket.socket(socket.AF_UNIX)
    try:
        slot.bind(f"\0{name}".encode()[:LONGEST_NAME])
    except OSError as error:
        slot.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return slot


def _take_file(name: str) -> BinaryIO | None:
    file = re.sub(r"[^\w-]", "_", name) + ".lock"
    slot = open(Path(tempfile.gettempdir(), file), "ab")  # noqa: SIM115, until the process ends
    if not byte_locks.lock(slot.fileno(), 0):
        slot.close()
        return None
    return slot


def _leave_to_parent() -> None:
    """Close the slot in a forked child, which would otherwise keep it when its parent ends."""
    for slot in _held:
        slot.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_to_parent)
