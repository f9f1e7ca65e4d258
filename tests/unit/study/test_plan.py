"""From what Snakemake says is left to hours and gigabytes."""

import pytest

from denoiseg_flow.study.costs import Estimates
from denoiseg_flow.study.dry_run import OF_RUNS, Pending, read_dry_run
from denoiseg_flow.study.grid import Grid
from denoiseg_flow.study.plan import make_plan, show

DRY_RUN = """Building DAG of jobs...
Job stats:
job      count
-----  -------
train        1

[Sun Nov 22 12:14:43 2026]
rule train:
    input: results/data/nuclei/prepared
    output: results/runs/nuclei/n10/n2v/annotated0/seed1/model.pt
    reason: Missing output files: results/runs/nuclei/n10/n2v/annotated0/seed1/model.pt
    wildcards: dataset=nuclei, noise=n10, method=n2v, n_annotated=0, seed=1
    resources: tmpdir=/tmp
[Sun Nov 22 12:14:43 2026]
localrule all:
    input: results/report.html
    jobid: 0

This was a dry-run (flag -n).
"""


@pytest.fixture
def grid(config):
    return Grid(config)


def planned(grid, tmp_path, left):
    runs = {rule: set(left) for rule in OF_RUNS}
    jobs = dict.fromkeys(OF_RUNS, len(left)) | {"report": 1}
    plan = make_plan(
        grid, Estimates(grid, tmp_path), Pending(jobs, runs), tmp_path / "b", tmp_path / "logs"
    )
    return plan, {line.rule: line for line in plan.lines}


def finish(run, tmp_path, seconds, device):
    """Write what a finished training leaves behind."""
    files = {
        tmp_path / f"b/train/{run.folder}.tsv": f"s\th:m:s\tmax_rss\n{seconds}\t-\t-\n",
        tmp_path / f"logs/{run.folder}/train.log": f"computing on {device} with 1 CPU thread(s)",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_jobs_are_read_from_a_dry_run(grid):
    left = read_dry_run(DRY_RUN)
    assert left.jobs == {"train": 1, "all": 1}
    assert left.runs == {"train": {grid.runs[0]}, "predict_run": set(), "score": set()}


def test_plan_adds_up(grid, tmp_path):
    plan, lines = planned(grid, tmp_path, grid.runs)
    assert (lines["train"].jobs, lines["train"].finished) == (len(grid.runs), 0)
    assert plan.total.jobs == 3 * len(grid.runs) + 1
    assert plan.total.core_hours == pytest.approx(sum(line.core_hours for line in plan.lines))
    assert "36" in show(plan, "A study")


def test_half_as_many_runs_cost_half(grid, tmp_path):
    noises = {noise: [run for run in grid.runs if run.noise == noise] for noise in ("n10", "n20")}
    _, whole = planned(grid, tmp_path, grid.runs)
    _, half = planned(grid, tmp_path, noises["n20"])
    assert half["train"].finished == len(noises["n10"])
    assert half["train"].core_hours == pytest.approx(whole["train"].core_hours / 2)


@pytest.mark.parametrize(("device", "column"), [("cpu", "core_hours"), ("cuda", "gpu_hours")])
def test_measured_time_is_believed_where_it_was_measured(grid, tmp_path, device, column):
    done, *left = [run for run in grid.runs if run.method == "n2v"]
    grid.runs = [done, *left]
    before = planned(grid, tmp_path, left)[1]["train"]
    finish(done, tmp_path, 7200, device)
    (tmp_path / f"b/predict_run/{done.folder}.tsv").parent.mkdir(parents=True)
    (tmp_path / f"b/predict_run/{done.folder}.tsv").write_text(
        "s\th:m:s\tmax_rss\n7200\t"
    )  # damaged
    plan, lines = planned(grid, tmp_path, left)
    assert getattr(lines["train"], column) == pytest.approx(2 * len(left), rel=1e-2)
    other = "gpu_hours" if column == "core_hours" else "core_hours"
    assert getattr(lines["train"], other) == getattr(before, other)
    assert any(note.startswith(f"{len(left)} trainings") for note in plan.notes)


def test_guesses_are_told(grid, tmp_path):
    grid.config["datasets"]["nuclei"] = {"source": "remote", "split": "given"}
    plan, _ = planned(grid, tmp_path, grid.runs)
    assert any("The size of dataset nuclei is not known" in note for note in plan.notes)
