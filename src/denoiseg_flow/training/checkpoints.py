"""Save the state of a running training, from which an interrupted one resumes."""

import logging
import os
import signal
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from denoiseg_flow.jobs.atomic import remove_file
from denoiseg_flow.models import tensor_file

logger = logging.getLogger(__name__)


class Checkpoints:
    """The latest two states of a running training.

    Parameters
    ----------
    path
        File of the latest state; the previous one is next to it, as ``*.previous``.
    seconds
        Minimum time between two states.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.previous = path.with_name(path.name + ".previous")
        self.seconds = seconds
        self._saved = time.monotonic()
        self._others: list[Checkpoints] = []
        self._signal: int | None = None

    def beside(self, name: str) -> "Checkpoints":
        """Return the checkpoints of another training of the same job."""
        path = self.path.with_name(f"{self.path.stem}_{name}{self.path.suffix}")
        self._others.append(Checkpoints(path, self.seconds))
        return self._others[-1]

    def due(self) -> bool:
        """Return whether it is time to save the next state."""
        return self._signal is not None or time.monotonic() - self._saved >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        """Write a state; at any time at least one file is complete."""
        if self.path.exists():
            os.replace(self.path, self.previous)
        tensor_file.save(state, self.path)
        self._saved = time.monotonic()
        if self._signal is not None:
            logger.warning("stopped by a signal; the next run resumes from %s", self.path)
            signal.raise_signal(self._signal)

    @contextmanager
    def before_the_end(self) -> Iterator[None]:
        """Save a state before the process exits on SIGTERM or SIGINT.

        A scheduler sends a signal some seconds before it kills a job at its time limit.
        """

        def remember(number: int, _: object) -> None:
            self._signal = number
            # A second signal exits at once.
            signal.signal(number, before[signal.Signals(number)])

        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        before = {number: what for number, what in before.items() if what != signal.SIG_IGN}
        for number in before:
            signal.signal(number, remember)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def load(self, device: torch.device, keys: Set[str]) -> dict[str, Any] | None:
        """Return the latest state that has all ``keys``, or None; log any that is unusable."""
        for path in (self.path, self.previous):
            try:
                state = tensor_file.load(path, device)
            except FileNotFoundError:
                continue
            except ValueError as error:
                logger.warning("%s; ignoring it", error)
                continue
            if keys <= state.keys():
                return state
            logger.warning("%s was written by another version of the workflow; ignoring it", path)
        return None

    def remove(self) -> None:
        """Remove all files, including unfinished ones and those of :meth:`beside`."""
        for path in (self.path, self.previous):
            remove_file(path)
        for other in self._others:
            other.remove()
