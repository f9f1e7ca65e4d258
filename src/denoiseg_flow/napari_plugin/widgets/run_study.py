"""The panel that writes the config of a study, and runs it in the background."""

import shlex
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, FileEdit, LineEdit
from qtpy.QtCore import QTimer
from qtpy.QtGui import QTextCursor
from qtpy.QtWidgets import QPlainTextEdit

from denoiseg_flow.errors import InputError
from denoiseg_flow.launch import init
from denoiseg_flow.napari_plugin.background import BackgroundStudy
from denoiseg_flow.napari_plugin.widgets.panel import Panel, button, chosen

if TYPE_CHECKING:
    from napari.viewer import Viewer

INTERVAL = 500  # milliseconds between two looks at what the study says


class RunStudy(Panel):
    """Choose a folder; write a config into it, run its study, read its messages, stop it."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.folder = FileEdit(label="folder", mode="d")
        self.example = CheckBox(text="with example images")
        self.new = button("New study", self._new)
        self.arguments = LineEdit(label="options of run")
        self.run = button("Run", self._run)
        self.stop = button("Stop", self._stop)
        self.extend([self.folder, self.example, self.new, self.arguments, self.run, self.stop])
        self.messages = QPlainTextEdit()
        self.messages.setReadOnly(True)
        self.native.layout().addWidget(self.messages)
        self._timer = QTimer(self.native, interval=INTERVAL)
        self._timer.timeout.connect(self._look)
        self._enable(running=False)
        if BackgroundStudy.latest and BackgroundStudy.latest.running:
            self.folder.value = BackgroundStudy.latest.folder
            self._follow(BackgroundStudy.latest)

    def _new(self) -> None:
        folder = chosen(self.folder, "a new folder")
        written = init(folder, self.example.value)
        self._say(f"written: {', '.join(map(str, written))}\n")
        if not self.example.value:
            self._say("Put your images into images, and the masks that you have into masks.\n")

    def _run(self) -> None:
        try:
            arguments = shlex.split(self.arguments.value)
        except ValueError as error:
            raise InputError(f"cannot read the options of run ({error}); correct them") from error
        self._follow(BackgroundStudy(chosen(self.folder, "the folder of a study"), arguments))

    def _follow(self, study: BackgroundStudy) -> None:
        self._study, self._shown = study, 0
        self._enable(running=True)
        self._timer.start()

    def _stop(self) -> None:
        self._study.stop()

    def _look(self) -> None:
        running = self._study.running
        new = self._study.messages(after=self._shown)
        self._shown += len(new)
        self._say(new.decode(errors="replace"))
        if not running:
            self._timer.stop()
            self._enable(running=False)
            self._say(f"{self._study.outcome()}\n")

    def _enable(self, running: bool) -> None:
        self.run.enabled, self.stop.enabled = not running, running

    def _say(self, text: str) -> None:
        """Append to the messages, and show their end."""
        self.messages.moveCursor(QTextCursor.MoveOperation.End)
        self.messages.insertPlainText(text)
        self.messages.ensureCursorVisible()
