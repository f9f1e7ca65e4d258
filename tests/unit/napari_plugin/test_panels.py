"""The panels of the plugin in a viewer without a window."""

import sys

import numpy as np
import pytest
import tifffile
from viewer import need_viewer

need_viewer()

from qtpy.QtWidgets import QMessageBox  # noqa: E402

from denoiseg_flow.napari_plugin import background  # noqa: E402

SLEEP = "import time; print('at work', flush=True); time.sleep(60)"


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def errors(monkeypatch):
    """What is shown to the user instead of a traceback."""
    from denoiseg_flow.napari_plugin.widgets import panel

    shown = []
    monkeypatch.setattr(panel, "show_error", shown.append)
    return shown


@pytest.fixture
def open_panel(viewer):
    """Open a panel from the menu of napari."""

    def open_panel(name):
        return viewer.window.add_plugin_dock_widget("denoiseg-flow", name)[1]

    return open_panel


def press(button):
    button.native.click()


def names(viewer):
    return [layer.name for layer in viewer.layers]


def test_open_results(viewer, open_panel, errors, study):
    panel = open_panel("Open results")
    press(panel.open)
    assert errors == ["choose a folder first"]
    panel.folder.value = study.folder
    press(panel.look)
    assert panel.image.choices == ("0", "1") and panel.run.choices == ("denoiseg",)
    panel.image.value = "1"
    for _ in range(2):  # what is shown is not shown again
        press(panel.open)
        assert names(viewer) == ["1", "1 denoiseg denoised", "1 denoiseg labels"]
    assert panel.image.value == "1"
    assert type(viewer.layers[2]).__name__ == "Labels"
    assert {str(unit) for layer in viewer.layers for unit in layer.units} == {"micrometer"}
    assert np.allclose([layer.scale for layer in viewer.layers], 0.25)
    panel.part.value = panel.part.choices[1]
    assert panel.run.choices == () and panel.image.choices == ("0", "1")
    press(panel.open)
    assert names(viewer)[3:] == ["1 n10"]
    panel.folder.value = study.folder / "images"  # another folder is never mixed up with this one
    press(panel.open)
    assert len(viewer.layers) == 4 and "images has no results" in errors[1]


def test_open_predicted_images(viewer, open_panel, predicted):
    panel = open_panel("Open results")
    panel.folder.value = predicted
    press(panel.open)
    assert names(viewer) == ["0", "0 denoised", "0 labels"]
    labels = viewer.layers["0 labels"]
    place = np.argwhere(labels.data)[0]
    assert "confidence" in labels.get_status(place * 0.25)["value"]


def test_predict_the_selected_images(viewer, open_panel, errors, study, make_blobs, qtbot):
    panel = open_panel("Predict images")
    press(panel.predict)
    assert errors == ["choose a model first"]
    panel.model.value = study.model
    images = [make_blobs(32, seed)[0] for seed in range(3)]
    for name, image in zip("abc", images, strict=True):
        viewer.add_image(image, name=name, scale=(0.5, 0.5), units="um", translate=(3, 4))
    viewer.layers.selection = {viewer.layers["a"], viewer.layers["c"]}
    press(panel.predict)
    assert not panel.predict.enabled
    qtbot.waitUntil(lambda: panel.predict.enabled, timeout=60_000)
    assert names(viewer)[3:] == ["a denoised", "a labels", "c denoised", "c labels"]
    for layer in viewer.layers:
        assert np.allclose((layer.scale, layer.translate), ((0.5, 0.5), (3, 4)))
    viewer.layers.selection = {viewer.layers["a labels"]}
    press(panel.predict)
    qtbot.waitUntil(lambda: panel.predict.enabled, timeout=60_000)
    assert errors[1:] == ["no image layer is selected; select one in the list of layers"]


def test_correct_masks(viewer, open_panel, errors, suggested, monkeypatch):
    panel = open_panel("Correct masks")
    press(panel.save)
    assert errors == ["there is no mask to save; open an image or crop first"]
    panel.folder.value = suggested
    press(panel.open)
    assert names(viewer) == ["1", "1 mask"] and panel.state.value == "0 of 2 masks corrected"
    mask = viewer.layers["1 mask"]
    assert viewer.layers.selection.active is mask and mask.selected_label == 2
    mask.paint((20, 20), mask.selected_label)

    answers, asked = QMessageBox.StandardButton, []
    given = [answers.Cancel, answers.Save, answers.Discard]

    def answer(*arguments):
        asked.append(arguments[2])
        return given[len(asked) - 1]

    monkeypatch.setattr(QMessageBox, "question", answer)
    panel.crop.value = 1
    press(panel.open)
    assert asked == ["Save the changes of '1 mask'?"] and names(viewer) == ["1", "1 mask"]
    assert tifffile.imread(suggested / "masks/1.tif").max() == 1
    press(panel.open)
    assert tifffile.imread(suggested / "masks/1.tif")[20, 20] == 2
    assert panel.state.value == "1 of 2 masks corrected"
    assert names(viewer) == ["0", "0 mask"]
    viewer.layers["0 mask"].paint((20, 20), 5)
    press(panel.open)
    assert len(asked) == 3 and viewer.layers["0 mask"].data.max() == 1, "discarded"
    press(panel.save)
    press(panel.open)
    assert len(asked) == 3 and panel.state.value == "2 of 2 masks corrected"


def test_run_a_study(viewer, open_panel, errors, tmp_path, monkeypatch, qtbot):
    panel = open_panel("Run a study")
    panel.folder.value = tmp_path / "mine"
    press(panel.run)
    assert errors == [f"{tmp_path}/mine has no config.yaml; write one with 'New study'"]
    press(panel.new)
    assert "Put your images into images" in panel.messages.toPlainText()
    press(panel.new)
    assert "is not empty" in errors[1]

    panel.arguments.value = "'open"
    press(panel.run)
    assert errors[2] == "cannot read the options of run (No closing quotation); correct them"
    panel.arguments.value = "--dry-run"
    monkeypatch.setattr(background, "COMMAND", (sys.executable, "-c", SLEEP))
    press(panel.run)
    assert panel.stop.enabled and not panel.run.enabled
    qtbot.waitUntil(lambda: "at work" in panel.messages.toPlainText(), timeout=30_000)
    press(panel.stop)
    qtbot.waitUntil(lambda: panel.run.enabled, timeout=30_000)
    assert "Stopped; 'Run' continues where it stopped." in panel.messages.toPlainText()
    assert not panel.stop.enabled


def test_a_study_outlives_its_panel(viewer, open_panel, tmp_path, monkeypatch, qtbot):
    """The panel, opened again, shows all that the study has said."""
    monkeypatch.setattr(background, "COMMAND", (sys.executable, "-c", SLEEP))
    (tmp_path / "config.yaml").touch()
    panel = open_panel("Run a study")
    panel.folder.value = tmp_path
    press(panel.run)
    qtbot.waitUntil(lambda: "at work" in panel.messages.toPlainText(), timeout=30_000)
    viewer.window.remove_dock_widget(panel.native)
    again = open_panel("Run a study")
    assert again is not panel and again.folder.value == tmp_path
    qtbot.waitUntil(lambda: "at work" in again.messages.toPlainText(), timeout=30_000)
    press(again.stop)
    qtbot.waitUntil(lambda: again.run.enabled, timeout=30_000)
