"""The version and the licence are the same wherever they are written."""

import re
import tomllib

import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser

import denoiseg_flow
from denoiseg_flow.jobs import gpu_slots, snakemake_cache


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


@pytest.fixture
def read_profile(root, tmp_path):
    """Snakemake hands its parser a file and gets the options of the command line."""

    def read(name, old="", new=""):
        copy = tmp_path / "profile.yaml"
        copy.write_text((root / "profiles" / name / copy.name).read_text().replace(old, new))
        with open(copy) as file:
            return ProfileConfigFileParser().parse(file)

    return read


@pytest.fixture
def rules_with_gpu(root):
    """The rules that ask for a GPU."""
    return sorted(
        rule
        for path in (root / "workflow/rules").glob("*.smk")
        for rule, body in re.findall(
            r"^rule (\w+):\n(.*?)(?=^\S|\Z)", path.read_text(), re.M | re.S
        )
        if re.search(r"^        gpu=", body, re.M)
    )


def test_slurm_profile(read_profile):
    options = read_profile("slurm")
    assert options["executor"] == "slurm"
    assert options["slurm-requeue"] and options["retries"]
    assert "resources" not in options  # a limit of GPUs would serialise the run
    assert options["set-resources"] == ["train:slurm_extra='--signal=TERM@120'"]
    assert not any("slurm_" in entry for entry in options["default-resources"])


@pytest.mark.parametrize(
    "old, new, resource",
    [
        ("gpu_partition: #", "gpu_partition: a100 #", "slurm_partition=a100"),
        ("gpus: true", "gpus: false", "gpu=0"),
    ],
)
def test_slurm_profile_that_is_filled_in(read_profile, rules_with_gpu, old, new, resource):
    options = read_profile("slurm", old, new)
    assert {f"{rule}:{resource}" for rule in rules_with_gpu} < set(options["set-resources"])


def test_default_profile_without_a_gpu(read_profile):
    assert read_profile("default") == {"scheduler": "greedy"}


def test_default_profile_provides_a_cache(read_profile, monkeypatch):
    calls = []
    monkeypatch.setattr(snakemake_cache, "provide_cache", lambda: calls.append(1))
    read_profile("default")
    assert calls == [1]


@pytest.mark.parametrize("share", [1, 2])
def test_default_profile_counts_the_slots_of_the_gpus(
    read_profile, rules_with_gpu, monkeypatch, share
):
    """One number at its top counts for the limit and for all the rules that ask for a GPU."""
    monkeypatch.setattr(gpu_slots, "visible_gpus", lambda: ["0", "1", "2"])
    options = read_profile("default", "per_gpu = 1", f"per_gpu = {share}")
    assert options["resources"] == [f"gpu={3 * share}"]
    assert sorted(options["set-resources"]) == [
        f"{rule}:jobs_per_gpu={share}" for rule in rules_with_gpu
    ]
    assert len(rules_with_gpu) == 5
