"""The compared systems and their jobs, each in a separate process."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from denoiseg_flow.methods.definition import as_dict
from denoiseg_flow.study import configuration
from denoiseg_flow.study.grid import Grid

ROOT = Path(__file__).resolve().parents[1]
WORKERS = Path(__file__).resolve().parent / "workers"
OURS, REFERENCE, CAREAMICS = "ours", "reference", "careamics"
STARDIST, CELLPOSE = "stardist", "cellpose"


@dataclass(frozen=True)
class System:
    """One row of a comparison.

    Attributes
    ----------
    name
        As it stands in the tables.
    kind
        Name of its script in ``workers/``.
    python
        The interpreter that the script runs in.
    settings
        What its jobs hold besides the keys that all systems get.
    """

    name: str
    kind: str
    python: Path
    settings: Mapping[str, Any]


def parser(description: str, out: str = "benchmarks/results") -> argparse.ArgumentParser:
    """Return a parser with the options that every script has."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--out", type=Path, default=Path(out), help="folder of the results")
    options.add_argument("--threads", type=int, default=2, help="CPU cores that each job gets")
    return options


def add_peers(options: argparse.ArgumentParser, *peers: str) -> None:
    """Add an option for the interpreter of each peer."""
    for peer in peers:
        options.add_argument(
            f"--{peer}-python",
            type=Path,
            help=f"Python of the environment of {peer}; without it, {peer} is left out",
        )


def peer_python(options: argparse.Namespace, peer: str) -> tuple[Path | None, list[str]]:
    """Return the interpreter of a peer, or None and the sentence that says so in the table."""
    python = getattr(options, f"{peer}_python")
    if python is None:
        return None, [f"{peer} was left out: no --{peer}-python was given."]
    # Not resolved: an environment's python is a link, and is one only under its own name.
    python = Path(os.path.abspath(python))
    if not python.exists():
        return None, [f"{peer} was left out: there is no {python.name} at its --{peer}-python."]
    return python, []


def ours(name: str = OURS, **settings: Any) -> System:
    """Return this package, in the environment that the benchmark itself runs in."""
    return System(name, OURS, Path(sys.executable), settings)


def run(
    system: System, task: str, job: Mapping[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Run one job and return what its worker reports.

    The process and all its threads may use ``--threads`` cores only, whatever the libraries in it
    take for their due. What it prints goes to ``<out>/logs``.
    """
    logs = options.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{task}_{system.name.replace(' ', '_')}.log"
    threads = options.threads
    numbers = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder, log.open("w") as output:
        order, report = Path(folder, "job.json"), Path(folder, "report.json")
        launched = {"launched": time.time(), "threads": threads, "report": str(report)}
        order.write_text(json.dumps({**job, **system.settings, **launched}))
        done = subprocess.run(
            [system.python, WORKERS / f"{system.kind}_worker.py", task, order],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | numbers,
            preexec_fn=lambda: _keep_to_cores(threads),
            check=False,
        )
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"{tail}\n\n{task} of '{system.name}' failed; its output is in {log}")
        return json.loads(report.read_text())


def read_config(*names: str) -> dict[str, Any]:
    """Return the default config, changed by others of ``config/``, with all its defaults."""
    schema = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())
    config: dict[str, Any] = {}
    for name in ("config.yaml", *names):
        update_config(config, yaml.safe_load((ROOT / "config" / name).read_text()))
    configuration.check(config, schema)
    configuration.fill_defaults(config, schema)
    return config


def read_method(name: str) -> dict[str, Any]:
    """Return a method of config/config.yaml with all its defaults."""
    methods = Grid(read_config()).methods
    _check_known("method", name, methods)
    return as_dict(methods[name])


def read_recipe(name: str) -> dict[str, Any]:
    """Return a recipe of config/config.yaml with all its defaults."""
    recipes = Grid(read_config()).recipes
    _check_known("recipe", name, recipes)
    return as_dict(recipes[name])


def read_recipe_of(method: str, name: str) -> dict[str, Any]:
    """Return what a method is trained by in a study of this recipe: the recipe, or another.

    A pretrained network has a recipe of its own.
    """
    read_recipe(name)
    read_method(method)
    grid = Grid(read_config() | {"recipe": name})
    return as_dict(grid.recipe_of(grid.methods[method]))


def _check_known(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise SystemExit(f"there is no {kind} '{name}'; give --{kind} one of {', '.join(known)}")


def run_workflow(study: Path, config: Path, cores: int, targets: list[str]) -> None:
    """Let the workflow make ``targets`` in the folder ``study``, on DSB2018 changed by a config."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    command += ["--directory", study, "--workflow-profile", "none", "--quiet", "rules"]
    command += ["--cores", str(cores), "--configfile", ROOT / "config" / "dsb2018.yaml"]
    done = subprocess.run([*command, config.resolve(), "--", *targets], check=False)
    if done.returncode:
        raise SystemExit(f"the workflow failed in {study}; what it printed above says why")


def _keep_to_cores(count: int) -> None:
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
