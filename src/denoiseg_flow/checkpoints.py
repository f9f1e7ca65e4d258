"""Files of tensors that are never half-written, and never unpickled blindly."""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Write ``content`` (tensors and plain values) so that ``path`` is either old or complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        # Not torch's own writer: on a full disk that ends in a RuntimeError without a reason.
        partial.write_bytes(buffer.getbuffer())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove(path: Path) -> None:
    """Remove a file of :func:`save_atomically`, and what a killed process left of a newer one."""
    path.unlink(missing_ok=True)
    _partial(path).unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


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
        If the file is truncated, damaged, or holds anything but tensors and plain values.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # nearly any, depending on which bytes are damaged
        raise ValueError(f"{path} is damaged or not a file of tensors") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged or not a file of tensors")
    return content
