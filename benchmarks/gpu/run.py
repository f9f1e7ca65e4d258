"""Is the package correct, fast and good on this GPU? One run that needs no network and no Snakemake.

What it measures lies in ``<out>/<phase>.json`` as soon as it is known, so that a run that is cut off
has told something; the summary is printed and written last.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "workers")]
try:
    import denoiseg_flow
except ImportError:  # where nothing can be installed
    sys.path.insert(0, str(ROOT / "src"))
    import denoiseg_flow

import correct
import fast
import good
import torch
from material import Material
from phase import Phase, Row, format_value

from denoiseg_flow.devices import select_device

# Minutes of nine that each phase may take; what one leaves is for the next ones.
PHASES = {"correct": (correct.run, 2), "fast": (fast.run, 3), "good": (good.run, 4)}
# Goals on a GPU of the class of an H100.
FAST_STEPS, FAST_SECONDS = 1600, 10
PAPER_STEPS, PAPER_MINUTES = 80_000, 40
MEGAPIXELS_PER_SECOND = 200


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--minutes", type=float, default=9, help="of all phases together")
    options.add_argument("--out", type=Path, required=True, help="folder of the results")
    options.add_argument("--pack", type=Path, default=HERE / "pack", help="written by pack.sh")
    options.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: rehearse")
    options.add_argument("--phases", nargs="+", default=list(PHASES), choices=list(PHASES))
    return options.parse_args()


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
        return float(fast_rows.get(item, {}).get(key, np.nan))

    step = measured("2x16, batch 16, bf16, replayed, channels last", "ms_per_step")
    paper = measured("4x32, batch 128, bf16, replayed, channels last", "ms_per_step")
    speed = measured("prediction of 2048x2048, array to array", "megapixels_per_second_2x16")
    tif = measured("prediction of 16384x16384, tif to tif", "megapixels_per_second_n2v")
    checks = rows.get("correct", [])
    leads = [row for row in rows.get("good", []) if "leads_by_two" in row]
    return [
        ("all checks passed", f"{sum(row['status'] == 'ok' for row in checks)} of {len(checks)}"),
        (
            f"{FAST_STEPS} steps of 'fast' in {FAST_SECONDS} s",
            f"{FAST_STEPS * step / 1000:.1f} s",
        ),
        (
            f"{PAPER_STEPS} steps of 'paper' in {PAPER_MINUTES} minutes",
            f"{PAPER_STEPS * paper / 60_000:.1f} minutes",
        ),
        (
            f"2048x2048 at {MEGAPIXELS_PER_SECOND} megapixels/s, array to array",
            f"{speed:.0f} megapixels/s",
        ),
        ("16384x16384, tif to tif", f"{tif:.0f} megapixels/s"),
        (
            "joint training leads by two standard errors",
            f"in {sum(row['leads_by_two'] for row in leads)} of {len(leads)} comparisons",
        ),
    ]


def main() -> int:
    """Run the phases; return 1 if a check failed."""
    options = read_options()
    if not (options.pack / "settings.json").exists():
        raise SystemExit(f"there is no pack in {options.pack}; make it with benchmarks/gpu/pack.sh")
    options.out.mkdir(parents=True, exist_ok=True)
    device = select_device(options.device, threads=1)
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
    failed = any(row["status"] in ("FAILED", "error") for found in rows.values() for row in found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
