"""The state of the runs of a study, from the files that its jobs write; reads only."""

import re
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from denoiseg_flow.jobs.lock import holder
from denoiseg_flow.study.grid import Run
from denoiseg_flow.study.provenance import read_config, read_runs, results_in
from denoiseg_flow.training.progress import last_reported

STATES = DONE, TRAINED, RUNNING, STOPPED, FAILED, WAITING = (
    "done",
    "trained",  # waits to be predicted or scored
    "running",
    "stopped",
    "failed",
    "waiting",
)

# The last file that a rule makes for a run, and what its job does.
_MAKES = {"train": "model.pt", "predict_run": "predictions", "score": "metrics.tsv"}
_DOES = {"train": "training", "predict_run": "prediction", "score": "scores"}
_FAILURE = re.compile(r"^(?:Error: .*|Traceback \(most recent call last\):)$", re.MULTILINE)
_SIGNAL = "stopped by a signal"


class RunStatus(NamedTuple):
    """The state of one run."""

    run: Run
    state: str
    """One of :data:`STATES`."""
    detail: str = ""
    """What a running job does and how long it will, or why one does not run."""


def read_status(study: Path, now: float | None = None) -> list[RunStatus]:
    """Return the state of each run of the last study in a folder.

    A run is done when all its files are there, even if a changed config would repeat it.

    Parameters
    ----------
    study
        Folder with the results, or the results themselves.
    now
        Seconds since 1970; None is the present.

    Raises
    ------
    InputError
        If no study has run in it, or one of another version.
    """
    results = results_in(study)
    logs = _logs(results, read_config(results))
    now = time.time() if now is None else now
    return [_status(run, rules, results, logs, now) for run, rules in read_runs(results).items()]


def _logs(results: Path, config: Mapping[str, Any]) -> Path:
    """Return the folder of logs; a relative path of the config is one from the folder here."""
    moved = config.get("pathvars", {}).get("logs", "<results>/logs")
    return Path(moved.replace("<results>", str(results)))


def _status(run: Run, rules: list[str], results: Path, logs: Path, now: float) -> RunStatus:
    folder = results / "runs" / run.folder
    rule = next((rule for rule in rules if not (folder / _MAKES[rule]).exists()), None)
    if rule is None:
        return RunStatus(run, DONE)
    log = logs / run.folder / f"{rule}.log"
    lock = log.with_name(f"{log.name}.lock")
    process = holder(lock)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if process:
        what = [_DOES[rule]]
        if reported := last_reported(text):
            age = max(0.0, now - log.stat().st_mtime)
            left = max(0.0, reported.seconds - age)
            what += [reported.place, f"{duration(left)} left (heard {duration(age)} ago)"]
        return RunStatus(run, RUNNING, f"{', '.join(what)} ({process})")
    if failures := _FAILURE.findall(text):
        failure = text.strip().rsplit("\n", 1)[-1] if "Traceback" in failures[-1] else failures[-1]
        return RunStatus(run, FAILED, f"{_DOES[rule]}: {failure} ({log})")
    if lock.exists() or _SIGNAL in text:
        return RunStatus(run, STOPPED, f"{_DOES[rule]}; the next call of Snakemake continues it")
    return RunStatus(run, WAITING if rule == "train" else TRAINED)


def show(runs: list[RunStatus], title: str) -> str:
    """Return a table of the states by dataset, noise level and method, and what runs or failed."""
    total = Counter(status.state for status in runs)
    states = [state for state in STATES if total[state]]
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for status in runs:
        key = (status.run.dataset, status.run.noise, status.run.method)
        counts.setdefault(key, Counter())[status.state] += 1
    rows = [["dataset", "noise", "method", *states]]
    rows += [
        [*key, *(str(found[state] or "") for state in states)] for key, found in counts.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{title}: {total[DONE]} of {len(runs)} runs done", ""]
    for row in rows:
        named = [text.ljust(width) for text, width in zip(row[:3], widths[:3], strict=True)]
        counted = [text.rjust(width) for text, width in zip(row[3:], widths[3:], strict=True)]
        lines.append("  ".join([*named, *counted]).rstrip())
    for state in (RUNNING, STOPPED, FAILED):
        if total[state]:
            lines += ["", f"{state}:"]
        lines += [f"  {each.run.folder}: {each.detail}" for each in runs if each.state == state]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time in the largest unit that fits, and hours with minutes: ``3 h 20 min``."""
    minutes, whole = round(seconds / 60), round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
