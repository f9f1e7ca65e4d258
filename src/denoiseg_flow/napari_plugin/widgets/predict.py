"""The panel that predicts the selected image layers."""

from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, FileEdit
from napari.layers import Image
from napari.qt.threading import create_worker

from denoiseg_flow.napari_plugin.prediction import picture_of, predict_each
from denoiseg_flow.napari_plugin.widgets.panel import Panel, button, chosen, show

if TYPE_CHECKING:
    from napari.viewer import Viewer


class PredictImages(Panel):
    """Choose a model; add its predictions of the selected images as layers."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.model = FileEdit(label="model", filter="*.pt")
        self.other_levels = CheckBox(text="other grey levels than in the training")
        self.other_size = CheckBox(text="other pixel size than in the training")
        self.predict = button("Predict the selected images", self._predict)
        self.extend([self.model, self.other_levels, self.other_size, self.predict])

    def _predict(self) -> None:
        selected = self.viewer.layers.selection
        images = [each for each in self.viewer.layers if each in selected]
        pictures = [picture_of(each) for each in images if isinstance(each, Image)]
        worker = create_worker(
            predict_each,
            chosen(self.model, "a model"),
            pictures,
            "image" if self.other_levels.value else "training",
            "pixel-size" if self.other_size.value else None,
            _ignore_errors=True,
            _progress={"total": len(pictures), "desc": "Predicting"},
        )
        self.predict.enabled = False
        worker.yielded.connect(self.add)
        worker.errored.connect(show)
        worker.finished.connect(self._finish)
        worker.start()

    def _finish(self) -> None:
        self.predict.enabled = True
