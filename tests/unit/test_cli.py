"""The command ``denoiseg-flow``."""

import os
import re
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from denoiseg_flow import __version__, cli
from denoiseg_flow.data.store import write_array
from denoiseg_flow.jobs import devices
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.study.provenance import record_study


@pytest.fixture
def folder(tmp_path, make_model, make_blobs):
    """A model and two images."""
    save_model(make_model(), tmp_path / "model.pt")
    for number in range(2):
        write_array(tmp_path / f"images/{number}.tif", make_blobs(32, number)[0])
    return tmp_path


def run(folder, *images, device="cpu"):
    options = ["--out", f"{folder}/out", "--device", device]
    return cli.main(["predict", f"{folder}/model.pt", *map(str, images), *options])


def test_predicts_files_and_folders(folder, capsys):
    write_array(folder / "more.tif", np.arange(400, dtype=np.uint16).reshape(20, 20))
    assert run(folder, folder / "images", folder / "more.tif") == 0
    assert {path.stem for path in (folder / "out/labels").iterdir()} == {"0", "1", "more"}
    assert "Error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "images, message",
    [
        (["nothing"], "nothing does not exist; correct its path"),
        (["model.pt"], "model.pt is not an image; accepted endings: .ome.tif, .ome.tiff, .tif"),
        (["empty"], "empty has no images; accepted endings:"),
        (["images", "images/0.tif"], "0.tif differ only in folder or ending"),
    ],
)
def test_mistakes_end_in_a_sentence(folder, capsys, images, message):
    (folder / "empty").mkdir()
    assert run(folder, *(folder / name for name in images)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("Error: ")
    assert message in error
    assert not (folder / "out").exists()


def test_says_what_it_does_not_read(folder, caplog):
    (folder / "images/c.czi").touch()
    assert run(folder, folder / "images") == 0
    assert "Not read: 1 file in" in caplog.text and "(c.czi)" in caplog.text


def test_an_image_that_fails(folder, capsys):
    (folder / "images/2.tif").write_bytes(b"damaged")
    assert run(folder, folder / "images") == 1
    assert "Error: 1 of 3 images could not be predicted" in capsys.readouterr().err
    assert {path.stem for path in (folder / "out/labels").iterdir()} == {"0", "1"}


def test_bugs_are_not_hidden(folder, capsys, monkeypatch):
    monkeypatch.setattr(cli, "predict_images", lambda *_: 1 / 0)
    assert run(folder, folder / "images") == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_continue(folder, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli, "predict_images", interrupt)
        assert run(folder, folder / "images") == 130
    assert capsys.readouterr().err == ("interrupted; the same command continues where it stopped\n")
    assert run(folder, folder / "images") == 0


def test_usable_cores():
    assert 1 <= devices.usable_cores() <= os.cpu_count()


def test_is_installed():
    (command,) = entry_points(group="console_scripts", name="denoiseg-flow")
    assert command.load() is cli.main
    assert Path(sys.executable).with_name("denoiseg-flow").is_file()


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"denoiseg-flow {__version__}\n"


COMMANDS = ["init", "run", "status", "predict", "describe", "export", "annotate-next"]


def test_without_a_command_it_prints_help(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"\n    {command}\s", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_are_accepted(capsys, name):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    examples = re.findall(r"^  denoiseg-flow (.+)$", capsys.readouterr().out, re.MULTILINE)
    assert examples
    for example in examples:
        options = cli.read_arguments(shlex.split(example))
        assert options.command == name
        assert getattr(options, "model", Path("model.pt")).name == "model.pt"


def annotate_next(folder, *options):
    out = str(folder / "round1")
    return cli.main(["annotate-next", str(folder / "results"), "--out", out, *options])


def test_what_is_no_study_has_nothing_to_annotate(folder, capsys):
    (folder / "results").mkdir()
    assert annotate_next(folder) == 1
    assert "is no folder of results (it has no study.json)" in capsys.readouterr().err
    record_study(folder / "results", {}, {"methods": {}}, {})
    assert annotate_next(folder) == 1
    assert "results has no finished run; let the study run" in capsys.readouterr().err


@pytest.mark.parametrize("side", ["0", "small", "-3"])
def test_a_side_that_no_crop_has(folder, capsys, side):
    with pytest.raises(SystemExit):
        annotate_next(folder, f"--crop={side}")
    message = f"'{side}' is not the side of a crop: give pixels, such as 128, or 'image'"
    assert message in capsys.readouterr().err
