"""The repository: formatting, the commands of the README, pinned versions."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import denoiseg_flow

INSTALL = "python3 -m venv .venv && .venv/bin/python -m pip install -q -c constraints.txt -e "
RUN = f"{INSTALL}. && .venv/bin/snakemake --cores all"
TEST = f"{INSTALL}'.[test]' && .venv/bin/python -m pytest"


@pytest.mark.parametrize("command", [RUN, TEST], ids=["run", "test"])
def test_readme_has_the_command(repo, command):
    assert command in (repo / "README.md").read_text().splitlines()


def test_ci_runs_the_test_command(repo):
    lines = (repo / ".ci/run").read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[-1] == TEST
    assert (repo / ".ci/run").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "command",
    [
        "ruff check .",
        "ruff format --check .",
        "snakefmt --check Snakefile workflow/Snakefile workflow/rules",
        "codespell_lib",
        "mypy",
    ],
)
def test_style(repo, command):
    result = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=repo, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def project(repo):
    return tomllib.loads((repo / "pyproject.toml").read_text())["project"]


def pins(repo, name="constraints.txt"):
    """The pinned versions by name."""
    lines = (repo / name).read_text().splitlines()
    matches = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if line[0] != "#"]
    assert all(matches)
    return {canonicalize_name(match[1]): match[2] for match in matches}


def needed(names, extra):
    """Names of everything that the named distributions bring here."""
    found, waiting = {}, [(name, extra) for name in names]
    while waiting:
        name, extra = waiting.pop()
        try:
            parts = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # another platform's
        found[canonicalize_name(name)] = True
        for part in map(Requirement, parts):
            for wanted in (extra, ""):
                applies = part.marker is None or part.marker.evaluate({"extra": wanted})
                if applies and canonicalize_name(part.name) not in found:
                    waiting += [(part.name, name) for name in part.extras or [""]]
    return set(found)


def test_constraints_pin_everything_that_is_installed(repo):
    assert needed(["denoiseg-flow"], "test") - {"denoiseg-flow"} - set(pins(repo)) == set()


def test_constraints_meet_the_requirements(repo):
    declared = project(repo)["dependencies"] + project(repo)["optional-dependencies"]["test"]
    for part in map(Requirement, declared):
        assert part.specifier.contains(pins(repo)[canonicalize_name(part.name)]), part


def test_oldest_constraints_are_the_lower_bounds(repo):
    """So that what pyproject.toml promises of old versions is what is tested."""
    bounds = {
        canonicalize_name(part.name): Version(each.version)
        for part in map(Requirement, project(repo)["dependencies"])
        for each in part.specifier
        if each.operator == ">="
    }
    oldest = pins(repo, "constraints-oldest.txt")
    assert {name: Version(version) for name, version in oldest.items()} == bounds


def test_conda_environment_has_the_dependencies_of_the_package(repo):
    """Snakemake itself is not needed where only the scripts run."""
    renamed = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    parts = [Requirement(line) for line in project(repo)["dependencies"]]
    wanted = {
        Requirement(f"{renamed.get(part.name, part.name)}{part.specifier}")
        for part in parts
        if part.name != "snakemake"
    }
    lines = yaml.safe_load((repo / "envs/denoiseg_flow.yaml").read_text())["dependencies"]
    assert lines.pop() == {"pip": [f"denoiseg-flow=={denoiseg_flow.__version__}"]}
    python = Requirement(f"python{project(repo)['requires-python']}")
    assert set(map(Requirement, lines)) == wanted | {python, Requirement("pip")}


def test_container_has_a_python_that_the_package_allows_and_the_pinned_versions(repo):
    text = (repo / "Dockerfile").read_text()
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", text, re.MULTILINE)
    assert Requirement(f"python{project(repo)['requires-python']}").specifier.contains(python)
    (install,) = re.findall(r"pip install (.*?) -e '\.\[(.*)\]'$", text.replace("\\\n", ""), re.M)
    assert "-c constraints.txt" in install[0]
    assert set(install[1].split(",")) <= set(project(repo)["optional-dependencies"])


def test_container_gets_all_that_the_workflow_reads(repo):
    """What .dockerignore lets through is there, and what else is there is not for running."""
    lines = (repo / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in lines if line.startswith("!")}
    tracked = subprocess.run(["git", "ls-files"], cwd=repo, capture_output=True, text=True)
    there = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    if not there:
        pytest.skip("not a git clone")
    assert there - let_through == {
        *(".ci", ".github", ".dockerignore", ".gitignore", ".pre-commit-config.yaml"),
        ".snakemake-workflow-catalog.yml",
        *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Dockerfile"),
        *("benchmarks", "constraints-oldest.txt", "docs", "mkdocs.yml", "results", "tests"),
    }
    copied = re.findall(r"^COPY (.*) \S+$", (repo / "Dockerfile").read_text(), re.MULTILINE)
    for path in " ".join(copied).split():
        assert path == "." or path.split("/")[0] in let_through & there, path
