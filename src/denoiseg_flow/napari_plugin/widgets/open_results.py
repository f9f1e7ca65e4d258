"""The panel that opens the images of a study, and what its runs predicted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, FileEdit

from denoiseg_flow.napari_plugin.layers import SOURCE
from denoiseg_flow.napari_plugin.results import Part, find_parts
from denoiseg_flow.napari_plugin.widgets.panel import Panel, button, chosen

if TYPE_CHECKING:
    from napari.viewer import Viewer


class OpenResults(Panel):
    """Choose a folder, an image and a run; show them as layers."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self._looked_into: Path | None = None
        self._parts: Sequence[Part] = ()
        self.folder = FileEdit(label="folder", mode="d")
        self.look = button("Look into the folder", self._look)
        # Functions, because napari asks for the choices again whenever the layers change.
        self.part = ComboBox(label="images of", choices=self._list_parts)
        self.image = ComboBox(label="image", choices=self._list_images)
        self.run = ComboBox(label="run", choices=self._list_runs)
        self.open = button("Open", self._open)
        self.part.changed.connect(self._fill)
        self.extend([self.folder, self.look, self.part, self.image, self.run, self.open])

    def _list_parts(self, _: Any) -> list[tuple[str, Part]]:
        return [(part.name, part) for part in self._parts]

    def _list_images(self, _: Any) -> Sequence[str]:
        return self.part.value.images() if self.part.value else ()

    def _list_runs(self, _: Any) -> Sequence[str]:
        return self.part.value.runs() if self.part.value else ()

    def _look(self) -> None:
        folder = chosen(self.folder, "a folder")
        self._parts, self._looked_into = find_parts(folder), folder
        self.part.reset_choices()
        self._fill()

    def _fill(self) -> None:
        self.image.reset_choices()
        self.run.reset_choices()

    def _open(self) -> None:
        if chosen(self.folder, "a folder") != self._looked_into:
            self._look()
        shown = {layer.metadata.get(SOURCE) for layer in self.viewer.layers}
        layers = self.part.value.layers(self.image.value, self.run.value)
        self.add(layer for layer in layers if layer[1]["metadata"][SOURCE] not in shown)
