"""Measure the cost of the jobs of a study, and the share of it before their work starts.

Runs a study in an empty folder; every Python process records its processor time.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import record
from systems import ROOT, parser

# Python runs it in every process. The lock file is opened first in each job, before its work.
NOTE = """
import atexit, json, os, sys, time
begun = []
def watch(event, arguments):
    if event == "open" and not begun and str(arguments[0]).endswith(".log.lock"):
        begun.append(time.process_time())
def write():
    note = {"script": sys.argv[0], "seconds": time.process_time(), "before": sum(begun)}
    with open(os.environ["OVERHEAD_NOTES"], "a") as file:
        file.write(json.dumps(note) + "\\n")
sys.addaudithook(watch)
atexit.register(write)
"""
MAIN = "Snakemake itself"
OTHER = "end of Python, shells, solver"


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    options.add_argument("--config", default="config", help="name of the study in config/")
    return options.parse_args()


def run_study(folder: Path, config: str) -> tuple[pd.DataFrame, float, float]:
    """Return the notes of all processes, and seconds of the processor and on the clock."""
    (folder / "sitecustomize.py").write_text(NOTE, encoding="utf-8")
    notes, study = folder / "notes.json", folder / "study"
    study.mkdir()
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--directory", str(study)]
    command += ["--snakefile", str(ROOT / "Snakefile")]
    command += ["--workflow-profile", str(ROOT / "profiles/default")]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--configfile", str(ROOT / f"config/{config}.yaml")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OVERHEAD_NOTES": str(notes)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the study of config/{config}.yaml failed")
    table = pd.read_json(notes, lines=True)
    return table, usage.ru_utime + usage.ru_stime, time.perf_counter() - started


def by_rule(notes: pd.DataFrame, processor_seconds: float) -> pd.DataFrame:
    """Sum up the notes of processes by rule; what no process noted is a line of its own."""
    # Snakemake runs a copy of a script, whose name begins at random.
    names = notes["script"].map(lambda path: re.sub(r"^tmp\w{8}\.", "", Path(path).stem))
    notes = notes.assign(rule=names.where(notes["before"] > 0, MAIN))
    table = notes.groupby("rule", as_index=False).agg(
        jobs=("seconds", "size"), seconds=("seconds", "sum"), before=("before", "sum")
    )
    table = table.sort_values("seconds", ascending=False)
    rest = processor_seconds - table["seconds"].sum()
    return pd.concat([table, pd.DataFrame([{"rule": OTHER, "seconds": rest}])], ignore_index=True)


def main() -> None:
    """Measure and write ``overhead.csv`` and ``overhead.md``."""
    options = read_options()
    notes = record.machine(1)
    with tempfile.TemporaryDirectory(prefix="benchmark_overhead_") as name:
        found, processor_seconds, seconds = run_study(Path(name), options.config)
    table = by_rule(found, processor_seconds)
    lines = []
    for row in table.itertuples():
        of_jobs = row.rule not in (MAIN, OTHER)
        each = (f"{row.jobs:.0f}", f"{row.seconds / row.jobs:.2f}", f"{row.before / row.jobs:.2f}")
        lines.append((row.rule, *(each if of_jobs else ("", "", "")), f"{row.seconds:.1f}"))
    columns = ("rule", "jobs", "processor (s) per job", "before its work (s)", "all (s)")
    body = record.markdown_table(columns, [*lines, ("all", "", "", "", f"{processor_seconds:.1f}")])
    notes += [
        f"The study of config/{options.config}.yaml, {seconds:.0f} s on the clock.",
        "Before its work: start of Python, what Snakemake adds to a script, and imports.",
    ]
    record.write(Path(options.out, "overhead"), "Overhead of jobs", table, body, notes)


if __name__ == "__main__":
    main()
