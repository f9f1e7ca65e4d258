"""Run a study in another process, whose messages can be read and which can be stopped."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from denoiseg_flow.errors import InputError
from denoiseg_flow.launch import CONFIG

COMMAND = (sys.executable, "-m", "denoiseg_flow", "run")


class BackgroundStudy:
    """A running ``denoiseg-flow run``.

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

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder} has no {CONFIG}; write one with 'New study'")
        # A file, not a pipe: the process goes on if nobody reads.
        self._messages = TemporaryFile()  # noqa: SIM115, it is open as long as the process
        self._read = 0
        self._process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._messages,
            stderr=subprocess.STDOUT,
            # A group of its own, so that its jobs can be stopped with it.
            start_new_session=True,
        )

    def new_messages(self) -> str:
        """Return what the process has written since the last call."""
        end = os.fstat(self._messages.fileno()).st_size
        text = os.pread(self._messages.fileno(), end - self._read, self._read)
        self._read += len(text)
        return text.decode(errors="replace")

    @property
    def status(self) -> int | None:
        """The exit status; None while the process runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Interrupt the process and its jobs, like Ctrl-C; they need a moment to end."""
        if self.status is None:
            os.killpg(self._process.pid, signal.SIGINT)
