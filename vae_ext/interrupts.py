"""What an interrupt, Ctrl-C, does to the command line."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STATUS = 130  # 128 + SIGINT, as shells report it


def end_the_process() -> None:
    """From here on an interrupt ends the process at once, with one line.

    As an exception it could get lost inside the imports of NumPy and torch, or come out of them as another.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_keyboard_interrupt() -> None:
    """From here on an interrupt is a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """For what must not be torn apart: says whether there was an interrupt, which is a KeyboardInterrupt at its end.

    A second one is a KeyboardInterrupt at once.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    interrupted = False

    def note(_signal: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupted:
        raise KeyboardInterrupt


def _end(_signal: int, _frame: object) -> None:
    try:
        os.write(2, b"vae-ext: interrupted\n")
    finally:
        os._exit(STATUS)
