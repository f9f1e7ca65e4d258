"""Run a training step as one CUDA graph.

A step of a small network has about 300 kernels of a few microseconds each, and launching them one
by one takes longer than running them. The kernels of the first steps are launched as usual, those
of the next step are recorded, and all further steps replay the recording in a single launch.

A replay repeats the operations of the GPU on the same memory, not the decisions of Python: Python
numbers passed to kernels are fixed by the recording. Random generators advance at each replay.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

logger = logging.getLogger(__name__)

# Calls before the recording, in which cuDNN selects algorithms; this cannot be recorded.
WARM_UP = 3


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Compute on a separate stream, because the default stream cannot be recorded.

    Has no effect on a CPU.
    """
    if device.type != "cuda":
        yield
        return
    stream, before = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield
    before.wait_stream(stream)


class Replayed:
    """A function that is replayed as a CUDA graph from its fourth call on.

    On a CPU, or if recording fails, every call runs the function.

    Parameters
    ----------
    function
        Works on tensors that outlive the call, and copies no number to or from the GPU. To be
        called within :func:`side_stream`.
    generator
        The only source of random numbers of the function.
    enabled
        Whether to record.
    """

    def __init__(
        self, function: Callable[[], None], generator: torch.Generator, enabled: bool
    ) -> None:
        self.function = function
        self.generator = generator
        self.enabled = enabled
        self.reset()

    def reset(self) -> None:
        """Discard the recording, because the function has changed."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def __call__(self) -> None:
        """Call the function, or replay it."""
        if self.enabled and self._graph is None and self._calls >= WARM_UP:
            self._graph = self._record()
        if self._graph is not None:
            self._graph.replay()
        else:
            self.function()
            self._calls += 1

    def _record(self) -> torch.cuda.CUDAGraph | None:
        """Record one call without running it; return None if recording fails."""
        before = self.generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                self.function()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning(
                "cannot record the training step as a CUDA graph (%s); training continues without, "
                "which is slower",
                str(error).splitlines()[0],
            )
            self.enabled = False
            self.generator.graphsafe_set_state(before)
            return None
        return graph
