"""A cache where the home folder cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

from denoiseg_flow.jobs.snakemake_cache import provide_cache

SHOW = (
    "from denoiseg_flow.jobs.snakemake_cache import provide_cache as p; p(); import os; print({})"
)


def test_a_cache_that_can_be_written_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    provide_cache()
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "cache")


def test_another_one_is_temporary(monkeypatch):
    """It is there as long as the process."""
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    show = SHOW.format("os.environ['XDG_CACHE_HOME'], os.path.isdir(os.environ['XDG_CACHE_HOME'])")
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    folder, was_there = done.stdout.split()
    assert was_there == "True" and not Path(folder).exists()
    assert done.stderr == (
        f"cannot write to /proc/nowhere/.cache/snakemake: using the temporary cache {folder}; to "
        "keep a cache, set XDG_CACHE_HOME to a writable folder\n"
    )
