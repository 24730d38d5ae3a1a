"""The most memory that torch has allocated at once during a call."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

# The profiler announces each start and stop on stderr otherwise, in the middle of a progress bar.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

_Result = TypeVar("_Result")


def peak_bytes(call: Callable[[], _Result], device: str | None = None) -> tuple[int, _Result]:
    """The most that torch had allocated at once during the call, above what was there before; and its result."""
    if (device or torch.get_default_device().type) == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        return torch.cuda.max_memory_allocated() - before, result
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes: list[int] = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes, initial=0)), result
