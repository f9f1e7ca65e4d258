"""Check before any job is submitted that a SLURM cluster has the requested resources."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from denoiseg_flow.errors import InputError

_PROFILE = "at the top of the profile (profiles/slurm/profile.yaml)"


def check_requests(requests: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Raise InputError for the first request that the cluster cannot meet.

    Parameters
    ----------
    requests
        Resources of the jobs of every rule. Only ``slurm_partition`` and ``gpu`` are checked. SLURM
        itself checks other requests of devices (``gres``, ``gpu_model``, ``slurm_extra``).
    """
    partitions = _partitions()
    if not partitions:
        return  # SLURM itself will report the cause
    available = ", ".join(partitions)
    default = next((name for name, part in partitions.items() if part["default"]), None)
    with_gpus = [name for name, part in partitions.items() if part["gpus"]]
    for rule, jobs in requests.items():
        for job in jobs:
            names = str(job.get("slurm_partition") or default or "").split(",")
            gpus = job.get("gpu") or 0
            if names == [""]:
                raise InputError(
                    f"the cluster has no default partition, and rule '{rule}' has none either: set "
                    f"'partition' and 'gpu_partition' {_PROFILE}; available: {available}"
                )
            unknown = next((name for name in names if name not in partitions), None)
            if unknown:
                raise InputError(
                    f"rule '{rule}' requests partition '{unknown}', which does not exist on this "
                    f"cluster: correct it {_PROFILE}; available: {available}"
                )
            most = max(partitions[name]["gpus"] for name in names)
            if isinstance(gpus, int) and gpus > most:
                has = f"no node has more than {most}" if most else "it has none"
                instead = (
                    f"set 'gpu_partition' {_PROFILE} to one with GPUs ({', '.join(with_gpus)})"
                    if with_gpus
                    else f"this cluster has no GPUs: set 'gpus: false' {_PROFILE}"
                )
                raise InputError(
                    f"rule '{rule}' requests {gpus} GPU{'s' * (gpus > 1)} in partition "
                    f"'{','.join(names)}', but {has}; {instead}"
                )


def _partitions() -> dict[str, dict[str, Any]]:
    """Return for each partition whether it is the default and the most GPUs of a node."""
    try:
        answer = subprocess.run(
            ["sinfo", "--noheader", "--format=%P %G"],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return {}
    partitions: dict[str, dict[str, Any]] = {}
    for line in filter(str.strip, answer.splitlines()):
        name, _, devices = line.partition(" ")
        part = partitions.setdefault(name.removesuffix("*"), {"default": False, "gpus": 0})
        part["default"] |= name.endswith("*")
        part["gpus"] = max(part["gpus"], _count_gpus(devices))
    return partitions


def _count_gpus(devices: str) -> int:
    """Count the GPUs in a list of generic resources such as ``gpu:a100:4(S:0-1),shard:8``."""
    return sum(int(count) for count in re.findall(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)", devices))
