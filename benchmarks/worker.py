"""Processes to measure in, with the allocator of the C library pinned or as it comes.

As it comes, glibc returns large blocks to the kernel and pays for every page again at the next call, which is up to
four fifths of what an operator with large temporaries costs; pinned, it keeps what it was given back. It reads its
settings when a process starts, so each has a process of its own. That the caller only waits meanwhile keeps what it
draws out of the measurements.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

from vae_ext.errors import UserError, is_out_of_memory

# Nothing is mapped on its own, and nothing is trimmed. A high MALLOC_MMAP_THRESHOLD_ is refused by some glibcs.
PINNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(4 << 30)}
AS_IT_COMES: dict[str, str] = {}

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class OutOfMemory(UserError):
    """What was asked of a process took more memory than there was."""


class Worker:
    """One process that does one thing after another. Where it is killed, another takes its place.

    Args:
        allocator: `PINNED` or `AS_IT_COMES`.
        environment: what else is set there.
        threads: of torch's; as many as it takes itself when None.
    """

    def __init__(self, allocator: Mapping[str, str], environment: Mapping[str, str], threads: int | None) -> None:
        self._surroundings = {**environment, **allocator}
        self._threads = threads
        self._begin()

    def run(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Calls a function of a module there, and waits for what it returns or raises.

        Raises:
            OutOfMemory: there was not enough memory for it, or the process was killed.
        """
        try:
            return self._pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            self._begin()
            raise OutOfMemory("the process that measured was killed, presumably for want of memory") from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            raise OutOfMemory(f"there was not enough memory: {said}") from error

    def _begin(self) -> None:
        context, arguments = get_context("spawn"), (self._threads,)
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=arguments)
        with _environment(self._surroundings):
            self.pid = self._pool.submit(os.getpid).result()

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


def _start(threads: int | None) -> None:
    # An interrupt goes to all processes of the terminal; the caller is the one that says so.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """What a process started meanwhile inherits: `wanted`, and nothing else about the allocator."""
    before = dict(os.environ)
    for name in PINNED:
        os.environ.pop(name, None)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
