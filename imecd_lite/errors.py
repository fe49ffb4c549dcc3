"""The one exception a person at the keyboard is meant to read."""


class InputError(ValueError):
    """Bad input: one sentence that names the value (and the file and line, if any) and says what to do.

    The command line prints it without a traceback and exits with status 2.
    """
