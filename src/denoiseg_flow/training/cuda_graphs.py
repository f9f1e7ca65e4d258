"""A training step as one CUDA graph.

A step of a small network is some 300 kernels of a few microseconds each, and launching them one by
one takes longer than running them. So the kernels of a few steps are launched as usual, those of
the next one are recorded, and every further step replays the record in a single launch.

A record repeats what the GPU did, on the same memory, not what Python decided: numbers of Python
that go into a kernel are fixed with it. Random generators are advanced at each replay.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

logger = logging.getLogger(__name__)

# Calls before the recording: in them cuDNN chooses its algorithms, which cannot be recorded.
WARM_UP = 3


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Compute on another stream than the default one, which cannot be recorded.

    Nothing happens on the CPU.
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
    """A function that a GPU replays as one CUDA graph from its fourth call on.

    On the CPU, and where recording fails, every call calls the function.

    Parameters
    ----------
    function
        Works on tensors that outlive it, and neither reads a number from the GPU nor copies one
        there. Within :func:`side_stream`.
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
        """Forget the record: what the function does has changed."""
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
        """Record one call without running it; None where that does not work."""
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
                "the training step cannot be recorded as a CUDA graph (%s): "
                "it goes on kernel by kernel, which is slower",
                str(error).splitlines()[0],
            )
            self.enabled = False
            self.generator.graphsafe_set_state(before)
            return None
        return graph
