"""The workflow on a SLURM cluster, where one can be started, and beside it on one machine."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster import Cluster, obstacle, running_cluster
from snakemake_call import REPO

WAIT = 600  # seconds that nothing here takes
# Snakemake; the plugin would wait ten seconds longer each time that no job has ended since.
SNAKEMAKE = """
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda _: 3, lambda *_: None)
main()
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    reason = obstacle()
    if reason is None and find_spec("snakemake_executor_plugin_slurm") is None:
        reason = "not installed: snakemake-executor-plugin-slurm"
    if reason:
        pytest.skip(f"no SLURM cluster: {reason}")
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(running_cluster())
        except (
            RuntimeError,
            subprocess.SubprocessError,
        ) as error:  # a machine whose name means another one, for example
            pytest.skip(f"no SLURM cluster: {error}")
        yield cluster


class Study:
    """A study in a folder, run by the SLURM profile as a user would fill it in, or locally."""

    def __init__(
        self, cluster: Cluster, folder: Path, config: list[str], targets: list[str]
    ) -> None:
        self.cluster = cluster
        self.folder = folder
        self.command = [sys.executable, "-c", SNAKEMAKE, "--snakefile", str(REPO / "Snakefile")]
        self.command += [*targets, "--configfile", str(REPO / "config/test.yaml")]
        self.command += ["--config", *config]
        self.process: subprocess.Popen | None = None

    def write_profile(self, **values: str) -> Path:
        """Fill in the profile, and ask more often than is decent on a real cluster."""
        text = (REPO / "profiles/slurm/profile.yaml").read_text()
        for key, value in (values | {"slurm-init-seconds-before-status-checks": "3"}).items():
            text, count = re.subn(rf"(?m)^( *{key}:)[^#\n]*", rf"\1 {value} ", text)
            assert count == 1, key
        profile = self.folder / "profile"
        profile.mkdir(exist_ok=True)
        (profile / "profile.yaml").write_text(text)
        return profile

    def start(self, *options: str, **profile: str) -> None:
        """Start Snakemake on the cluster; what it says goes to the file ``screen``."""
        given = {"account": "testing", "gpu_partition": "gpu"} | profile
        command = [*self.command, "--workflow-profile", str(self.write_profile(**given)), *options]
        with (self.folder / "screen").open("w") as screen:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.cluster.environment, stdout=screen, stderr=screen
            )

    def finish(self) -> None:
        """Wait until Snakemake ends well."""
        assert self.process.wait(timeout=WAIT) == 0, self.screen

    def run_locally(self) -> None:
        command = [*self.command, "--workflow-profile", "none", "--cores", "2"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=WAIT)

    def wait_for(self, what: Callable[[], Any]) -> None:
        """Wait until something is true, while Snakemake runs."""
        end = time.monotonic() + WAIT
        while self.process.poll() is None and time.monotonic() < end:
            if what():
                return
            time.sleep(0.2)
        raise TimeoutError(self.screen)

    def jobs_of(self, rule: str) -> list[psutil.Process]:
        """Return the processes that run the script of a rule, wherever in the cluster."""
        script = re.compile(rf"{re.escape(str(self.folder))}/.*\.{rule}\.py")
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(script.fullmatch(word) for word in process.info["cmdline"] or ())
        ]

    @property
    def screen(self) -> str:
        return (self.folder / "screen").read_text()

    def log(self, method: str) -> str:
        """Return the log of the last try of a training."""
        return "".join(path.read_text() for path in self.find(f"logs/**/{method}/**/train.log"))

    def tables(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.find("tables/*")}

    def leftovers(self) -> list[Path]:
        """Return the files that are there only while something runs."""
        return self.find("*.lock") + self.find("checkpoint*") + self.find("*.partial")

    def find(self, pattern: str) -> list[Path]:
        return sorted((self.folder / "results").rglob(pattern))


@pytest.fixture(scope="session")
def new_study(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Study]]:
    """Make a study in a folder of its own."""
    studies = []

    def make(*config: str, targets: Sequence[str] = ()) -> Study:
        folder = tmp_path_factory.mktemp("study")
        studies.append(Study(cluster, folder, list(config), list(targets)))
        return studies[-1]

    yield make
    for study in studies:
        if study.process is not None:
            study.process.kill()
