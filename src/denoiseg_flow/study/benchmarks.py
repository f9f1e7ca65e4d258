"""Read run time and memory of finished jobs, as measured by Snakemake."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from statistics import fmean


def read_benchmark(path: str | Path) -> tuple[float, float] | None:
    """Return seconds and peak memory (MiB) in a benchmark file, averaged over repeats.

    Memory is NaN if the job was too short for Snakemake to measure it. Returns None if the file is
    missing or damaged.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            runs = list(csv.DictReader(file, delimiter="\t"))
        if any(None in run.values() for run in runs):  # a truncated row
            return None
        memory = [float(run["max_rss"]) for run in runs if run["max_rss"] not in ("-", "NA")]
        seconds = fmean(float(run["s"]) for run in runs)  # ValueError if there is none
    except (OSError, KeyError, ValueError):
        return None
    return seconds, fmean(memory) if memory else math.nan
