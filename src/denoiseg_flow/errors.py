"""The one exception that users are meant to read."""


class InputError(Exception):
    """Something the user gave (a file, a config key) cannot be used.

    The message is a single sentence that names the file or key, says what is wrong with it and
    what to do instead. Scripts show it without a traceback and exit with a non-zero status.
    """
