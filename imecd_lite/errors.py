"""What a person at the keyboard is meant to read."""


class InputError(ValueError):
    """Bad input: one sentence that names the value (and the file and line, if any) and says what to do.

    The command line prints it without a traceback and exits with status 2.
    """


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, numpy or torch, on a CPU or a GPU, did not get the memory that it asked for."""
    on_cpu = any(words in str(error) for words in ("DefaultCPUAllocator", "Storage size calculation overflowed"))
    return on_cpu or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def quote(value: object) -> str:
    """``repr`` for a sentence: long ones are cut."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
