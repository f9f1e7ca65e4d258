"""Compare Noise2Noise between repeats of each field with Noise2Void on the first of them.

The fields are simulated, so the truth is known: the score against the mean of the other repeats is
shown beside the one against the truth. The noise is white, or correlated along the rows.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
import yaml
from systems import parser, run_workflow

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.noise import noisy_copy
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array
from denoiseg_flow.reporting.tables.statistics import denoising_summary, read_metrics_csv

SHOWN = ("PSNR", "PSNR_mean_of_repeats")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__, "benchmarks/results/repeats")
    options.add_argument("--fields", type=int, default=32, help="number of fields")
    options.add_argument("--size", type=int, default=128, help="height and width in pixels")
    options.add_argument("--sigma", type=float, default=20.0, help="of the noise, in grey levels")
    options.add_argument("--repeats", type=int, nargs="+", default=[2, 8], help="of each field")
    options.add_argument("--recipe", default="fast", help="of config/config.yaml")
    options.add_argument("--epochs", type=int, default=16, help="of the recipe")
    options.add_argument("--seeds", type=int, nargs="+", default=[1])
    return options.parse_args()


def levels(sigma: float) -> dict[str, dict[str, Any]]:
    """Return the compared kinds of noise, as in ``noises`` of a config."""
    lines = {"kind": "structured", "sigma": sigma, "length": 5, "axis": "x", "seed": 0}
    return {"white": {"kind": "gaussian", "sigma": sigma, "seed": 0}, "lines": lines}


def write_fields(options: argparse.Namespace, study: Path) -> None:
    """Write the truth, and for each noise and number of repeats a folder of stacks."""
    for each in simulate(n_images=options.fields, size=options.size):
        write_array(study / "truth" / f"{each.name}.tif", each.clean.astype(np.float32))
        for noise, level in levels(options.sigma).items():
            stack = np.stack(
                [
                    noisy_copy(each.clean, level, noise, each.name, copy)
                    for copy in range(max(options.repeats))
                ]
            )
            for count in options.repeats:
                path = study / f"{noise}_{count}" / f"{each.name}.tif"
                write_array(path, stack[:count], Metadata("TYX"))


def run_study(options: argparse.Namespace) -> pd.DataFrame:
    """Run the workflow, or what is missing of it; return the means of each dataset and method."""
    study = options.out / "study"
    if not (study / "truth").exists():
        write_fields(options, study)
    found = []
    for count in options.repeats:
        # Noise2Void reads the first repeat only, however many there are.
        methods = ["n2v", "n2n"] if count == options.repeats[0] else ["n2n"]
        datasets = {
            f"{noise}_{count}": {
                "source": "folder",
                "images": f"{noise}_{count}",
                "clean": "truth",
                "repeats": "T",
            }
            for noise in levels(options.sigma)
        }
        config = study / f"repeats_{count}.yaml"
        axes = {"datasets": list(datasets), "noises": ["n0"], "methods": methods}
        axes |= {"seeds": options.seeds, "reference": methods[0]}
        changes: dict[str, Any] = {"recipe": options.recipe, "datasets": datasets, "grid": axes}
        changes["recipes"] = {options.recipe: {"epochs": options.epochs}}
        config.write_text(yaml.safe_dump(changes))
        run_workflow(study, config, options.threads, ["results/tables/metrics.csv"])
        found.append(read_metrics_csv(study / "results/tables/metrics.csv"))
    return denoising_summary(pd.concat(found, ignore_index=True), SHOWN)


def compare(summary: pd.DataFrame, options: argparse.Namespace) -> list[Sequence[object]]:
    """Return a row of text for each noise, method and number of repeats."""
    cells = summary.set_index(["dataset", "method", "metric"])["mean"]
    first = options.repeats[0]
    rows: list[Sequence[object]] = []
    for noise in levels(options.sigma):
        for method, count in [
            ("noisy input", first),
            ("n2v", first),
            *(("n2n", count) for count in options.repeats),
        ]:
            values = (f"{cells[f'{noise}_{count}', method, metric]:.2f}" for metric in SHOWN)
            rows.append((f"{noise}, {method}", count, *values))
    return rows


def describe(options: argparse.Namespace) -> str:
    """Return a sentence about images and training."""
    what: Mapping[str, object] = levels(options.sigma)["lines"]
    return (
        f"{options.fields} simulated fields of nuclei, {options.size}x{options.size} pixels, a "
        f"quarter of them for testing; noise of {options.sigma:g} grey levels, white or the sum of "
        f"{what['length']} neighbours in a row; recipe `{options.recipe}` with "
        f"{options.epochs} epochs, seeds "
        f"{', '.join(map(str, options.seeds))}."
    )


def main() -> None:
    """Measure and write ``repeats.csv`` and ``repeats.md``."""
    options = read_options()
    notes = record.machine(options.threads)
    summary = run_study(options)
    columns = ("noise and method", "repeats", *SHOWN)
    body = record.markdown_table(columns, compare(summary, options))
    notes.append(describe(options))
    record.write(options.out / "repeats", "Repeats of each field", summary, body, notes)


if __name__ == "__main__":
    main()
