"""Files of tensors that are never half-written, and never unpickled blindly."""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from denoiseg_flow.jobs.atomic import new_file

_DEEPEST = 100  # values within values


def save(content: dict[str, Any], path: Path) -> None:
    """Write ``content`` (tensors and plain values): ``path`` is either old or complete.

    Processes that write the same file wait for each other.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with new_file(path) as unfinished:
        # Not torch's own writer: on a full disk that ends in a RuntimeError without a reason.
        unfinished.write_bytes(buffer.getbuffer())


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 checksum of named tensors."""
    checksum = hashlib.sha256()
    for name, tensor in tensors.items():
        checksum.update(name.encode())
        checksum.update(tensor.cpu().contiguous().numpy())
    return checksum.hexdigest()


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a file of :func:`save` without trusting its pickle.

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
