"""The panel that corrects the masks of a round of annotation."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox, FileEdit, Label
from napari.layers import Labels
from napari.layers import Layer as ViewerLayer
from qtpy.QtWidgets import QMessageBox

from denoiseg_flow.errors import InputError
from denoiseg_flow.findings import count
from denoiseg_flow.napari_plugin.corrections import Crop, find_crops
from denoiseg_flow.napari_plugin.widgets.panel import Panel, button, chosen

if TYPE_CHECKING:
    from napari.viewer import Viewer


class CorrectMasks(Panel):
    """Open the suggested images or crops one after the other, and save their masks."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self._looked_into: Path | None = None
        self._crops: list[Crop] = []
        self._opened: Crop | None = None
        self._layers: list[ViewerLayer] = []
        self._saved = np.zeros(0)
        self.folder = FileEdit(label="folder", mode="d")
        self.look = button("Look into the folder", self._look)
        self.crop = ComboBox(label="image or crop", choices=self._list_crops)
        self.open = button("Open", self._open)
        self.save = button("Save the mask", self._save)
        self.state = Label()
        self.extend([self.folder, self.look, self.crop, self.open, self.save, self.state])

    def _list_crops(self, _: Any) -> list[tuple[str, int]]:
        """Return the names, with a mark on those that were corrected, and their numbers."""
        marks = [" (corrected)" if crop.is_corrected else "" for crop in self._crops]
        names = [f"{crop.name}{mark}" for crop, mark in zip(self._crops, marks, strict=True)]
        return [(name, number) for number, name in enumerate(names)]

    def _look(self) -> None:
        folder = chosen(self.folder, "a folder")
        self._crops, self._looked_into = find_crops(folder), folder
        self._fill()

    def _fill(self) -> None:
        """List what there is, and choose the first that is not corrected."""
        self.crop.choices = ()  # otherwise changed names would move to the end
        self.crop.reset_choices()
        done = [crop.is_corrected for crop in self._crops]
        if False in done:
            self.crop.value = done.index(False)
        self.state.value = f"{sum(done)} of {count(len(done), 'mask')} corrected"

    def _open(self) -> None:
        if chosen(self.folder, "a folder") != self._looked_into:
            self._look()
        if self.crop.value is None or not self._leave():
            return
        for layer in self._layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self._opened = self._crops[self.crop.value]
        self._layers = self.add(self._opened.layers())
        self._saved = self._mask().data.copy()
        self._mask().selected_label = int(self._saved.max()) + 1  # to paint a new object
        self.viewer.layers.selection.active = self._mask()
        self.viewer.reset_view()

    def _leave(self) -> bool:
        """Return whether the opened mask may be closed: it is saved, or not wanted."""
        if not self._layers or self._layers[-1] not in self.viewer.layers:
            return True
        if np.array_equal(self._mask().data, self._saved):
            return True
        answers = QMessageBox.StandardButton
        answer = QMessageBox.question(
            self.native,
            "Unsaved mask",
            f"Save the changes of '{self._mask().name}'?",
            answers.Save | answers.Discard | answers.Cancel,
        )
        if answer == answers.Save:
            self._save()
        return bool(answer != answers.Cancel)

    def _mask(self) -> Labels:
        return self._layers[-1]

    def _save(self) -> None:
        if self._opened is None or self._mask() not in self.viewer.layers:
            raise InputError("there is no mask to save; open an image or crop first")
        self._opened.save(self._mask().data)
        self._saved = self._mask().data.copy()
        self._fill()
