"""Run all phases in order and summarise their results."""

import argparse
import json
import math
import platform
import subprocess
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import correct
import fast
import good
import torch
from material import Material
from phase import Phase, Row, format_value

import denoiseg_flow
from denoiseg_flow.jobs.devices import select_device, usable_cores

# Minutes of nine that each phase may take; what one leaves is for the next ones.
PHASES = {"correct": (correct.run, 2), "fast": (fast.run, 3), "good": (good.run, 4)}
# Goals on a GPU of the class of an H100.
FAST_STEPS, FAST_SECONDS = 1600, 10
PAPER_STEPS, PAPER_MINUTES = 80_000, 40
MEGAPIXELS_PER_SECOND = 200


def measure(options: argparse.Namespace) -> bool:
    """Run the phases and write the summary; return whether nothing failed."""
    options.out.mkdir(parents=True, exist_ok=True)
    # Of a rehearsal, one: its networks are too small to be shared out.
    threads = 1 if options.device == "cpu" else min(usable_cores(), 8)
    device = select_device(options.device, threads)
    machine = describe_machine(device)
    (options.out / "machine.json").write_text(json.dumps(machine, indent=1) + "\n")
    wanted = {name: PHASES[name] for name in options.phases}
    unit = 60 * options.minutes / sum(share for _, share in wanted.values())
    rows = {}
    with tempfile.TemporaryDirectory(prefix="gpu_run_") as scratch:
        material = Material(options.pack, Path(scratch), device)
        left = 0.0
        for name, (run, share) in wanted.items():
            phase = Phase(name, options.out, unit * share + left)
            run(phase, material)
            left = max(phase.left(), 0)
            rows[name] = phase.rows
    text = summary(machine, rows)
    (options.out / "summary.md").write_text(text)
    print(f"\n{text}")
    return not any(row["status"] in ("FAILED", "error") for found in rows.values() for row in found)


def describe_machine(device: torch.device) -> Row:
    """Return what was measured, on what."""
    found = {
        "date": str(date.today()),
        "package": denoiseg_flow.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": "CPU",
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        found |= {
            "device": gpu.name,
            "memory_gib": gpu.total_memory / 2**30,
            "cuda": torch.version.cuda,
            "driver": done.stdout.strip(),
        }
    return found


def summary(machine: Row, rows: dict[str, list[Row]]) -> str:
    """Return the goals and what came of them, then every item that is no success, as Markdown."""
    lines = ["# GPU run", ""]
    lines += [", ".join(f"{key} {format_value(value)}" for key, value in machine.items()) + ".", ""]
    lines += ["| goal | measured |", "| :-- | --: |"]
    lines += [f"| {goal} | {found} |" for goal, found in goals(rows)]
    for phase, found in rows.items():
        count = {status: 0 for status in ("ok", "FAILED", "error", "no time")}
        for row in found:
            count[row["status"]] += 1
        told = ", ".join(f"{number} {status}" for status, number in count.items())
        lines += ["", f"## {phase}: {told}", ""]
        for row in found:
            values = {
                key: value
                for key, value in row.items()
                if key not in ("item", "traceback", "status", "seconds")
            }
            told = ", ".join(f"{key} {format_value(value)}" for key, value in values.items())
            lines.append(f"- {row['item']}: {row['status']}{', ' if told else ''}{told}")
    return "\n".join(lines) + "\n"


def goals(rows: dict[str, list[Row]]) -> list[tuple[str, str]]:
    """Return each goal in words, and what was measured."""
    fast_rows = {row["item"]: row for row in rows.get("fast", [])}

    def measured(item: str, key: str) -> float:
        return float(fast_rows.get(item, {}).get(key, math.nan))

    step = measured("2x16, batch 16, bf16, replayed, channels last", "ms_per_step")
    paper = measured("4x32, batch 128, bf16, replayed, channels last", "ms_per_step")
    speed = measured("prediction of 2048x2048, array to array", "megapixels_per_second_2x16")
    tif = measured("prediction of 16384x16384, tif to tif", "megapixels_per_second_n2v")
    checks = rows.get("correct", [])
    leads = [row for row in rows.get("good", []) if "leads_by_two" in row]
    return [
        ("all checks passed", _share(checks, lambda row: row["status"] == "ok")),
        (f"{FAST_STEPS} steps of 'fast' in {FAST_SECONDS} s", _told(FAST_STEPS * step / 1e3, "s")),
        (
            f"{PAPER_STEPS} steps of 'paper' in {PAPER_MINUTES} minutes",
            _told(PAPER_STEPS * paper / 6e4, "minutes"),
        ),
        (
            f"2048x2048 at {MEGAPIXELS_PER_SECOND} megapixels/s, array to array",
            _told(speed, "megapixels/s"),
        ),
        ("16384x16384, tif to tif", _told(tif, "megapixels/s")),
        (
            "joint training leads by two standard errors",
            _share(leads, lambda row: row["leads_by_two"]),
        ),
    ]


def _told(value: float, unit: str) -> str:
    return "not measured" if math.isnan(value) else f"{value:.1f} {unit}"


def _share(rows: list[Row], holds: Callable[[Row], bool]) -> str:
    return f"{sum(map(holds, rows))} of {len(rows)}" if rows else "not measured"
