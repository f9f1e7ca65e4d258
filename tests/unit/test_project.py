"""The version and the licence are the same wherever they are written."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser

import denoiseg_flow


def test_version_is_the_same_everywhere(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    changes = re.findall(r"^## (\S+) \((.+)\)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == changes[0][0] == denoiseg_flow.__version__
    assert ("date-released" in citation) == (changes[0][1] != "unreleased")


def test_licence_and_holder_are_the_same_everywhere(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    licence = (root / "LICENSE").read_text()
    assert licence.startswith("BSD 3-Clause License")
    assert citation["license"] == project["license"] == "BSD-3-Clause"
    for holder in citation["authors"] + project["authors"]:
        assert f"Copyright (c) 2026, {holder['name']}\n" in licence


@pytest.mark.parametrize("name", ["default", "slurm"])
def test_profile_is_read(root, name):
    """Snakemake hands its parser a file and gets the options of the command line."""
    with open(root / "profiles" / name / "profile.yaml") as file:
        options = ProfileConfigFileParser().parse(file)
    if name == "slurm":
        assert options["executor"] == "slurm"
        assert options["slurm-no-requeue"] and options["retries"]
        assert "resources" not in options  # a limit of GPUs would serialise the run
    else:
        gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
        assert options == ({"resources": [f"gpu={gpus}"]} if gpus else {})
