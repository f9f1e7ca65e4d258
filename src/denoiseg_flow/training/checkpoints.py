"""The state of a running training on disk, from which an interrupted one continues."""

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
    """The newest state of a running training, and the one before it.

    Parameters
    ----------
    path
        File of the newest state; the one before it lies beside it, as ``*.previous``.
    seconds
        Shortest time between two of them.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.previous = path.with_name(path.name + ".previous")
        self.seconds = seconds
        self._saved = time.monotonic()
        self._others: list[Checkpoints] = []
        self._signal: int | None = None

    def beside(self, name: str) -> "Checkpoints":
        """Return those of another training that belongs to the same job."""
        path = self.path.with_name(f"{self.path.stem}_{name}{self.path.suffix}")
        self._others.append(Checkpoints(path, self.seconds))
        return self._others[-1]

    def due(self) -> bool:
        """Return whether it is time for the next one."""
        return self._signal is not None or time.monotonic() - self._saved >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        """Write a state; at every moment there is at least one complete file."""
        if self.path.exists():
            os.replace(self.path, self.previous)
        tensor_file.save(state, self.path)
        self._saved = time.monotonic()
        if self._signal is not None:
            logger.warning("ended from outside: the next run continues from %s", self.path)
            signal.raise_signal(self._signal)

    @contextmanager
    def before_the_end(self) -> Iterator[None]:
        """When the process is told to end, let it save a state first, and end then.

        A scheduler says so some seconds before it kills a job whose time is up.
        """

        def remember(number: int, _: object) -> None:
            self._signal = number
            signal.signal(number, before[number])  # whoever asks twice is in a hurry

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
        """Return the newest state that has all ``keys``, or None; others are named in the log."""
        for path in (self.path, self.previous):
            try:
                state = tensor_file.load(path, device)
            except FileNotFoundError:
                continue
            except ValueError as error:
                logger.warning("%s: it is ignored", error)
                continue
            if keys <= state.keys():
                return state
            logger.warning("%s is of another version of the workflow: it is ignored", path)
        return None

    def remove(self) -> None:
        """Remove both files, what a killed process left of a third, and those of the others."""
        for path in (self.path, self.previous):
            remove_file(path)
        for other in self._others:
            other.remove()
