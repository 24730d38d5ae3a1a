"""The one exception that means: the user can mend this."""

from __future__ import annotations


class UserError(Exception):
    """An expected failure; its message is one sentence naming the thing and the remedy.

    The command line prints the message without a traceback and exits with status 1.
    """


# The words of torch's allocators, of a CUDA device and of the CPU. That a kernel read memory that is not its own
# ("an illegal memory access") is a fault of ours, which no smaller input mends.
_NO_MEMORY = ("out of memory", "can't allocate memory")


def is_out_of_memory(error: Exception) -> bool:
    """Whether there was not the memory that Python or torch asked for."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)
