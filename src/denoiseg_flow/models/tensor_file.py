"""Read and write files of tensors: written completely or not at all, read without trust."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from denoiseg_flow.jobs.atomic import new_file
from denoiseg_flow.methods.initial_model import DESCRIPTION, verify_archive

_DEEPEST = 100  # levels of nested values


def save(content: dict[str, Any], path: Path, description: Mapping[str, Any] | None = None) -> None:
    """Write ``content`` (tensors and plain values), replacing the file only when complete.

    Processes that write the same file wait for each other.

    Parameters
    ----------
    description
        Plain values to store as JSON as well, which can be read without PyTorch.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    if description is not None:
        with zipfile.ZipFile(buffer, "a") as archive:
            # The folder of all entries that PyTorch writes; ZipInfo has a fixed date.
            folder = archive.namelist()[0].split("/")[0]
            entry = zipfile.ZipInfo(f"{folder}/{DESCRIPTION}")
            archive.writestr(entry, json.dumps(description))
    with new_file(path) as unfinished:
        # On a full disk, the writer of torch would raise a RuntimeError without a reason.
        unfinished.write_bytes(buffer.getbuffer())


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 checksum of named tensors."""
    checksum = hashlib.sha256()
    for name, tensor in tensors.items():
        checksum.update(name.encode())
        checksum.update(tensor.cpu().contiguous().numpy().data)
    return checksum.hexdigest()


def load(
    path: Path, device: torch.device | str = "cpu", stored: bytes | None = None
) -> dict[str, Any]:
    """Read a file written by :func:`save`, without trusting its pickle.

    Parameters
    ----------
    stored
        The bytes of the file, if they have been read already, perhaps from a package.

    Raises
    ------
    ValueError
        If the file is truncated or damaged, or contains anything but tensors and plain values of
        their claimed size.
    """
    try:
        size = path.stat().st_size if stored is None else len(stored)
        with zipfile.ZipFile(path if stored is None else io.BytesIO(stored)) as archive:
            n_bytes = verify_archive(archive, size)
        file = path if stored is None else io.BytesIO(stored)
        content = torch.load(file, map_location=device, weights_only=True)
        _check_values(content, n_bytes)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # almost any error, depending on the damaged bytes
        raise ValueError(f"{path} is damaged or not a file of tensors") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged or not a file of tensors")
    return content


def _check_values(content: Any, limit: int) -> None:
    """Raise ValueError unless all values are tensors and plain values stored in full in the file.

    A few bytes of a pickle can repeat a value many times, or make a huge tensor of a single number.
    """
    waiting, count = [(content, 1)], 1
    while waiting:
        value, depth = waiting.pop()
        inside: Sequence[Any] = ()
        if isinstance(value, torch.Tensor):
            if value.untyped_storage().nbytes() < value.nbytes:
                raise ValueError(f"{value.nbytes} bytes of a tensor that are not in the file")
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
