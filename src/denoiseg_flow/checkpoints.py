"""Files of tensors that are never half-written, and never unpickled blindly."""

import hashlib
import io
import logging
import os
import signal
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from denoiseg_flow.job_lock import sole_process

_DEEPEST = 100  # values within values

logger = logging.getLogger(__name__)


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Write ``content`` (tensors and plain values) so that ``path`` is either old or complete.

    A process that writes the same file is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with _sole_writer(path):
        try:
            # Not torch's own writer: on a full disk that ends in a RuntimeError without a reason.
            partial.write_bytes(buffer.getbuffer())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _sole_writer(path: Path) -> AbstractContextManager[object]:
    return sole_process(path.with_name(path.name + ".lock"))


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 checksum of named tensors."""
    checksum = hashlib.sha256()
    for name, tensor in tensors.items():
        checksum.update(name.encode())
        checksum.update(tensor.cpu().contiguous().numpy())
    return checksum.hexdigest()


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a file of :func:`save_atomically` without trusting its pickle.

    Raises
    ------
    ValueError
        If the file is truncated, damaged, or holds anything but tensors and plain values, all
        of them as large as they say.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # PyTorch stores without compression: what is larger than its file is a bomb.
            n_bytes = sum(member.file_size for member in archive.infolist())
            damaged = n_bytes > path.stat().st_size
            # It does not look at the checksums of its own archive.
            damaged = damaged or archive.testzip()
        content = None if damaged else torch.load(path, map_location=device, weights_only=True)
        _check_values(content, n_bytes)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # nearly any, depending on which bytes are damaged
        raise ValueError(f"{path} is damaged or not a file of tensors") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged or not a file of tensors")
    return content


def _check_values(content: Any, limit: int) -> None:
    """Raise ValueError unless these are tensors and plain values, each written out in the file.

    A pickle can say in a few bytes that a value is made of another one many times, or that all
    numbers of a tensor are the same one.
    """
    waiting, count = [(content, 1)], 1
    while waiting:
        value, depth = waiting.pop()
        inside: Sequence[Any] = ()
        if isinstance(value, torch.Tensor):
            if value.untyped_storage().nbytes() < value.nbytes:
                raise ValueError(f"{value.nbytes} bytes of numbers that are not there")
        elif isinstance(value, dict):
            inside = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            inside = value
        elif not isinstance(value, str | bytes | int | float | None):
            raise ValueError(f"a value of type {type(value).__name__}")
        waiting.extend((each, depth + 1) for each in inside)
        count += len(inside)
        if count > limit or depth > _DEEPEST:
            raise ValueError("more values than the file can hold")


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
        save_atomically(state, self.path)
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
                state = load(path, device)
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
        with _sole_writer(self.path):
            for path in (self.path, self.previous, _partial(self.path)):
                path.unlink(missing_ok=True)
        for other in self._others:
            other.remove()
