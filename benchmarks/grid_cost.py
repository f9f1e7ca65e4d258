"""Estimate the cost of the paper's full grid from a run of a reduced grid.

Runs the workflow on a reduced grid, reads the time per job from its table of costs, and multiplies
it by the number of such jobs in the full grid.
"""

import argparse
from collections import Counter
from pathlib import Path

import pandas as pd
import record
import yaml
from systems import parser, read_config, run_workflow

from denoiseg_flow.methods.definition import Method
from denoiseg_flow.study.grid import Grid

FULL_GRID = "paper/dsb2018.yaml"
NETWORK = (4, 32)  # depth and filters of the paper
PAPER_BATCH = 128
PAPER_STEPS = 200 * 237  # 3800 patches, augmented eight-fold, in batches of 128
PAPER_SECONDS_PER_STEP = 0.35  # published, on the authors' GPU


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__, "benchmarks/results/grid_cost")
    options.add_argument("--images", type=Path, required=True, help="folder of clean images")
    options.add_argument("--masks", type=Path, required=True, help="folder of their masks")
    options.add_argument("--recipe", default="fast", help="of config/config.yaml")
    options.add_argument("--noises", nargs="+", default=["n20"])
    options.add_argument("--n-annotated", type=int, nargs="+", default=[10])
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument(
        "--throughput",
        type=Path,
        default=Path("benchmarks/results/throughput.csv"),
        help="result of throughput.py, for the reference's time per step",
    )
    return options.parse_args()


def kind(method: Method) -> str:
    """Return the method of the reduced grid that costs what this one does."""
    if method.denoises:
        return "denoiseg" if method.segments else "n2v"
    return "baseline" if method.input == "noisy" else "sequential"


def jobs(grid: Grid) -> Counter[str]:
    """Return how many runs of each kind a grid has, those that others build on included."""
    return Counter(kind(grid.methods[run.method]) for run in grid.runs)


def run_reduced_grid(options: argparse.Namespace, kinds: list[str]) -> pd.DataFrame:
    """Run the workflow, or what is missing of it, and return its table of costs."""
    study = options.out / "study"
    study.mkdir(parents=True, exist_ok=True)
    images, masks = (str(path.resolve()) for path in (options.images, options.masks))
    changes = {
        "recipe": options.recipe,
        "datasets": {"dsb2018": {"images": images, "masks": masks, "clean": images}},
        "grid": {
            "noises": options.noises,
            "methods": kinds,
            "n_annotated": options.n_annotated,
            "seeds": options.seeds,
            "reference": kinds[-1],
        },
    }
    config = study / "reduced.yaml"
    config.write_text(yaml.safe_dump(changes))
    target = "results/benchmarks/costs.csv"
    run_workflow(study, config, options.threads, [target])
    return pd.read_csv(study / target)


def extrapolate(costs: pd.DataFrame, full: Counter[str]) -> pd.DataFrame:
    """Return one row per rule and kind: measured jobs and seconds, and hours of the full grid.

    Parameters
    ----------
    costs
        Columns rule, method, n_jobs, median_seconds, total_hours; one core per job.
    full
        Runs of each kind in the full grid.
    """
    table = costs[["rule", "method", "n_jobs", "median_seconds", "total_hours"]].copy()
    table["mean_seconds"] = 3600 * table["total_hours"] / table["n_jobs"]
    table["full_jobs"] = [full[method] for method in table["method"]]
    table["full_core_hours"] = table["mean_seconds"] * table["full_jobs"] / 3600
    return table


def reference_hours(options: argparse.Namespace, runs: int) -> list[tuple[str, str]]:
    """Return label and hours of the reference's own schedule for so many trainings."""
    steps = runs * PAPER_STEPS
    lines = [
        (
            f"reference, {PAPER_SECONDS_PER_STEP} s/step as published: GPU-hours",
            f"{steps * PAPER_SECONDS_PER_STEP / 3600:,.0f}",
        )
    ]
    if options.throughput.exists():
        table = pd.read_csv(options.throughput)
        same = (table["depth"] == NETWORK[0]) & (table["filters"] == NETWORK[1])
        measured = table[same & (table["system"] == "reference denoiseg")]
        if len(measured):
            seconds = PAPER_BATCH / measured["patches_per_second"].median()
            lines.append(
                (
                    f"reference, {seconds:.2f} s/step as measured here: core-hours",
                    f"{steps * seconds * options.threads / 3600:,.0f}",
                )
            )
    return lines


def main() -> None:
    """Measure and write ``grid_cost.csv`` and ``grid_cost.md``."""
    options = read_options()
    full = jobs(Grid(read_config(FULL_GRID)))
    notes = record.machine(options.threads)
    table = extrapolate(run_reduced_grid(options, sorted(full, reverse=True)), full)
    rows = [
        (
            f"{row.rule} {row.method}",
            row.n_jobs,
            f"{row.mean_seconds:.1f}",
            row.full_jobs,
            f"{row.full_core_hours:,.1f}",
        )
        for row in table.itertuples()
    ]
    columns = ("job", "measured", "mean (s)", "in the full grid", "core-hours of the full grid")
    runs = full.total()
    totals = [
        (f"ours, recipe `{options.recipe}`: core-hours", f"{table['full_core_hours'].sum():,.0f}"),
        *reference_hours(options, runs),
    ]
    body = "\n\n".join(
        [
            record.markdown_table(columns, rows),
            f"The full grid, `config/{FULL_GRID}`, has {runs:,} trainings:",
            record.markdown_table(("total", "hours"), totals),
        ]
    )
    notes += [
        f"Measured: {', '.join(options.noises)}, {_listed(options.n_annotated)} annotated images, "
        f"seeds {_listed(options.seeds)}, {options.threads} jobs of one core at a time. Recipe "
        f"`{options.recipe}` is not the schedule of the paper: this is the cost of answering the "
        "same questions, not of doing the same steps.",
        f"The reference's schedule is {PAPER_STEPS:,} steps of batch {PAPER_BATCH} for each "
        "training; its predictions and threshold searches are not counted. Measured core-hours "
        f"need a row of depth {NETWORK[0]} and {NETWORK[1]} filters in throughput.csv.",
    ]
    record.write(options.out / "grid_cost", "Cost of the paper's grid", table, body, notes)


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))


if __name__ == "__main__":
    main()
