"""Where the tensors live."""

import logging

import torch

from denoiseg_flow.errors import InputError

logger = logging.getLogger(__name__)


def select_device(name: str, threads: int) -> torch.device:
    """Return the device to compute on, and make CPU computations reproducible.

    Parameters
    ----------
    name
        ``"cpu"``, ``"cuda"``, or ``"auto"``: the GPU if there is one.
    threads
        CPU threads that this process may use.

    Raises
    ------
    InputError
        If ``"cuda"`` is asked for on a machine without a usable GPU.
    """
    torch.set_num_threads(threads)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError(
            "config key 'device' is 'cuda', but PyTorch finds no usable GPU here; "
            "write 'device: auto', or install a CUDA build of torch"
        )
    device = torch.device("cuda" if available and name != "cpu" else "cpu")
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
    logger.info("computing on %s with %d CPU thread(s)", device, threads)
    return device
