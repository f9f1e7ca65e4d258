"""Measure the time to plan and tabulate studies with thousands of runs.

Dry runs and plans of the DenoiSeg paper's grids, and tables of synthetic scores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import record
from systems import ROOT, parser, read_config

from denoiseg_flow.evaluation.scoring import METRICS_COLUMNS, write_metrics
from denoiseg_flow.study.contents import comparison
from denoiseg_flow.study.grid import Grid

GRIDS = ("dsb2018", "flywing", "mouse")
SCORES = (
    "AP", "AP_0.6", "AP_0.7", "AP_0.8", "AP_0.9", "AP_mean", "SEG", "PSNR", "PSNR_255",
    "PSNR_scale_invariant", "SSIM", "MSE", "checkerboard", "PSNR_noisy", "SSIM_noisy",
)  # fmt: skip
TABLES = """
import json, sys
from pathlib import Path
from denoiseg_flow.reporting.tables.comparison import comparison_tables
from denoiseg_flow.reporting.tables.files import write_table
from denoiseg_flow.reporting.tables.statistics import read_metrics, write_metrics_csv
study, paths, folder = json.loads(Path(sys.argv[1]).read_text())
metrics = read_metrics(paths)
write_metrics_csv(metrics, Path(folder, "metrics.csv"))
for name, table in comparison_tables(metrics, study).items():
    write_table(table, Path(folder, name))
"""


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=10000, help="of which there are scores")
    options.add_argument("--images", type=int, default=50, help="test images of each run")
    return options.parse_args()


def measured(command: list[str]) -> dict[str, float]:
    """Return seconds on the clock and of the processor, and the peak memory of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:4])} failed")
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_mib": usage.ru_maxrss / 1024,
    }


def snakemake(folder: Path, config: str, *options: str) -> list[str]:
    """Return the command that plans a grid of the paper in an empty folder."""
    command = [sys.executable, "-m", "snakemake", *options, "--snakefile", str(ROOT / "Snakefile")]
    configfile = str(ROOT / f"config/paper/{config}.yaml")
    return [*command, "--directory", str(folder), "--configfile", configfile]


def write_scores(folder: Path, n_runs: int, n_images: int) -> list[str]:
    """Write the scores of so many runs of the DSB2018 grid, at random, and return their files."""
    config = read_config("paper/dsb2018.yaml")
    config["grid"]["seeds"] = list(range(1, 2 + n_runs // 333))  # 333 runs for each
    rng, paths = np.random.default_rng(0), []
    table = pd.DataFrame(
        [(f"image_{number:03d}", name) for number in range(n_images) for name in SCORES],
        columns=["image", "metric"],
    ).assign(source=lambda table: table["image"] + ".tif")
    for run in Grid(config).scored_runs[:n_runs]:
        path = folder / run.folder / "metrics.tsv"
        path.parent.mkdir(parents=True)
        rows = table.assign(**run.as_dict(), value=rng.random(len(table)))
        write_metrics(rows[METRICS_COLUMNS], path)
        paths.append(str(path))
    return paths


def measure_tables(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return what it takes to read the scores of many runs and write all tables."""
    study = comparison(Grid(read_config("paper/dsb2018.yaml")))
    study |= {"tables": ["segmentation", "denoising", "paired"]}  # the others read further files
    paths = write_scores(folder / "runs", options.runs, options.images)
    job = folder / "job.json"
    job.write_text(json.dumps((study, paths, str(folder))))
    return measured([sys.executable, "-c", TABLES, str(job)])


def main() -> None:
    """Measure and write ``scale.csv`` and ``scale.md``."""
    options = read_options()
    notes = record.machine(options.threads)
    rows = []
    with tempfile.TemporaryDirectory(prefix="benchmark_scale_") as name:
        for grid in GRIDS:
            folder = Path(name, grid)
            folder.mkdir()
            runs = len(Grid(read_config(f"paper/{grid}.yaml")).runs)
            for what, command in (
                ("dry run", snakemake(folder, grid, "--dry-run")),
                ("plan", snakemake(folder, grid, "plan", "--cores", "1")),
            ):
                rows.append({"what": f"{what}, {grid}", "runs": runs} | measured(command))
                print(f"{what}, {grid}: {rows[-1]['seconds']:.1f} s")
        rows.append({"what": "tables", "runs": options.runs} | measure_tables(Path(name), options))
    table = pd.DataFrame(rows)
    lines = [
        (
            row.what,
            f"{row.runs:,}",
            f"{row.seconds:.1f}",
            f"{row.processor_seconds:.1f}",
            f"{row.peak_memory_mib:,.0f}",
        )
        for row in table.itertuples()
    ]
    columns = ("what", "trainings", "on the clock (s)", "processor (s)", "peak memory (MiB)")
    notes += [
        "Dry runs with default output; a plan is a dry run in a process of its own, and "
        "the estimates.",
        f"Tables: segmentation, denoising, paired differences and metrics.csv, from files with "
        f"{len(SCORES)} scores of each of {options.images} images.",
    ]
    body = record.markdown_table(columns, lines)
    record.write(Path(options.out, "scale"), "Scale", table, body, notes)


if __name__ == "__main__":
    main()
