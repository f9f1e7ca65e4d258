"""A study in the background: its messages, its end, and how it is stopped."""

import runpy
import signal
import subprocess
import sys
import time

import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.napari_plugin import background
from denoiseg_flow.napari_plugin.background import BackgroundStudy

# A process with a job of its own; both say when they are interrupted.
INTERRUPTED = """
import subprocess, sys, time

try:
    if sys.argv[1:]:
        print("job", flush=True)
        time.sleep(60)
    else:
        subprocess.run([sys.executable, "-c", PROGRAM, "job"])
except KeyboardInterrupt:
    print("job ends" if sys.argv[1:] else "all ends", flush=True)
    sys.exit(1)
"""


@pytest.fixture(autouse=True)
def can_be_interrupted():
    """A shell lets what it starts in the background ignore it, and so would all that follows."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a program in place of Snakemake."""
    (tmp_path / "config.yaml").touch()

    def start(program, *arguments):
        monkeypatch.setattr(background, "COMMAND", (sys.executable, "-c", program))
        return BackgroundStudy(tmp_path, arguments)

    return start


def messages(study, until):
    """All messages, up to the end or to the one that is waited for."""
    end = time.monotonic() + 30
    while until not in study.messages().decode() and study.running and time.monotonic() < end:
        time.sleep(0.02)
    return study.messages().decode()


def test_the_command_is_that_of_this_installation(monkeypatch, capsys):
    python, option, *command = background.COMMAND
    assert (python, option) == (sys.executable, "-m")
    monkeypatch.setattr(sys, "argv", [*command, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(command[0], run_name="__main__")
    assert capsys.readouterr().out.startswith("usage: denoiseg-flow run")


def test_messages_and_the_end(start, tmp_path):
    study = start(
        "import os, sys; print(os.getcwd(), sys.argv[1:]); sys.exit('wrong')", "--dry-run"
    )
    said = messages(study, "wrong")
    assert f"{tmp_path} ['--dry-run']" in said and "wrong" in said
    assert study.outcome() == "The study ended with an error (exit status 1); see above."
    assert study.messages(after=len(said.encode())) == b""
    assert study.messages(after=2) == said[2:].encode()
    study.stop()  # it has ended
    assert start("pass").outcome() == "The study is finished."


def test_its_jobs_are_stopped_too(start):
    study = start(f"PROGRAM = {INTERRUPTED!r}\n{INTERRUPTED}")
    assert "job" in messages(study, "job")
    study.stop()
    assert study.outcome() == "Stopped; 'Run' continues where it stopped."
    said = messages(study, "all ends")
    assert "job ends" in said and "all ends" in said


def test_it_ends_with_the_program_that_started_it(tmp_path):
    """Which waits for nothing: the interrupted job needs a moment."""
    (tmp_path / "config.yaml").touch()
    job = (
        "import pathlib, time\n"
        "try: pathlib.Path('started').touch(); time.sleep(60)\n"
        "except KeyboardInterrupt: pathlib.Path('ended').touch()"
    )
    program = f"""
import pathlib, sys, time
from denoiseg_flow.napari_plugin import background
background.COMMAND = (sys.executable, "-c", {job!r})
background.BackgroundStudy(pathlib.Path())
while not pathlib.Path("started").exists(): time.sleep(0.02)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    end = time.monotonic() + 30
    while not (tmp_path / "ended").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.yaml; write one with 'New study'"):
        BackgroundStudy(tmp_path)
