"""Ways to get the workflow: a wheel, a module from a tag; and what is said without the package."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from snakemake_call import call_here, dry_run

COMMAND = "import sys; from denoiseg_flow.cli import main; sys.exit(main())"
# Nothing of the package can be imported, as before it is installed.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "denoiseg_flow":
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
from snakemake.cli import main
main()
"""


@pytest.fixture(scope="module")
def wheel(repo, tmp_path_factory):
    """A folder with what a wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", ".snakemake", "results", "tests", "*cache*")
    shutil.copytree(repo, source, ignore=ignored)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def denoiseg_flow(wheel, folder, *arguments):
    """Run the command of the wheel, in an empty home."""
    (folder / "home").mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}
    environment |= {"PYTHONPATH": str(wheel), "HOME": str(folder / "home")}
    command = [sys.executable, "-c", COMMAND, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_wheel_runs_a_study_from_an_empty_folder(wheel, tmp_path):
    made = denoiseg_flow(wheel, tmp_path, "init", "study", "--example")
    assert made.returncode == 0, made.stderr
    study = tmp_path / "study"
    planned = denoiseg_flow(wheel, study, "run", "--dry-run")
    assert "train                     2" in planned.stderr + planned.stdout
    ran = denoiseg_flow(wheel, study, "run", "results/data/my_images/prepared")
    assert ran.returncode == 0, ran.stderr
    assert f"{wheel}/denoiseg_flow/share/profiles/default" in ran.stderr + ran.stdout
    assert len(list((study / "results/data/my_images/prepared/images").iterdir())) == 8


def test_a_wheel_knows_its_configs(wheel):
    names = {path.name for path in (wheel / "denoiseg_flow/share/config").iterdir()}
    assert {"config.yaml", "own_images.yaml", "dsb2018.yaml", "paper", "published"} <= names
    assert (wheel / "denoiseg_flow/share/profiles/slurm/profile.yaml").is_file()


def test_the_snakefile_of_the_catalog_plans_the_same(repo, tmp_path):
    shim = dry_run(tmp_path, snakefile=repo / "workflow/Snakefile")
    assert shim.jobs == dry_run(tmp_path).jobs != {}


def test_a_module_from_a_tag(repo, tmp_path, monkeypatch):
    """As `snakedeploy deploy-workflow` writes it, with a remote that is a folder here."""
    remote = tmp_path / "remote"
    ignored = shutil.ignore_patterns(".git", ".venv", ".snakemake", "results", "tests", "*cache*")
    shutil.copytree(repo, remote, ignore=ignored)
    for arguments in (
        *(["init", "--quiet"], ["add", "--all"]),
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "all"],
        ["tag", "v1"],
    ):
        subprocess.run(["git", *arguments], cwd=remote, check=True)
    url = "https://github.com/someone/denoiseg-flow"
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{remote}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "workflow").mkdir()
    snakefile = tmp_path / "workflow/Snakefile"
    snakefile.write_text(
        'configfile: "config/config.yaml"\n'
        "module denoiseg_flow:\n"
        '    snakefile: github("someone/denoiseg-flow", path="workflow/Snakefile", tag="v1")\n'
        "    config: config\n"
        "use rule * from denoiseg_flow\n"
    )
    shutil.copytree(repo / "config", tmp_path / "config")
    call = call_here(
        tmp_path,
        *("results/data/nuclei/prepared", "--cores", "1", "--configfile", "config/test.yaml"),
        config=None,
        snakefile=snakefile,
    )
    assert call.status == 0, call.screen
    assert (tmp_path / "results/data/nuclei/prepared").is_dir()


def test_without_the_package(repo, tmp_path):
    command = ["--snakefile", str(repo / "Snakefile"), "--cores", "1", "--dry-run"]
    call = subprocess.run(
        [sys.executable, "-c", WITHOUT, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert call.returncode != 0
    assert (
        "this workflow needs the Python package denoiseg-flow 0.1.0, but it is not installed; run "
        "`python -m pip install denoiseg-flow==0.1.0`"
    ) in call.stdout + call.stderr


@pytest.mark.parametrize("found", ["0.0.9", "0.2.0"])
def test_with_another_version_of_the_package(tmp_path, monkeypatch, found):
    monkeypatch.setattr("denoiseg_flow.version.__version__", found)
    call = dry_run(tmp_path)
    assert call.status != 0
    assert f"0.1.0, but denoiseg-flow {found} is installed; run" in call.screen
