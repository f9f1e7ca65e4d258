"""Snakemake, as a command of its own and, for plans, in this process."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

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


def dry_run(
    folder: Path,
    *options: Any,
    config: str | None = "test",
    snakefile: Path = REPO / "Snakefile",
) -> Call:
    """Plan in this process: starting Snakemake takes longer than most plans."""
    command = ["--snakefile", str(snakefile), *_arguments(folder, config, ("--dry-run", *options))]
    screen = StringIO()
    with (
        patch.dict(os.environ),
        chdir(folder),
        redirect_stdout(screen),
        redirect_stderr(screen),
    ):
        try:
            cli.main(command)
        except SystemExit as ended:
            return Call(ended.code or 0, screen.getvalue())
    raise AssertionError("Snakemake always exits")
