"""The allocator of the C library, as it comes or pinned: keeping the memory that it was given back.

As it comes, it returns large blocks to the kernel and pays for every page again at the next call, which is up
to four fifths of what an operator with large temporaries costs. Its settings are read when the process starts,
so that a process that wants others replaces itself. Nothing here imports torch: that would happen twice.
"""

from __future__ import annotations

import os
import sys
from enum import Enum

_FOUR_GIB = str(4 << 30)
_PINNED = {"MALLOC_MMAP_THRESHOLD_": _FOUR_GIB, "MALLOC_TRIM_THRESHOLD_": _FOUR_GIB}


class Allocator(str, Enum):
    """The settings to choose from."""

    pinned = "pinned"
    default = "default"


def restart_with(allocator: Allocator) -> None:
    """Replaces this process by one that has these settings, if it hasn't."""
    wanted = _PINNED if allocator is Allocator.pinned else {}
    if {name: os.environ[name] for name in _PINNED if name in os.environ} == wanted:
        return
    others = {name: value for name, value in os.environ.items() if name not in _PINNED}
    os.execve(sys.executable, sys.orig_argv, others | wanted)
