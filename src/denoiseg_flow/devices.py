"""Where the tensors live."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from denoiseg_flow.errors import InputError
from denoiseg_flow.gpu_slots import take_slot

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
    :func:`~denoiseg_flow.gpu_slots.take_slot`.

    Parameters
    ----------
    name
        ``"cpu"``, ``"cuda"``, or ``"auto"``: the GPU if there is one.
    threads
        CPU threads that this process may use.
    resources
        Of the job in Snakemake: ``gpu``, 0 for one that does not compute on a GPU or was given it
        otherwise, and ``jobs_per_gpu``, how many may share a GPU. By default one GPU, not shared.

    Raises
    ------
    InputError
        If ``"cuda"`` is asked for on a machine without a usable GPU.
    """
    torch.set_num_threads(threads)
    resources = {"gpu": 1} if resources is None else resources
    if name != "cpu" and resources.get("gpu"):
        take_slot(resources.get("jobs_per_gpu", 1))
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError(
            "'device' is 'cuda', but PyTorch finds no usable GPU here; choose 'auto', or install a "
            "CUDA build of torch"
        )
    device = torch.device("cuda" if available and name != "cpu" else "cpu")
    if device.type == "cpu":
        # The same as use_deterministic_algorithms(True), which imports the compiler as well.
        torch.set_deterministic_debug_mode("error")
        # It would fill all new memory, to tell those who read it unwritten: 5 % of a training.
        torch.utils.deterministic.fill_uninitialized_memory = False
    else:
        torch.backends.cudnn.benchmark = True  # all batches of a training have one shape
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    fallback = "no usable GPU found: " if name == "auto" and not available else ""
    logger.info("%scomputing on %s with %d CPU thread(s)", fallback, device, threads)
    return device


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """Return the context that networks are trained in: bfloat16 where a GPU computes in it.

    Weights, optimiser and losses stay in float32, and so does prediction. Older GPUs only emulate
    bfloat16, slower than they compute in float32.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def out_of_memory_advice(device: torch.device, batch_size: int) -> Iterator[None]:
    """Turn an error for lack of memory into an InputError that says which batch size to try."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        advice = (
            f"set 'batch_size' of the recipe to {batch_size // 2}"
            if batch_size > 1
            else "set 'patch_size' of the recipe lower"
        )
        raise InputError(
            f"{device} has too little free memory for batches of {batch_size} patches; {advice}, "
            "or run fewer jobs at once"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    # PyTorch's CPU allocator has no exception of its own.
    return (
        not isinstance(error, RuntimeError)
        or isinstance(error, torch.OutOfMemoryError)
        or ("can't allocate memory" in str(error))
    )
