"""How jobs end, in the log and on the screen."""

import errno
import gc
import logging
import warnings

import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.logs import job_log


@pytest.fixture(autouse=True)
def restored():
    level = logging.getLogger().level
    handlers = list(logging.getLogger().handlers)
    yield
    assert logging.getLogger().handlers == handlers, "the log file is still open"
    logging.getLogger().setLevel(level)


def end(path, error):
    """Let a job fail, and return its exit status."""
    with pytest.raises(SystemExit) as caught, job_log(path):
        logging.getLogger("denoiseg_flow.x").info("working")
        raise error
    return caught.value.code


@pytest.fixture
def log(tmp_path):
    return tmp_path / "train.log"


def test_mistakes_end_in_a_sentence(log, capsys):
    assert end(log, InputError("image a.tif is constant: remove it")) == 1
    screen = capsys.readouterr()
    assert screen.err == "Error: image a.tif is constant: remove it\n"
    assert screen.out == ""
    first, *rest = log.read_text().splitlines()
    assert first.endswith("INFO working")
    assert rest == ["Error: image a.tif is constant: remove it"]


@pytest.mark.parametrize(
    "code, advice",
    [
        (errno.ENOSPC, "the disk is full; free some space and run the same command again"),
        (errno.EDQUOT, "the disk quota is used up; free some space and run the same command again"),
        (
            errno.EACCES,
            "permission denied; check the permissions or choose another folder",
        ),
        (errno.ENAMETOOLONG, "the name is too long with the suffixes added; shorten the image "),
        (errno.EROFS, "the file system is read-only; choose another folder with "),
    ],
)
@pytest.mark.parametrize("filename", ["out/a.tif", None])
def test_closed_and_full_disks_end_in_a_sentence(log, capsys, code, advice, filename):
    assert end(log, OSError(code, "reason", filename)) == 1
    screen = capsys.readouterr().err
    assert screen.startswith(f"Error: cannot use {filename or 'a file'}: {advice}")
    assert screen.count("\n") == 1
    assert log.read_text().endswith(screen)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("by what"), OSError(errno.EIO, "by what"), OSError("by what")]
)
def test_anything_else_ends_in_a_traceback(log, capsys, error):
    assert end(log, error) == 1
    for text in (capsys.readouterr().err, log.read_text()):
        assert text.count("Traceback (most recent call last)") == 1
        assert "raise error" in text
        assert text.rstrip().endswith("by what")


def test_other_exits_are_left_alone(log):
    with pytest.raises(SystemExit) as caught, job_log(log):
        raise SystemExit(3)
    assert caught.value.code == 3


def test_interrupt_is_no_news(log, capsys):
    with pytest.raises(SystemExit) as caught, job_log(log):
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err == log.read_text() == ""


def test_messages_and_warnings_of_a_good_job(log, capsys):
    log.write_text("of the job before\n")
    with job_log(log):
        logging.getLogger("denoiseg_flow.x").info("epoch %d", 3)
        logging.getLogger("denoiseg_flow.x").debug("not this")
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
    text = log.read_text()
    assert "INFO epoch 3" in text
    assert "WARNING" in text and "mind the gap" in text
    assert "not this" not in text and "of the job before" not in text
    assert "epoch" not in capsys.readouterr().out


def test_what_was_imported_is_no_garbage(log):
    """Python looks through everything when it ends, but for what is frozen."""
    gc.unfreeze()
    with job_log(log):
        pass
    assert gc.get_freeze_count() > 10_000
