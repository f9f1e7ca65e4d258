"""Estimate jobs, hours and gigabytes of a study before it runs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from denoiseg_flow.study.benchmarks import read_benchmark
from denoiseg_flow.study.costs import Cost, Estimates
from denoiseg_flow.study.dry_run import Pending
from denoiseg_flow.study.grid import Grid, Run

# Overhead of each job that its benchmark file does not include: Snakemake starts a process and
# reads the workflow. Jobs other than trainings and predictions count with this overhead only. The
# default study, 123 jobs, 2026-11-22, 2 cores of an Intel Xeon: 130 s of processor time in addition
# to trainings and predictions.
JOB_SECONDS = 1.1
# Per pixel of a dataset: images, masks and clean images; and each of its noise levels.
PREPARED_BYTES, NOISY_BYTES = 6, 4


class Line(NamedTuple):
    """Jobs and costs of one rule; hours on CPU cores only, or with GPUs."""

    rule: str
    jobs: int
    finished: int | None
    core_hours: float
    gpu_hours: float
    gigabytes: float


class Plan(NamedTuple):
    """Costs of a study, with notes on how to read them."""

    lines: list[Line]
    notes: list[str]

    @property
    def total(self) -> Line:
        """The sum over all rules."""
        numbers = zip(*(line[3:] for line in self.lines), strict=True)
        return Line("total", sum(line.jobs for line in self.lines), None, *map(sum, numbers))


def make_plan(
    grid: Grid,
    estimates: Estimates,
    pending: Pending,
    benchmarks: Path,
    logs: Path,
) -> Plan:
    """Add up the costs of all pending jobs.

    Parameters
    ----------
    benchmarks, logs
        The workflow's folders. Measurements of finished jobs replace the estimates for runs of the
        same dataset and method.
    """
    lines, n_measured = [], 0
    for rule, estimate in (("train", estimates.training), ("predict_run", estimates.prediction)):
        left = pending.runs[rule]
        done = [run for run in grid.runs if run not in left]
        measured = _measure(rule, done, benchmarks, logs)
        costs = [_corrected(estimate(run), measured.get(_kind(run))) for run in left]
        n_measured += sum(_kind(run) in measured for run in left)
        lines.append(_line(rule, len(left), len(done), costs))
    for rule, jobs in sorted(pending.jobs.items(), key=lambda item: (-item[1], item[0])):
        if rule not in pending.runs:
            size = _prepared_bytes(grid, estimates, rule) if jobs else 0
            lines.append(Line(rule, jobs, None, 0.0, 0.0, size * 1e-9))
    scored = len(pending.runs["score"])
    lines.insert(2, Line("score", scored, len(grid.scored_runs) - scored, 0.0, 0.0, 0.0))
    lines = [_with_start(line) for line in lines]
    return Plan(lines, _notes(grid, estimates, n_measured))


def _line(rule: str, jobs: int, finished: int, costs: Sequence[Cost]) -> Line:
    return Line(
        rule,
        jobs,
        finished,
        sum(cost.core_seconds for cost in costs) / 3600,
        sum(cost.core_seconds if cost.gpu_seconds is None else cost.gpu_seconds for cost in costs)
        / 3600,
        sum(cost.output_bytes for cost in costs) * 1e-9,
    )


def _with_start(line: Line) -> Line:
    return line._replace(core_hours=line.core_hours + line.jobs * JOB_SECONDS / 3600)


def _prepared_bytes(grid: Grid, estimates: Estimates, rule: str) -> float:
    """Return how many bytes all jobs of a rule that prepares data write."""
    axes = grid.config["grid"]
    per_pixel = {"prepare": PREPARED_BYTES, "add_noise": NOISY_BYTES * len(axes["noises"])}
    pixels = 0
    for dataset in axes["datasets"]:
        images = estimates.extent(dataset)
        pixels += images.n_images * images.pixels
    return per_pixel.get(rule, 0) * pixels


def _kind(run: Run) -> tuple[str, str]:
    return run.dataset, run.method


class _Measured(NamedTuple):
    """Mean seconds of finished jobs of one kind on a core and on a GPU; None without such jobs."""

    core_seconds: float | None
    gpu_seconds: float | None


def _measure(
    rule: str, runs: Iterable[Run], benchmarks: Path, logs: Path
) -> dict[tuple[str, str], _Measured]:
    """Return the measured times of finished jobs, by dataset and method."""
    seconds: dict[tuple[str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for run in runs:
        benchmark, log = benchmarks / rule / f"{run.folder}.tsv", logs / run.folder / f"{rule}.log"
        if taken := read_benchmark(benchmark):
            on_gpu = log.exists() and "computing on cuda" in log.read_text(
                encoding="utf-8", errors="replace"
            )
            seconds[_kind(run)][on_gpu].append(taken[0])
    return {
        kind: _Measured(*(fmean(values) if values else None for values in both))
        for kind, both in seconds.items()
    }


def _corrected(cost: Cost, measured: _Measured | None) -> Cost:
    """Return a cost with measured times in place of the estimates."""
    known = {} if measured is None else measured._asdict()
    return replace(cost, **{name: value for name, value in known.items() if value is not None})


def _notes(grid: Grid, estimates: Estimates, n_measured: int) -> list[str]:
    notes = [
        "Core-hours: all jobs on CPU cores like those in docs/explanation/performance.md, without "
        "a GPU. GPU-hours: trainings and predictions on GPUs instead, extrapolated from the "
        "DenoiSeg paper (0.35 s for a training step) and not measured."
    ]
    guessed = [name for name in grid.config["grid"]["datasets"] if not estimates.extent(name).known]
    for name in guessed:
        images = estimates.extent(name)
        sides = "x".join(map(str, images.shape))
        notes.append(
            f"The size of dataset {name} is not known before it is prepared; assumed: "
            f"{images.n_images:,} images of {sides} pixels, {images.n_test:,} of them for testing."
        )
    if n_measured:
        notes.append(
            f"{n_measured:,} trainings and predictions count with the mean time of finished ones "
            "of the same dataset and method, on the machine where these ran."
        )
    return notes


def show(plan: Plan, title: str) -> str:
    """Return the plan as a text table for the screen."""
    head = ("", "jobs", "finished", "core-hours", "or GPU-hours", "GB")
    rows = [head] + [
        (
            line.rule,
            f"{line.jobs:,}",
            "" if line.finished is None else f"{line.finished:,}",
            _hours(line.core_hours),
            _hours(line.gpu_hours),
            f"{line.gigabytes:,.1f}" if line.gigabytes >= 0.05 else "",
        )
        for line in [*plan.lines, plan.total]
        if line.jobs or line.finished or line.rule == "total"
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines.insert(-1, "-" * len(lines[0]))
    return "\n".join([f"Plan: {title}", "", *lines, "", *plan.notes])


def _hours(hours: float) -> str:
    if hours < 0.005:
        return ""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:,.2f}"
