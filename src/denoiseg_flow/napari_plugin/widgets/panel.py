"""What the panels of the plugin have in common."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, FileEdit, PushButton
from napari.layers import Layer as ViewerLayer
from napari.utils.notifications import show_error

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.logs import advice
from denoiseg_flow.napari_plugin.layers import Layer

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Panel(Container):
    """A panel beside the viewer."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self.viewer = napari_viewer

    def add(self, layers: Iterable[Layer]) -> list[ViewerLayer]:
        """Add layers to the viewer; return them."""
        return [self.viewer.add_layer(ViewerLayer.create(*layer)) for layer in layers]


def button(text: str, action: Callable[[], None]) -> PushButton:
    """Return a button; it shows mistakes of the user as a message."""
    made = PushButton(text=text)
    made.changed.connect(partial(_run, action))
    return made


def chosen(file: FileEdit, what: str) -> Path:
    """Return the file or folder that the user has chosen.

    Raises
    ------
    InputError
        If it is none yet.
    """
    if not file.line_edit.value:
        raise InputError(f"choose {what} first")
    return Path(file.value)


def show(error: Exception) -> None:
    """Show a mistake of the user as a message; raise any other error, with its traceback."""
    if not (text := advice(error)):
        raise error
    show_error(text)


def _run(action: Callable[[], None], *_: Any) -> None:
    try:
        action()
    except Exception as error:
        show(error)
