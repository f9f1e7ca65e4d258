"""Measure the throughput of training (patches per second) and its share of the peak performance.

Includes sampling, augmentation, masking and the optimiser step. The systems run in alternation,
with the same network, patch size and batch size.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd
import record
from rounds import alternate, spread
from systems import (
    CAREAMICS,
    REFERENCE,
    System,
    add_peers,
    ours,
    parser,
    peer_python,
    read_method,
    read_recipe,
    run,
)

from denoiseg_flow.data.simulated import simulator

MASKED = 1 / 64  # of the pixels, by ours and CAREamics; the reference has 1.5%
# What our recipe adds to the work of a step is left out: the others have nothing like it.
PLAIN = {"masked_fraction": MASKED, "pseudo_labels": 0.0, "freeze_batch_norm": 0.0}
N_IMAGES, IMAGE_SIZE = 33, 256  # one of them for validation


def size(text: str) -> tuple[int, int]:
    """Read "4x32" as depth 4 and 32 filters."""
    depth, _, filters = text.partition("x")
    return int(depth), int(filters)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    add_peers(options, REFERENCE, CAREAMICS)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--warm-up", type=int, default=20, help="steps that do not count")
    options.add_argument("--steps", type=int, default=100, help="steps that count")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--patch", type=int, default=64)
    options.add_argument(
        "--sizes", type=size, nargs="+", default=[(4, 32), (2, 16)], help="depth x filters: 4x32"
    )
    options.add_argument("--recipe", default="fast", help="of config/config.yaml, for ours")
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument(
        "--careamics-workers",
        type=int,
        nargs="+",
        default=[-1, 0],
        help="processes that load its data, each number a row of its own; -1 is its default",
    )
    return options.parse_args()


def choose_systems(options: argparse.Namespace) -> tuple[list[System], list[str]]:
    """Return the rows of the table, and sentences on those that are missing."""
    systems = [ours(f"ours {name}", method=read_method(name)) for name in ("denoiseg", "n2v")]
    python, notes = peer_python(options, REFERENCE)
    if python:
        systems.append(System("reference denoiseg", REFERENCE, python, {}))
    python, missing = peer_python(options, CAREAMICS)
    for workers in options.careamics_workers if python else []:
        name = "careamics n2v" + ("" if workers < 0 else f" {workers} workers")
        systems.append(System(name, CAREAMICS, python, {"workers": workers}))
    return systems, notes + missing


def measure(options: argparse.Namespace, systems: list[System]) -> pd.DataFrame:
    """Return one row per size, round and system."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="benchmark_images_") as images:
        simulator.write(images, n_images=N_IMAGES, size=IMAGE_SIZE, n_nuclei=(32, 88))
        for depth, filters in options.sizes:
            shape = {
                "depth": depth,
                "filters": filters,
                "patch_size": options.patch,
                "batch_size": options.batch,
            }
            job = {
                "images": images,
                "warm_up": options.warm_up,
                "steps": options.steps,
                "device": options.device,
                "recipe": read_recipe(options.recipe) | shape | PLAIN,
                "masked_fraction": MASKED,
                **shape,
            }
            for number, system in alternate(systems, options.rounds):
                # Right before each job, so that share and peak are of the same moment.
                peak = run(ours("peak"), "peak", job | {"repeats": 10}, options)["gflops"]
                report = run(system, "throughput", job, options)
                software = record.versions(report.pop("versions"))
                rows.append(
                    {"round": number, "system": system.name, **shape, "peak_gflops": peak}
                    | report
                    | {"software": software}
                )
                speed = report["patches_per_second"]
                print(f"{depth}x{filters}, round {number}, {system.name}: {speed:.1f} patches/s")
    table = pd.DataFrame(rows)
    reached = table["patches_per_second"] * table["flops_per_patch"] * 1e-9
    return table.assign(share_of_peak=reached / table["peak_gflops"])


def summary(table: pd.DataFrame) -> str:
    """Return one Markdown table per size."""
    parts = []
    for (depth, filters), part in table.groupby(["depth", "filters"], sort=False):
        rows = [
            (
                system,
                spread(group["patches_per_second"]),
                f"{100 * group['share_of_peak'].median():.0f} %",
                f"{group['parameters'].iloc[0]:,}",
                f"{group['flops_per_patch'].iloc[0] * 1e-9:.2f}",
                f"{group['start_up_seconds'].median():.1f}",
            )
            for system, group in part.groupby("system", sort=False)
        ]
        columns = (
            "system", "patches/s", "share of peak", "parameters", "GFLOP per patch", "start-up (s)",
        )  # fmt: skip
        parts += [
            f"## U-Net of depth {depth} with {filters} filters",
            record.markdown_table(columns, rows),
        ]
    return "\n\n".join(parts)


def main() -> None:
    """Measure and write ``throughput.csv`` and ``throughput.md``."""
    options = read_options()
    systems, missing = choose_systems(options)
    notes = record.machine(options.threads)
    table = measure(options, systems)
    notes += [f"{name}: {software}." for name, software in _software(table).items()]
    if (table["share_of_peak"] > 1).any():
        notes.append("**Invalid:** more than the peak was measured; the machine was disturbed.")
    notes += [
        f"Patches of {options.patch}x{options.patch} in batches of {options.batch} on "
        f"{options.device}; {options.steps} steps after {options.warm_up} that do not count; "
        f"median (lowest to highest) of {options.rounds} rounds in alternation.",
        "Peak: float32 matrix product with torch on the same threads, measured before every job, "
        f"{spread(table['peak_gflops'], 0)} GFLOP/s.",
        "Only convolutions are counted as work: three times their forward multiply-adds, two "
        "operations each. Start-up is everything before the first step that counts (ours) or "
        "before the end of the first step (peers), imports included.",
        "The reference gets its patches augmented in advance; the others augment while training.",
        *missing,
    ]
    record.write(
        Path(options.out, "throughput"), "Throughput of training", table, summary(table), notes
    )


def _software(table: pd.DataFrame) -> dict[str, str]:
    return table.groupby("system", sort=False)["software"].first().to_dict()


if __name__ == "__main__":
    main()
