"""Write the results of a benchmark: a tidy csv, and a Markdown table that names the machine."""

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import pandas as pd
import torch

import denoiseg_flow
from denoiseg_flow.jobs.devices import usable_cores

BUSY = " (others used the machine: these are not the figures of an idle one)"


def machine(threads: int) -> list[str]:
    """Return sentences about the machine; call it before the first job, for the load average."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores, load = usable_cores(), os.getloadavg()[0]
    return [
        f"{date.today()}, {_processor()}, {cores} cores usable of which each job got {threads}, "
        f"{_memory_gib():.0f} GiB of memory, {gpu}, {platform.system()}.",
        f"DenoiSeg-Flow {denoiseg_flow.__version__} ({_commit()}), "
        f"Python {platform.python_version()}, torch {torch.__version__}.",
        f"Load average when it started: {load:.1f}{BUSY if load > 0.5 else ''}.",
    ]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a pipe table; the first column is text, the others are numbers."""
    rule = [":--"] + ["--:"] * (len(columns) - 1)
    lines = [columns, rule, *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write(stem: Path, title: str, rows: pd.DataFrame, body: str, notes: Iterable[str]) -> None:
    """Write ``<stem>.csv`` with one row per measurement, and ``<stem>.md`` for people."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(f"{stem}.csv", index=False, float_format="%.6g", lineterminator="\n")
    listed = "\n".join(f"- {note}" for note in notes)
    text = f"# {title}\n\n{body}\n\n{listed}\n"
    Path(f"{stem}.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nWritten: {stem}.md and {stem}.csv")


def versions(report: dict[str, str]) -> str:
    """Return "name version, name version" of a worker's report."""
    return ", ".join(f"{name} {version}" for name, version in report.items())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _commit() -> str:
    """The commit, marked if files differ from it; empty-handed outside a clone."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "not a git clone"
