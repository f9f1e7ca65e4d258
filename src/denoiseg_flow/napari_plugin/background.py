"""Run a study in another process, whose messages can be read and which can be stopped."""

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import ClassVar

from denoiseg_flow.errors import InputError
from denoiseg_flow.launch import CONFIG

COMMAND = (sys.executable, "-m", "denoiseg_flow", "run")


class BackgroundStudy:
    """A running ``denoiseg-flow run``; it is stopped when this program ends.

    Parameters
    ----------
    folder
        Folder of the study, which has a config.
    arguments
        Arguments for Snakemake.

    Raises
    ------
    InputError
        If the folder has no config.
    """

    latest: ClassVar["BackgroundStudy | None"] = None
    """The one that was started last, for a panel that is opened again."""

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder} has no {CONFIG}; write one with 'New study'")
        self.folder = folder
        # A file, not a pipe: the process goes on if nobody reads.
        self._messages = TemporaryFile()  # noqa: SIM115, it is open as long as the process
        self._stopped = False
        self._process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._messages,
            stderr=subprocess.STDOUT,
            # A group of its own, so that its jobs can be stopped with it.
            start_new_session=True,
        )
        atexit.register(self.stop)
        BackgroundStudy.latest = self

    def messages(self, after: int = 0) -> bytes:
        """Return what the process has written so far, without the first ``after`` bytes."""
        end = os.fstat(self._messages.fileno()).st_size
        return os.pread(self._messages.fileno(), end - after, after)

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Interrupt the process and its jobs, like Ctrl-C; they need a moment to end."""
        if self.running:
            self._stopped = True
            os.killpg(self._process.pid, signal.SIGINT)

    def outcome(self) -> str:
        """Wait for the end, and return how it ended, in one sentence."""
        status = self._process.wait()
        if status == 0:
            return "The study is finished."
        if self._stopped:
            return "Stopped; 'Run' continues where it stopped."
        return f"The study ended with an error (exit status {status}); see above."
