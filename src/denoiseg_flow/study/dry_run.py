"""Find the pending jobs of a study in a dry run of Snakemake.

The printed dry run is parsed: the list of jobs is private in Snakemake's API, and a logger plugin
would have to be a distribution of its own.
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

# Rules with one job for each run; their wildcards are the axes of the run.
OF_RUNS = ("train", "predict_run", "score")

_JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", re.MULTILINE)
_WILDCARDS = re.compile(r"^    wildcards: (.*)$", re.MULTILINE)


class Pending(NamedTuple):
    """The pending jobs."""

    jobs: Counter[str]
    """Number of jobs by rule."""
    runs: dict[str, set[Run]]
    """Pending runs of each rule in OF_RUNS."""


def find_pending(
    snakefile: str,
    folders: Mapping[str, str],
    triggers: Sequence[str],
    config: Mapping[str, Any],
    target: str = "all",
) -> Pending:
    """Ask Snakemake which jobs of a study are pending, without running any.

    A job is pending if its output is missing or incomplete, is older than its input, or was made
    with other parameters. A running study is not disturbed.

    Parameters
    ----------
    snakefile
        Snakefile of this workflow.
    folders
        Its folders ``results``, ``logs`` and ``benchmarks``.
    triggers
        Snakemake's ``--rerun-triggers``.
    config
        The whole config.
    target
        Rule or file to make.

    Raises
    ------
    InputError
        If Snakemake cannot plan the study; quotes Snakemake's message.
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
    """Return the jobs listed in the output of a dry run."""
    jobs: Counter[str] = Counter()
    runs: dict[str, set[Run]] = {rule: set() for rule in OF_RUNS}
    for rule, details in _JOB.findall(text):
        jobs[rule] += 1
        if rule in OF_RUNS:
            wildcards = _WILDCARDS.search(details)
            assert wildcards, details
            runs[rule].add(Run.of(dict(pair.split("=", 1) for pair in wildcards[1].split(", "))))
    return Pending(jobs, runs)
