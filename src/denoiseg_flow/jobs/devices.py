"""Where the tensors live."""

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import torch

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import gpu_slots

INSTALL = "https://pytorch.org/get-started/locally"

# PyTorch has an exception of its own only for what its allocator of GPU memory cannot get. These
# are the words of its allocator of main memory, of CUDA, and of cuBLAS and cuDNN.
OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory|ALLOC(ATION)?_FAILED")
# Said for want of memory as well as for other reasons: believed where next to nothing is free.
PERHAPS_OUT_OF_MEMORY = re.compile(
    "(BLAS|DNN)_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR)|unable to find an engine"
    "|Unable to find a valid cuDNN algorithm"
)
NEXT_TO_NOTHING = 2**28  # bytes
USABLE = 0.9  # of the memory of a GPU; the rest goes to libraries, or into gaps

logger = logging.getLogger(__name__)


def usable_cores() -> int:
    """Return how many cores this process may use, which a cluster may limit."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def select_device(
    name: str, threads: int, resources: Mapping[str, int] | None = None
) -> torch.device:
    """Return the device to compute on, and make CPU computations reproducible.

    Of several GPUs, or of one that is busy, the process waits for its own, see
    :func:`~denoiseg_flow.jobs.gpu_slots.take_slot`.

    Parameters
    ----------
    name
        ``"cpu"``, ``"cuda"``, or ``"auto"``: the GPU if there is one. One that is there and cannot
        be used is warned about.
    threads
        CPU threads that this process may use.
    resources
        Of the job in Snakemake: ``gpu``, 0 for one that does not compute on a GPU or was given it
        otherwise, and ``jobs_per_gpu``, how many may share a GPU. By default one GPU, not shared.

    Raises
    ------
    InputError
        If ``"cuda"`` is asked for on a machine without a usable GPU, or others have taken all
        memory of the GPU.
    """
    torch.set_num_threads(threads)
    resources = {"gpu": 1} if resources is None else resources
    gpu_job = bool(resources.get("gpu"))
    if name != "cpu" and gpu_job:
        gpu_slots.take_slot(resources.get("jobs_per_gpu", 1))
    problem = None if name == "cpu" else _gpu_problem(start=gpu_job)
    if name == "cuda" and problem:
        raise InputError(f"'device' is 'cuda', but {problem}, or choose 'auto'")
    if problem and gpu_slots.visible_gpus():
        logger.warning("not computing on the GPU: %s, or choose 'cpu' as 'device'", problem)
    device = torch.device("cpu" if name == "cpu" or problem else "cuda")
    if device.type == "cpu":
        # The same as use_deterministic_algorithms(True), which imports the compiler as well.
        torch.set_deterministic_debug_mode("error")
        # It would fill all new memory, to tell those who read it unwritten: 5 % of a training.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set at import
    else:
        torch.backends.cudnn.benchmark = True  # all batches of a training have one shape
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    fallback = "no usable GPU found: " if problem else ""
    logger.info("%scomputing on %s with %d CPU thread(s)", fallback, device, threads)
    return device


def _gpu_problem(start: bool) -> str | None:
    """Return why PyTorch cannot compute on a GPU here, and what helps; None if it can.

    To ``start`` takes some hundred megabytes of its memory; InputError if others have it.
    """
    if torch.version.cuda is None and torch.version.hip is None:  # the latter: GPUs of AMD
        return (
            f"PyTorch {torch.__version__} is a build for the CPU alone; install a build for CUDA "
            f"({INSTALL})"
        )
    try:
        with out_of_memory_advice(torch.device("cuda")):
            with warnings.catch_warnings(action="ignore"):  # _without_kernels says it in short
                torch.cuda.init()
            if start:
                torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
        return _in_short(str(error))
    return _without_kernels()


def _in_short(message: str) -> str:
    """Return what PyTorch means when CUDA does not start, and what helps."""
    build = f"PyTorch {torch.__version__}"
    if old := re.search(r"driver on your system is too old \(found version (\d+)\)", message):
        major, rest = divmod(int(old[1]), 1000)
        return (
            f"the NVIDIA driver is too old for {build}: it knows CUDA up to {major}.{rest // 10}, "
            f"not {torch.version.cuda}; update it, or install a build for an older CUDA ({INSTALL})"
        )
    if "Found no NVIDIA driver" in message:
        return f"{build} finds no NVIDIA driver; install one if there is a GPU"
    if re.search(r"No \w+ GPUs are available", message):
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if chosen is None:
            return f"{build} finds no GPU; see whether 'nvidia-smi' lists one"
        return (
            f"{build} finds no GPU among those of CUDA_VISIBLE_DEVICES ('{chosen}'); change or "
            "unset it"
        )
    reason = message.strip().split("\n")[0].rstrip(".")
    return f"CUDA does not start ({reason}); see whether 'nvidia-smi' shows the GPU at work"


def _without_kernels() -> str | None:
    """Return what is wrong if this build of PyTorch has no code for the GPU.

    Compiled code (sm_75) runs on GPUs of the same generation that are not older, intermediate code
    (compute_75) on all that are not older. On GPUs of AMD, nothing is checked.
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
        f"PyTorch {torch.__version__} has no code for GPU '{torch.cuda.get_device_name()}' of "
        f"compute capability {gpu[0]}.{gpu[1]}, only for {listed}; install a build for {age} CUDA "
        f"({INSTALL})"
    )


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return the context that networks are trained in: bfloat16 where a GPU computes in it.

    Weights, optimiser and losses stay in float32, and so does prediction. Older GPUs only emulate
    bfloat16, slower than they compute in float32.
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
    """Turn an error for lack of memory into an InputError that says what to do.

    Parameters
    ----------
    batch_size
        Patches of a training step; None where nothing is trained.
    need
        Bytes that a training of so many patches per step takes, beside what is on the device when
        this context is entered, such as the images: see
        :func:`~denoiseg_flow.study.costs.training_bytes`. Of the halves of the batch (a half, a
        quarter, ...), the largest that a GPU has room for is named; without ``need``, and on the
        CPU, the first.
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
                fewer += ", end what else uses it, or choose 'cpu' as 'device'"
            raise InputError(f"{device} has too little free memory; {fewer}") from error
        fitting = _fitting_batch(device, batch_size, kept, need)
        advice = (
            f"set 'batch_size' of the recipe to {fitting}"
            if fitting
            else "set 'patch_size' of the recipe lower"
        )
        raise InputError(
            f"{device} has too little free memory for batches of {batch_size} patches; {advice}, "
            f"or {fewer}"
        ) from error


def _fitting_batch(
    device: torch.device, batch_size: int, kept: int, need: Callable[[int], float] | None
) -> int:
    """Return the largest half of a batch that fits beside what is kept; 0 if none does."""
    size = batch_size // 2
    if device.type == "cuda" and need is not None:
        free, total = torch.cuda.mem_get_info(device)
        allowed = total * torch.cuda.get_per_process_memory_fraction(device.index)
        # What failed is still in memory that PyTorch has reserved, or cached there.
        room = USABLE * min(free + torch.cuda.memory_reserved(device), allowed) - kept
        while size and need(size) > room:
            size //= 2
    return size


def is_out_of_memory(error: Exception, device: torch.device) -> bool:
    """Return whether an error says that main memory, or that of a device, is too small."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or OUT_OF_MEMORY.search(str(error)):
        return True
    if device.type == "cuda" and PERHAPS_OUT_OF_MEMORY.search(str(error)):
        with suppress(RuntimeError):  # CUDA answers nothing after a worse error
            return torch.cuda.mem_get_info(device)[0] < NEXT_TO_NOTHING
    return False
