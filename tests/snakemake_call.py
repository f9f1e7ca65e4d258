"""Snakemake, as a command of its own and in this process."""

import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO
from unittest.mock import patch
from warnings import catch_warnings

from snakemake import cli

REPO = Path(__file__).parents[1]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(REPO / "Snakefile")]


@dataclass(frozen=True)
class Call:
    """What a call of Snakemake came to."""

    status: int
    screen: str

    @property
    def jobs(self) -> dict[str, int]:
        """Jobs by rule, as announced."""
        stats = re.search(r"^job +count\n[- ]+\n(.*?)^total", self.screen, re.DOTALL | re.MULTILINE)
        assert stats or "Nothing to be done" in self.screen, self.screen
        rows = stats[1].splitlines() if stats else []
        return defaultdict(int, {row.split()[0]: int(row.split()[1]) for row in rows})


def _arguments(folder: Path, config: str | None, options: tuple[Any, ...]) -> list[str]:
    configfile = ["--configfile", REPO / f"config/{config}.yaml"] if config else []
    return [str(word) for word in ("--directory", folder, *configfile, *options)]


def call_snakemake(folder: Path, *options: Any, config: str | None = "test") -> Call:
    """Run Snakemake in a folder, on the config of that name unless it is None."""
    result = subprocess.run(
        [*SNAKEMAKE, *_arguments(folder, config, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return Call(result.returncode, result.stdout)


def call_here(
    folder: Path,
    *options: Any,
    config: str | None = "test",
    snakefile: Path = REPO / "Snakefile",
) -> Call:
    """Run Snakemake in this process, its jobs in their own: starting it takes seconds each time."""
    command = ["--snakefile", str(snakefile), *_arguments(folder, config, options)]
    terminate = signal.getsignal(signal.SIGTERM)  # Snakemake replaces it and leaves it so
    with (
        TemporaryFile("w+") as screen,
        patch.dict(os.environ),
        chdir(folder),
        catch_warnings(action="ignore", category=PendingDeprecationWarning),  # its own
        _shown_in(screen),
    ):
        try:
            cli.main(command)
        except SystemExit as ended:
            screen.seek(0)
            return Call(ended.code or 0, screen.read())
        finally:
            signal.signal(signal.SIGTERM, terminate)
    raise AssertionError("Snakemake always exits")


def dry_run(folder: Path, *options: Any, **settings: Any) -> Call:
    """Plan in this process."""
    return call_here(folder, "--dry-run", *options, **settings)


@contextmanager
def _shown_in(screen: TextIO) -> Iterator[None]:
    """Write to a file what this process and those that it starts would print."""
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        for number in kept:
            os.dup2(screen.fileno(), number)
        with (
            open(1, "w", buffering=1, closefd=False) as stream,
            redirect_stdout(stream),
            redirect_stderr(stream),
            # What it hands on to jobs is what it found when it was imported.
            patch("snakemake.shell.STDOUT", None),
        ):
            yield
    finally:
        for number, original in kept.items():
            os.dup2(original, number)
            os.close(original)
