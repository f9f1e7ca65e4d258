"""Which GPU of a machine a job computes on.

Snakemake counts the jobs that use a GPU, but tells none of them which one, and all of them would
take the first. So every job takes a slot: one of the ``jobs_per_gpu`` numbered places of a GPU.

A slot is a name among Linux's abstract sockets, which the kernel lets one process of the machine
have at a time, whoever's it is, and frees when that process ends, however it ends. Locked files
would do the same in a folder that all users share, whose permissions and leftovers were to be
looked after.
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
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from denoiseg_flow.errors import InputError

POLL_SECONDS = 1.0
# What the jobs of schedulers find in their environment: the first that is set tells the job.
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
LONGEST_NAME = 107  # bytes, of a socket
WSL = "/usr/lib/wsl/lib"  # the driver in WSL2, whose folder not every environment searches
NVML = ("libnvidia-ml.so.1", f"{WSL}/libnvidia-ml.so.1")
SMI_SECONDS = 10.0  # a driver that does not answer has no GPU

logger = logging.getLogger(__name__)

# The slot of this process, until it ends.
_held: list[socket.socket] = []


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """Return the GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it.

    These are the entries of that variable up to the first that names no GPU, as CUDA reads it:
    numbers, and names of whole GPUs or of parts (MIG). Without the variable, they are all.
    """
    # Schedulers deny access to those of others; containers have fewer files. CUDA counts the rest
    # from 0, also if it is /dev/nvidia3 alone.
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
    """Wait for a GPU with a free slot, make it the only visible one, and keep it to the end.

    To be called before CUDA is initialised, which reads CUDA_VISIBLE_DEVICES once. The first slots
    of all GPUs are taken before the second of any. Nothing happens where no GPU is visible, and
    where a scheduler chose the one that is.

    GPUs are told apart by what CUDA_VISIBLE_DEVICES calls them: where one job knows a GPU by its
    number and another by its name, both may take it. Programs other than this one are not seen.

    Parameters
    ----------
    jobs_per_gpu
        How many processes may use a GPU at once.
    """
    gpus, allocation = visible_gpus(), _allocation()
    if _held or not gpus or (allocation and len(gpus) == 1) or sys.platform != "linux":
        return
    gpu = _try_all(gpus, jobs_per_gpu, allocation)
    if gpu is None:
        logger.info(
            "waiting for a GPU: the slots of all visible ones (%s), %d each, are taken",
            ", ".join(gpus),
            jobs_per_gpu,
        )
    while gpu is None:
        time.sleep(POLL_SECONDS)
        gpu = _try_all(gpus, jobs_per_gpu, allocation)
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    logger.info("using GPU %s of %s", gpu, ", ".join(gpus))


def check_limit(limit: int | None, shares: Sequence[int | str]) -> None:
    """Refuse more jobs at once than the GPUs of this machine have slots.

    Without a GPU, jobs compute on the CPU, and the limit is only a number.

    Parameters
    ----------
    limit
        How many jobs with ``gpu=1`` Snakemake starts at once here; as many as it likes if None.
    shares
        The ``jobs_per_gpu`` of each rule that has one.

    Raises
    ------
    InputError
        If a share is no number above 0, or the GPUs have fewer slots than the limit.
    """
    gpus = len(visible_gpus())
    if not gpus:
        return
    numbers = []
    for share in shares:
        if not isinstance(share, int) or share < 1:
            raise InputError(
                f"resource 'jobs_per_gpu' is {share}; write a number, 1 or more, or choose the CPU "
                "by the config key 'device'"
            )
        numbers.append(share)
    share = max(numbers, default=1)
    if limit is not None and limit > gpus * share:
        raise InputError(
            f"the limit 'gpu' of --resources is {limit}, but {gpus} visible GPU(s) with {share} "
            f"job(s) each have room for {gpus * share}; lower it, or let more jobs share a GPU by "
            "'jobs_per_gpu' in profiles/default/profile.yaml"
        )


@cache  # a driver that sleeps takes seconds to answer
def _known_to_driver(devices: Path) -> int:
    """Count the GPUs that have no files, as in WSL2; asked only where there is a driver."""
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=WSL)
    if not program and not (devices / "dxg").exists():
        return 0
    for name in NVML:
        with suppress(OSError):
            return _known_to_nvml(ctypes.CDLL(name))
    return _known_to_smi(program) if program else 0


def _known_to_nvml(library: ctypes.CDLL) -> int:
    """Count GPUs by the library of the driver; its functions return 0 where they succeed."""
    count = ctypes.c_uint()
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return 0
    library.nvmlShutdown()
    return count.value


def _known_to_smi(program: str) -> int:
    """Count GPUs by the program of the driver."""
    try:
        answer = subprocess.run([program, "--list-gpus"], capture_output=True, timeout=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return 0 if answer.returncode else len(re.findall(rb"^GPU \d+:", answer.stdout, re.MULTILINE))


def _allocation() -> str:
    """Return the job of a scheduler that this process is part of, or nothing."""
    return next((job for name in SCHEDULER_JOBS if (job := os.environ.get(name))), "")


def _try_all(gpus: list[str], jobs_per_gpu: int, allocation: str) -> str | None:
    """Take the first free slot; return its GPU, or None if there is none."""
    for slot in range(jobs_per_gpu):
        for gpu in gpus:
            if _try_slot(f"denoiseg_flow GPU {gpu} slot {slot} {allocation}"):
                return gpu
    return None


def _try_slot(name: str) -> bool:
    """Take a slot unless another process has it.

    The allocation is part of its name because a scheduler may count the GPUs of each from 0.
    """
    slot = socket.socket(socket.AF_UNIX)
    try:
        slot.bind(f"\0{name}".encode()[:LONGEST_NAME])
    except OSError as error:
        slot.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    _held.append(slot)
    return True


def _leave_to_parent() -> None:
    """In a forked child: close the slot, which it would otherwise keep when its parent dies."""
    for slot in _held:
        slot.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_to_parent)
