"""The run that is prepared for a GPU, rehearsed on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from denoiseg_flow.data.simulated import simulator

PHASES = ("correct", "fast", "good")
# What the machine with the GPU lacks.
ABSENT = ("snakemake", "zarr", "pywt", "pooch", "jsonschema", "numcodecs", "pygments")
WITHOUT = (
    "import runpy, sys\n"
    f"sys.modules |= dict.fromkeys({ABSENT})\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


@pytest.fixture(scope="module")
def pack(repo, tmp_path_factory):
    """What pack.sh makes of small simulated images."""
    folder = tmp_path_factory.mktemp("gpu")
    simulator.write(folder, n_images=16, size=64, n_nuclei=[3, 6])
    script = repo / "benchmarks" / "gpu" / "pack.sh"
    bin_folder = Path(sys.executable).parent
    subprocess.run(
        ["bash", script, folder / "images", folder / "masks", folder / "pack"],
        env=os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
    )
    return folder / "pack"


@pytest.mark.parametrize("minutes", ["0.7", pytest.param("4", marks=pytest.mark.long)])
def test_rehearsal(repo, pack, tmp_path, minutes):
    """Every phase finds something, nothing fails, and nothing is imported that is not there."""
    script = repo / "benchmarks" / "gpu" / "run.py"
    command = [sys.executable, "-c", WITHOUT, script, "--device", "cpu", "--minutes", minutes]
    done = subprocess.run(
        [*command, "--pack", pack, "--out", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {phase: json.loads((tmp_path / f"{phase}.json").read_text()) for phase in PHASES}
    for rows in found.values():
        assert {row["status"] for row in rows} <= {"ok", "no time"}
        assert rows[0]["status"] == "ok"
    assert json.loads((tmp_path / "machine.json").read_text())["device"] == "CPU"
    summary = (tmp_path / "summary.md").read_text()
    assert summary in done.stdout
    for phase in PHASES:
        assert f"## {phase}: " in summary
