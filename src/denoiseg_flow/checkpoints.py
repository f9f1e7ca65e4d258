"""Files of tensors that are never half-written, and never unpickled blindly."""

import io
import os
from pathlib import Path
from typing import Any

import torch


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Write ``content`` (tensors and plain values) so that ``path`` is either old or complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        # Not torch's own writer: on a full disk that ends in a RuntimeError without a reason.
        partial.write_bytes(buffer.getbuffer())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


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
