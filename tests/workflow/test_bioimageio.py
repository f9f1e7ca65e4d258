"""Exported models in the official test of the BioImage Model Zoo, which knows nothing of us."""

import os
import re
import subprocess
import sys

import pytest

from denoiseg_flow import cli

# bioimageio.core 0.11 needs bioimageio.spec 0.5.12, and that one an older pydantic than ours.
PACKAGES = ("bioimageio.core==0.11.0", "pydantic<2.14", "torch")
OTHER_VERSIONS = ("bioimageio.spec", "pydantic", "pydantic_core")


@pytest.fixture(scope="module")
def bioimageio(tmp_path_factory, repo):
    """Run the command ``bioimageio`` in an environment that has torch, but not denoiseg-flow."""
    folder = tmp_path_factory.mktemp("environment")
    pins = (repo / "constraints.txt").read_text().splitlines()
    kept = [line for line in pins if line.partition("==")[0] not in OTHER_VERSIONS]
    (folder / "constraints.txt").write_text("\n".join(kept))
    python = folder / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "-c", folder / "constraints.txt"]
    try:
        call = subprocess.run([*install, *PACKAGES], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip("bioimageio.core and torch could not be installed within five minutes")
    if call.returncode:
        pytest.skip(f"bioimageio.core cannot be installed: {call.stderr.splitlines()[-1]}")
    assert subprocess.run([python, "-c", "import denoiseg_flow"], capture_output=True).returncode

    def run(*arguments):
        return subprocess.run(
            [folder / "venv/bin/bioimageio", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=os.environ | {"BIOIMAGEIO_CACHE_PATH": str(folder / "cache")},
            timeout=300,
        )

    return run


@pytest.mark.parametrize("run", ["n2v/gt0", "denoiseg/gt2", "sequential/gt2"])
def test_official_test_passes(finished, tmp_path, bioimageio, run):
    model = finished / f"results/runs/nuclei/n10/{run}/seed1/model.pt"
    image = min((finished / "results/data/nuclei/noisy/n10").glob("*.tif"))
    package = tmp_path / "package.zip"
    assert cli.main(["export", str(model), str(package), "--image", str(image)]) == 0
    call = bioimageio("test", package)
    assert call.returncode == 0, call.stdout
    assert re.search(r"status +passed", call.stdout), call.stdout
    assert len(re.findall(r"Run torchscript inference", call.stdout)) == 6  # sizes and batches
