"""What `denoiseg-flow status` makes of the files of a study."""

import logging
import os

import pytest

from denoiseg_flow import cli, status
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.status import (
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    TRAINED,
    WAITING,
    duration,
    read_status,
)
from denoiseg_flow.study.grid import Run
from denoiseg_flow.study.provenance import record_study
from denoiseg_flow.training.progress import Progress

JOINT = Run("nuclei", "n10", "denoiseg", 4, 1)
N2V = Run("nuclei", "n10", "n2v", 0, 1)
RULES = {N2V: ["train", "predict_run"], JOINT: ["train", "predict_run", "score"]}


@pytest.fixture
def study(tmp_path):
    """A study of two runs that has just begun."""
    record_study(tmp_path / "results", {}, {"title": "t"}, RULES)
    return tmp_path


def make(study, run, *names):
    """Files that jobs made."""
    for name in names:
        path = study / "results/runs" / run.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def log_of(study, run, rule="train", text=""):
    path = study / "results/logs" / run.folder / f"{rule}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def state(study, run):
    (found,) = [each for each in read_status(study) if each.run == run]
    return found


def test_all_wait_before_the_first_job(study):
    assert [each.state for each in read_status(study)] == [WAITING, WAITING]
    assert read_status(study) == read_status(study / "results")


def test_a_run_is_done_when_its_last_file_is_there(study):
    states = []
    for name in ("model.pt", "predictions", "metrics.tsv"):
        make(study, N2V, name)
        make(study, JOINT, name)
        states.append(tuple(state(study, run).state for run in (N2V, JOINT)))
    assert states == [(TRAINED, TRAINED), (DONE, TRAINED), (DONE, DONE)]


def test_a_running_training(study, start_python, make_recipe):
    """Its job, in another process, holds the lock and logs what Progress reports."""
    log = log_of(study, JOINT)
    job = start_python(
        "import sys, time\n"
        "from denoiseg_flow.jobs.logs import job_log\n"
        "with job_log(sys.argv[1]):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n",
        log,
    )
    assert job.stdout.readline() == "started\n"
    found = state(study, JOINT)
    assert (found.state, found.detail) == (RUNNING, f"training ({holder(job)})")
    log.write_text(report(make_recipe(epochs=4, steps_per_epoch=5), seconds=90))
    os.utime(log, (1000, 1000))
    for now, shown in ((1000, "2 min left (heard 0 s"), (1040, "50 s left (heard 40 s"),
                       (2000, "0 s left (heard 17 min")):  # fmt: skip
        _, found = read_status(study, now)
        assert found.detail == f"training, epoch 2 of 4, {shown} ago) ({holder(job)})"
    job.kill()
    job.wait()
    assert state(study, JOINT) == (
        JOINT,
        STOPPED,
        "training; the next call of Snakemake continues it",
    )
    assert log.with_name("train.log.lock").exists()


def holder(job):
    return f"process {job.pid} on {os.uname().nodename}"


def report(recipe, seconds):
    """The line that a training logs after half of its steps, with that time left."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"12:00:00 INFO {record.getMessage()}")
    logger = logging.getLogger("denoiseg_flow.training.progress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        progress = Progress("d", recipe, done=0)
        for _ in range(recipe.steps // 2):
            progress.advance()
        progress._seconds = lambda: seconds
        progress.report({"loss": 0.5, "val_loss": 0.25})
    finally:
        logger.removeHandler(handler)
    return "\n".join(lines)


def test_on_another_machine_a_lock_is_believed(study):
    """Its locks may be invisible from here."""
    log = log_of(study, N2V)
    log.with_name("train.log.lock").write_text("process 7 on elsewhere, SLURM job 12")
    assert state(study, N2V).state == RUNNING
    assert "process 7 on elsewhere, SLURM job 12" in state(study, N2V).detail


def test_a_failure_and_its_reason(study):
    log = log_of(study, JOINT)
    with pytest.raises(SystemExit), job_log(log):
        raise InputError("the loss is nan; lower 'learning_rate'")
    assert state(study, JOINT).state == FAILED
    assert state(study, JOINT).detail == (
        f"training: Error: the loss is nan; lower 'learning_rate' ({log})"
    )
    make(study, N2V, "model.pt")
    log = log_of(study, N2V, "predict_run")
    with pytest.raises(SystemExit), job_log(log):
        raise ZeroDivisionError("by nothing")
    assert state(study, N2V).detail == f"prediction: ZeroDivisionError: by nothing ({log})"


def test_a_signal_stops_and_a_warning_does_not_fail(study):
    warning = "12:00:00 WARNING stopped by a signal; the next run resumes from checkpoint.pt\n"
    log_of(study, JOINT, text=warning)
    log_of(study, N2V, text="12:00:00 WARNING x.py:3: UserWarning: odd\n  code\n")
    assert [each.state for each in read_status(study)] == [WAITING, STOPPED]


@pytest.mark.parametrize("logs", ["<results>/elsewhere", "here/logs"])
def test_logs_that_were_moved(tmp_path, monkeypatch, logs):
    monkeypatch.chdir(tmp_path)
    record_study(tmp_path / "results", {}, {"pathvars": {"logs": logs}}, RULES)
    folder = tmp_path / logs.replace("<results>", "results") / JOINT.folder
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("Error: no\n")
    assert state(tmp_path, JOINT).state == FAILED


def test_table(study, capsys):
    make(study, N2V, "model.pt", "predictions")
    log = log_of(study, JOINT, text="Error: no\n")
    assert cli.main(["status", str(study)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{study}: 1 of 2 runs done",
        "",
        "dataset  noise  method    done  failed",
        "nuclei   n10    n2v          1",
        "nuclei   n10    denoiseg             1",
        "",
        "failed:",
        f"  nuclei/n10/denoiseg/annotated4/seed1: training: Error: no ({log})",
    ]


def test_watching_ends_with_ctrl_c(study, capsys, monkeypatch):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        make(study, N2V, "model.pt", "predictions")
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", sleep)
    assert cli.main(["status", str(study), "--watch"]) == 0
    text = capsys.readouterr().out
    assert waits == [5, 5]
    assert text.index("0 of 2 runs done") < text.index("1 of 2 runs done")


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "inf", "nan"])
def test_times_that_are_none(capsys, seconds):
    with pytest.raises(SystemExit):
        cli.main(["status", f"--watch={seconds}"])
    assert f"'{seconds}' is no time: give seconds, such as 5" in capsys.readouterr().err


def test_what_is_no_study(tmp_path, capsys):
    assert cli.main(["status", str(tmp_path)]) == 1
    message = f"Error: {tmp_path} is no folder of results (it has no study.json)"
    assert capsys.readouterr().err.startswith(message)


def test_nothing_is_written(study):
    log_of(study, JOINT).with_name("train.log.lock").write_text("process 7 on elsewhere")
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    read_status(study)
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (100, "2 min"), (3600, "1 h 0 min"),
     (12_000, "3 h 20 min"), (100_000, "27 h 47 min")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_every_rule_of_a_run_has_its_file_and_name():
    assert status._MAKES.keys() == status._DOES.keys() == set(RULES[JOINT])
