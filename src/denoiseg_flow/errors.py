"""The one exception that users are meant to read, and what its message repeats of their input."""

from typing import Any

_LONGEST = 100  # characters of what a message repeats


class InputError(Exception):
    """Something the user gave (a file, a config key) cannot be used.

    The message is a single sentence that names the file or key, says what is wrong with it and
    what to do instead. Scripts show it without a traceback and exit with a non-zero status.
    """


def shown(value: Any) -> str:
    """Return a value as Python writes it, the middle of a long one left out."""
    return _shortened(repr(value))


def plain(text: object) -> str:
    """Return the first line of a text, such that it can be printed, a long one shortened."""
    line = str(text).strip().split("\n")[0]
    return _shortened(line if line.isprintable() else repr(line)[1:-1])


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 13]} ... {text[-8:]}"
