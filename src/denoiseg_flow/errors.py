"""The exception for mistakes of the user, and helpers that quote their input in messages."""

from typing import Any

_LONGEST = 100  # characters that a message quotes


class InputError(Exception):
    """A file or config key of the user is invalid.

    The message is one sentence that names the file or key, the cause and the fix. Scripts show it
    without a traceback and exit with a non-zero status.
    """


def shown(value: Any) -> str:
    """Return the repr of a value; the middle of a long one is left out."""
    return _shortened(repr(value))


def plain(text: object) -> str:
    """Return the first line of a text in printable form; the middle of a long one is left out."""
    line = str(text).strip().split("\n")[0]
    return _shortened(line if line.isprintable() else repr(line)[1:-1])


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 13]} ... {text[-8:]}"
