"""The device that a job computes on, mixed precision, and advice when memory runs out."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import torch

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import gpu_slots

INSTALL = "https://pytorch.org/get-started/locally"

# PyTorch has a special exception only for its GPU memory allocator. These are the messages of its
# allocator of main memory, of CUDA, and of cuBLAS and cuDNN.
OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory|ALLOC(ATION)?_FAILED")
# These errors may or may not be due to lack of memory: they count if almost no memory is free.
PERHAPS_OUT_OF_MEMORY = re.compile(
    "(BLAS|DNN)_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR)|unable to find an engine"
    "|Unable to find a valid cuDNN algorithm"
)
NEXT_TO_NOTHING = 2**28  # bytes
USABLE = 0.9  # share of GPU memory; libraries and fragmentation take the rest

logger = logging.getLogger(__name__)


def usable_cores() -> int:
    """Return how many CPU cores this process may use; a cluster may limit them."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def select_device(
    name: str, threads: int, resources: Mapping[str, int] | None = None
) -> torch.device:
    """Return the device to compute on, and make CPU computations reproducible.

    The process first waits for a free GPU, see
    :func:`~denoiseg_flow.jobs.gpu_slots.take_slot`.

    Parameters
    ----------
    name
        ``"cpu"``, ``"cuda"``, or ``"auto"``: the GPU if there is one, with a warning if it is
        unusable.
    threads
        CPU threads that this process may use.
    resources
        Snakemake resources of the job: ``gpu``, 0 if the job needs no GPU or already has one, and
        ``jobs_per_gpu``, how many jobs may share a GPU. By default one GPU, not shared.

    Raises
    ------
    InputError
        If ``"cuda"`` is requested on a machine without a usable GPU, or other processes use all
        of the GPU's memory.
    """
    torch.set_num_threads(threads)
    resources = {"gpu": 1} if resources is None else resources
    gpu_job = bool(resources.get("gpu"))
    if name != "cpu" and gpu_job:
        gpu_slots.take_slot(resources.get("jobs_per_gpu", 1))
    problem = None if name == "cpu" else _gpu_problem(start=gpu_job)
    if name == "cuda" and problem:
        raise InputError(f"'device' is 'cuda', but {problem}, or set 'device' to 'auto'")
    if problem and gpu_slots.visible_gpus():
        logger.warning("not using the GPU: %s, or set 'device' to 'cpu'", problem)
    device = torch.device("cpu" if name == "cpu" or problem else "cuda")
    if device.type == "cpu":
        # The same as use_deterministic_algorithms(True), which also imports the compiler.
        torch.set_deterministic_debug_mode("error")
        # This would fill new memory to reveal reads before writes: 5% of the training time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set at import
    else:
        torch.backends.cudnn.benchmark = True  # all batches of a training have the same shape
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    fallback = "no usable GPU found: " if problem else ""
    logger.info("%scomputing on %s with %d CPU thread(s)", fallback, device, threads)
    return device


def _gpu_problem(start: bool) -> str | None:
    """Return why PyTorch cannot compute on a GPU, and the fix; None if it can.

    ``start`` initialises CUDA on the GPU, which takes a few hundred megabytes; InputError if these
    are not free.
    """
    if torch.version.cuda is None and torch.version.hip is None:  # the latter: GPUs of AMD
        if sys.platform == "darwin":
            return (
                "macOS has no CUDA, and Apple GPUs are not supported; use a machine with an "
                "NVIDIA GPU"
            )
        return f"PyTorch {torch.__version__} is a CPU-only build; install a CUDA build ({INSTALL})"
    try:
        with out_of_memory_advice(torch.device("cuda")):
            with warnings.catch_warnings(action="ignore"):  # _without_kernels is shorter
                torch.cuda.init()
            if start:
                torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
        return _in_short(str(error))
    return _without_kernels()


def _in_short(message: str) -> str:
    """Return cause and fix of an error of PyTorch when CUDA does not start."""
    build = f"PyTorch {torch.__version__}"
    if old := re.search(r"driver on your system is too old \(found version (\d+)\)", message):
        major, rest = divmod(int(old[1]), 1000)
        return (
            f"the NVIDIA driver is too old for {build}: it supports CUDA up to "
            f"{major}.{rest // 10}, not {torch.version.cuda}; update the driver, or install a "
            f"build for an older CUDA ({INSTALL})"
        )
    if "Found no NVIDIA driver" in message:
        return f"{build} finds no NVIDIA driver; install the driver if there is a GPU"
    if re.search(r"No \w+ GPUs are available", message):
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if chosen is None:
            return f"{build} finds no GPU; check that 'nvidia-smi' lists one"
        return (
            f"{build} finds no GPU with CUDA_VISIBLE_DEVICES='{chosen}'; change or unset this "
            "variable"
        )
    reason = message.strip().split("\n")[0].rstrip(".")
    return f"CUDA does not start ({reason}); check with 'nvidia-smi' that the GPU works"


def _without_kernels() -> str | None:
    """Return cause and fix if this build of PyTorch has no code for the GPU; None if it has.

    Binary code (sm_75) runs on GPUs of the same major version and at least that minor version,
    PTX code (compute_75) on all GPUs of at least that version. AMD GPUs are not checked.
    """
    codes = re.findall(r"\b(sm|compute)_(\d+)(\d)", " ".join(torch.cuda.get_arch_list()))
    known = [(kind, (int(major), int(minor))) for kind, major, minor in codes]
    gpu = torch.cuda.get_device_capability()
    if not known or any(
        gpu >= code and (kind == "compute" or gpu[0] == code[0]) for kind, code in known
    ):
        return None
    listed = ", ".join(f"{major}.{minor}" for _, (major, minor) in known)
    age = "an older" if gpu < min(code for _, code in known) else "a newer"
    return (
        f"PyTorch {torch.__version__} does not support GPU '{torch.cuda.get_device_name()}' with "
        f"compute capability {gpu[0]}.{gpu[1]}, only {listed}; install a build for {age} CUDA "
        f"({INSTALL})"
    )


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return the autocast context of a training: bfloat16 if the GPU supports it natively.

    Weights, optimiser state, losses and prediction stay in float32. Older GPUs only emulate
    bfloat16, which is slower than float32.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def out_of_memory_advice(
    device: torch.device,
    batch_size: int | None = None,
    need: Callable[[int], float] | None = None,
) -> Iterator[None]:
    """Turn an out-of-memory error into an InputError that suggests a fix.

    Parameters
    ----------
    batch_size
        Patches per training step; None if nothing is trained.
    need
        Returns the bytes that a training with a given batch size needs, in addition to what is on
        the device when this context is entered, such as the images: see
        :func:`~denoiseg_flow.study.costs.training_bytes`. The message suggests the largest of
        1/2, 1/4, ... of the batch size that fits on the GPU; without ``need``, and on the CPU, it
        suggests half.
    """
    kept = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error, device):
            raise
        fewer = "run fewer jobs at once"
        if batch_size is None:
            if device.type == "cuda":
                fewer += ", stop other programs that use the GPU, or set 'device' to 'cpu'"
            raise InputError(f"{device} has too little free memory; {fewer}") from error
        fitting = _fitting_batch(device, batch_size, kept, need)
        advice = (
            f"set 'batch_size' of the recipe to {fitting}"
            if fitting
            else "decrease 'patch_size' of the recipe"
        )
        raise InputError(
            f"{device} has too little free memory for batches of {batch_size} patches; {advice}, "
            f"or {fewer}"
        ) from error


def _fitting_batch(
    device: torch.device, batch_size: int, kept: int, need: Callable[[int], float] | None
) -> int:
    """Return the largest of 1/2, 1/4, ... of a batch size that fits; 0 if none does."""
    size = batch_size // 2
    if device.type == "cuda" and need is not None:
        free, total = torch.cuda.mem_get_info(device)
        allowed = total * torch.cuda.get_per_process_memory_fraction(device.index)
        # Memory of the failed step is still reserved or cached by PyTorch.
        room = USABLE * min(free + torch.cuda.memory_reserved(device), allowed) - kept
        while size and need(size) > room:
            size //= 2
    return size


def is_out_of_memory(error: Exception, device: torch.device) -> bool:
    """Return whether an error is due to lack of memory, in main memory or on the device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or OUT_OF_MEMORY.search(str(error)):
        return True
    if device.type == "cuda" and PERHAPS_OUT_OF_MEMORY.search(str(error)):
        with suppress(RuntimeError):  # after a worse error, CUDA does not answer
            return torch.cuda.mem_get_info(device)[0] < NEXT_TO_NOTHING
    return False
