"""The one exception a person at the keyboard is meant to read."""


class InputError(ValueError):
    """Bad input: one sentence that names the value (and the file and line, if any) and says what to do.

    The command line prints it without a traceback and exits with status 2.
    """


def quote(value: object) -> str:
    """``repr`` for a sentence: long ones are cut."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
