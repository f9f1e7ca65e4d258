"""What Snakemake still has to do for a study: its own account of it, from a dry run.

The printed account is read, because Snakemake keeps its list of jobs to itself: in its API it is
private, and a logger plugin would have to be a distribution of its own.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from denoiseg_flow.errors import InputError
from denoiseg_flow.study.grid import Run

# The rules of which there is a job for each run; their wildcards are the axes of the run.
OF_RUNS = ("train", "predict_run", "score")

_JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", re.MULTILINE)
_WILDCARDS = re.compile(r"^    wildcards: (.*)$", re.MULTILINE)


class Pending(NamedTuple):
    """The jobs that are left."""

    jobs: Counter[str]
    """Their number, by rule."""
    runs: dict[str, set[Run]]
    """For each rule of OF_RUNS, the runs that it has to make or make anew."""


def find_pending(
    snakefile: str,
    folders: Mapping[str, str],
    triggers: Sequence[str],
    config: Mapping[str, Any],
    target: str = "all",
) -> Pending:
    """Ask Snakemake which jobs of a study are left, without doing any.

    A job whose output is unfinished, or older than what it was made from, or was made with other
    parameters, is left. A study that runs meanwhile is not disturbed.

    Parameters
    ----------
    snakefile
        That of this workflow.
    folders
        Where it has its ``results``, ``logs`` and ``benchmarks``.
    triggers
        What makes Snakemake repeat a job (``--rerun-triggers``).
    config
        The whole config.
    target
        The rule or file to reach.

    Raises
    ------
    InputError
        If Snakemake cannot plan the study; the message is its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.write_text(json.dumps({**config, "pathvars": dict(folders)}), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", target, "--snakefile", snakefile]
        command += ["--dry-run", "--rerun-incomplete", "--workflow-profile", "none"]
        command += ["--rerun-triggers", *triggers, "--configfile", str(file)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "SNAKEMAKE_PROFILE"},
        )
    if done.returncode:
        raise InputError(f"Snakemake cannot plan the study: {done.stderr.strip()}")
    return read_dry_run(done.stdout + done.stderr)


def read_dry_run(text: str) -> Pending:
    """Return the jobs that the output of a dry run announces."""
    jobs: Counter[str] = Counter()
    runs: dict[str, set[Run]] = {rule: set() for rule in OF_RUNS}
    for rule, details in _JOB.findall(text):
        jobs[rule] += 1
        if rule in OF_RUNS:
            wildcards = _WILDCARDS.search(details)[1]
            runs[rule].add(Run.of(dict(pair.split("=", 1) for pair in wildcards.split(", "))))
    return Pending(jobs, runs)
