"""The panel that writes the config of a study, and runs it in the background."""

import shlex
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, FileEdit, LineEdit, TextEdit
from qtpy.QtCore import QTimer
from qtpy.QtGui import QTextCursor
from qtpy.QtWidgets import QApplication

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
        self.messages = TextEdit()
        self.messages.read_only = True
        self.stop.enabled = False
        self.extend([
            self.folder, self.example, self.new, self.arguments, self.run, self.stop, self.messages,
        ])  # fmt: skip
        self._study: BackgroundStudy | None = None
        self._timer = QTimer(self.native)
        self._timer.setInterval(INTERVAL)
        self._timer.timeout.connect(self._look)
        # Nobody could stop the study any more.
        QApplication.instance().aboutToQuit.connect(self._stop)
        self.native.destroyed.connect(self._stop)

    def _new(self) -> None:
        folder = chosen(self.folder, "a new folder")
        written = init(folder, self.example.value)
        self._say(f"written: {', '.join(map(str, written))}\n")
        if not self.example.value:
            self._say("Put your images into images, and the masks that you have into masks.\n")

    def _run(self) -> None:
        arguments = shlex.split(self.arguments.value)
        self._study = BackgroundStudy(chosen(self.folder, "the folder of a study"), arguments)
        self._enable(running=True)
        self._timer.start()

    def _stop(self) -> None:
        if self._study is not None:
            self._study.stop()

    def _look(self) -> None:
        assert self._study is not None
        status = self._study.status
        self._say(self._study.new_messages())
        if status is not None:
            self._timer.stop()
            self._enable(running=False)
            self._say("finished\n" if status == 0 else f"ended with exit status {status}\n")

    def _enable(self, running: bool) -> None:
        self.run.enabled, self.stop.enabled = not running, running

    def _say(self, text: str) -> None:
        """Append to the messages, and show their end."""
        self.messages.native.moveCursor(QTextCursor.MoveOperation.End)
        self.messages.native.insertPlainText(text)
        self.messages.native.ensureCursorVisible()
