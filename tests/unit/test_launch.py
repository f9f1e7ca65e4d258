"""Studies outside of a clone."""

from pathlib import Path

import pytest
import snakemake.cli
from skimage.io import imread

from denoiseg_flow import cli, launch
from denoiseg_flow.errors import InputError
from denoiseg_flow.study import configuration
from denoiseg_flow.study.feasibility import check_feasible
from denoiseg_flow.study.grid import Grid


@pytest.fixture
def installed(tmp_path, root, monkeypatch):
    """The folder of an installed package that has the workflow."""
    package = tmp_path / "site-packages/denoiseg_flow"
    package.mkdir(parents=True)
    for name in ("Snakefile", "config", "examples"):
        (package / "share").mkdir(exist_ok=True)
        (package / "share" / name).symlink_to(root / name)
    monkeypatch.setattr(launch, "__file__", str(package / "launch.py"))
    return package


def test_a_clone_is_its_own_workflow(root):
    assert launch.workflow_folder() == root


def test_an_installed_package_holds_the_workflow(installed):
    assert launch.workflow_folder() == installed / "share"


def test_a_package_without_the_workflow(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "__file__", str(tmp_path / "a/b/denoiseg_flow/launch.py"))
    with pytest.raises(InputError, match="installed without the workflow; install it again with"):
        launch.workflow_folder()


@pytest.mark.parametrize("example", [False, True])
def test_a_new_study(tmp_path, monkeypatch, installed, read_config, schema, example):
    written = launch.init(tmp_path / "study", example)
    assert [path.name for path in written] == ["config.yaml", "images", "masks"]
    config = read_config(tmp_path / "study/config.yaml")
    configuration.check(config, schema)
    configuration.fill_defaults(config, schema)
    assert config["recipe"] == ("demo" if example else "fast")
    monkeypatch.chdir(tmp_path / "study")
    if example:
        check_feasible(Grid(config))
    for dataset in config["datasets"].values():
        if dataset["source"] == "folder":
            assert Path(dataset["images"]).is_dir() and Path(dataset.get("masks", ".")).is_dir()
    assert len(list(Path("images").iterdir())) == 8 * example
    assert "--configfile config/own_images.yaml" not in Path("config.yaml").read_text()


def test_the_example_images_have_masks(root):
    folder = root / "examples/nuclei"
    rows = [line.split("|") for line in (folder / "README.md").read_text().splitlines()]
    listed = {row[1].strip(" `"): row for row in rows if len(row) == 7 and "`" in row[1]}
    files = list((folder / "images").iterdir())
    assert {path.stem for path in files} == set(listed)
    assert sum(path.stat().st_size for path in folder.rglob("*.png")) < 1e6
    for path in files:
        image, mask = imread(path), imread(folder / "masks" / path.name)
        assert image.shape == mask.shape == (int(listed[path.stem][4]),) * 2
        assert len(set(mask.ravel())) - 1 == mask.max() == int(listed[path.stem][5])


@pytest.mark.parametrize(
    "found, example, problem",
    [
        ("notes.txt", False, "is not empty: it has notes.txt, and nothing is written over"),
        ("config.yaml", False, "is not empty: it has config.yaml"),
        ("images", True, "is not empty: it has images"),
        (None, False, "is a file; name a folder"),
    ],
)
def test_nothing_is_written_over(tmp_path, found, example, problem):
    study = tmp_path / "study"
    if found:
        (study / found).mkdir(parents=True)
    else:
        study.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=problem):
        launch.init(study, example)
    assert sorted(tmp_path.rglob("*")) == before


def test_images_that_are_there_stay(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/mine.tif").write_text("mine")
    launch.init(tmp_path)
    assert (tmp_path / "images/mine.tif").read_text() == "mine"
    assert (tmp_path / "config.yaml").is_file()


@pytest.mark.parametrize(
    "given, added",
    [
        ([], ["--configfile", "config.yaml", "--cores", "all"]),
        (["-n", "plan"], ["--configfile", "config.yaml", "--cores", "all"]),
        (["--cores", "2"], ["--configfile", "config.yaml"]),
        (["--cores=2"], ["--configfile", "config.yaml"]),
        (["-j4"], ["--configfile", "config.yaml"]),
        (["--workflow-profile", "slurm"], ["--configfile", "config.yaml"]),
        (["--configfile", "other.yaml"], ["--cores", "all"]),
    ],
)
def test_what_snakemake_gets(tmp_path, monkeypatch, root, given, added):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").touch()
    workflow = ["--snakefile", str(root / "Snakefile")]
    assert launch.snakemake_arguments(given) == [*added, *workflow, *given]


def test_the_command_hands_over_to_snakemake(tmp_path, monkeypatch, capsys):
    """Its messages are not shown a second time."""
    calls, shown = [], []
    monkeypatch.setattr(snakemake.cli, "main", calls.append)
    monkeypatch.setattr(cli.logging, "basicConfig", lambda **_: shown.append(len(calls)))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "--dry-run"]) == 1
    assert "there is no config.yaml in" in capsys.readouterr().err and not calls
    assert cli.main(["init", "."]) == 0
    assert "denoiseg-flow run" in capsys.readouterr().out
    assert cli.main(["run", "plan", "--forceall"]) == 0
    (arguments,) = calls
    assert arguments[-2:] == ["plan", "--forceall"]
    assert shown == [0], "by init only"
    assert cli.main(["init", "."]) == 1
    assert capsys.readouterr().err.startswith("Error: . is not empty: it has config.yaml")
