"""Ways to run the workflow: as a user does, and script by script."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, ResourceList, Wildcards
from snakemake.utils import update_config
from snakemake_call import REPO, call_snakemake

from denoiseg_flow.jobs.lock import sole_process
from denoiseg_flow.study import configuration


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the repository."""
    return REPO


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder in which config/test.yaml ran to its end; copy it before changing anything.

    It runs once for all processes of pytest-xdist, and each of them gets a copy.
    """
    own = tmp_path_factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, done = common / "finished_study", common / "finished_study.done"
    with sole_process(common / "finished_study.lock"):
        if not done.exists():
            folder.mkdir(exist_ok=True)
            call = call_snakemake(folder, "--cores", "2")
            assert call.status == 0, call.screen
            done.touch()
    return shutil.copytree(folder, own / "finished")


@pytest.fixture(scope="session")
def make_environment(
    tmp_path_factory, repo
) -> Callable[[str, Sequence[str], Sequence[str]], tuple[Path, dict[str, str]]]:
    """Install packages into an environment of their own; skip the test if that fails.

    Packages that are missing there come from this environment, but for those installed by a link.
    """

    def make(
        name: str, packages: Sequence[str], other_versions: Sequence[str]
    ) -> tuple[Path, dict[str, str]]:
        """Return its Python and environment variables.

        ``packages`` are those of ``name``; ``other_versions`` are not those of constraints.txt.
        """
        folder = tmp_path_factory.mktemp("environment")
        pins = (repo / "constraints.txt").read_text().splitlines()
        kept = [line for line in pins if line.partition("==")[0] not in other_versions]
        (folder / "constraints.txt").write_text("\n".join(kept))
        python = folder / "venv/bin/python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        (installed,) = (folder / "venv/lib").glob("python*/site-packages")
        (installed / "missing.pth").write_text(sysconfig.get_path("purelib"))
        install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        install += ["-c", folder / "constraints.txt", *packages]
        try:
            call = subprocess.run(install, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{name} could not be installed within five minutes")
        if call.returncode:
            pytest.skip(f"{name} cannot be installed: {call.stderr.splitlines()[-1]}")
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return python, variables

    return make


@pytest.fixture(scope="session")
def tables() -> Callable[[Path], dict[str, bytes]]:
    """Read every table under a folder of results."""

    def read(results: Path) -> dict[str, bytes]:
        files = {path.name: path.read_bytes() for path in sorted((results / "tables").iterdir())}
        assert files
        return files

    return read


@pytest.fixture(scope="session")
def config() -> dict[str, Any]:
    """The config of a run with config/test.yaml, as the rules see it."""
    merged: dict[str, Any] = {}
    for name in ("config", "test"):
        update_config(merged, yaml.safe_load((REPO / f"config/{name}.yaml").read_text()))
    schema = yaml.safe_load((REPO / "workflow/schemas/config.schema.yaml").read_text())
    configuration.check(merged, schema)
    configuration.fill_defaults(merged, schema)
    return merged


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], Any]:
    """Import a script of the workflow, once."""

    @cache
    def load(script: str) -> Any:
        spec = importlib.util.spec_from_file_location(
            f"script_{script}", REPO / f"workflow/scripts/{script}.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def run_script(load_script) -> Callable[..., None]:
    """Call ``main`` of a script as Snakemake does: folders of outputs and log are there."""

    def run(
        script: str,
        log: Path,
        input: Mapping[str, Any] | None = None,
        output: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        wildcards: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        job = SimpleNamespace(
            input=_named_files(InputFiles, input),
            output=_named_files(OutputFiles, output),
            params=Params(fromdict=dict(params or {})),
            wildcards=Wildcards(fromdict=dict(wildcards or {})),
            resources=ResourceList(fromdict={"gpu": 0}),
            log=Log([str(log)]),
            threads=1,
            config=config,
        )
        for path in [*job.output, *job.log]:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        load_script(script).main(job)

    return run


def _named_files(kind: type[InputFiles | OutputFiles], files: Mapping[str, Any] | None) -> Any:
    """Hand files over as Snakemake does: as text, and in one row; a name may stand for several."""
    row = kind()
    for name, value in (files or {}).items():
        paths, start = value if isinstance(value, list) else [value], len(row)
        row.extend(map(str, paths))
        row._set_name(name, start, end=len(row) if isinstance(value, list) else None)
    return row
