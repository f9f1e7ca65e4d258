"""Skip tests that need napari where it cannot be used."""

import os
import sys

import pytest


def need_viewer():
    """Skip a test file unless napari, pytest-qt and a screen are there."""
    for name in ("napari", "pytestqt", "qtpy"):
        pytest.importorskip(name, reason=f"{name} is not installed (see CONTRIBUTING.md)")
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        pytest.skip("napari needs a screen, such as that of xvfb-run", allow_module_level=True)
