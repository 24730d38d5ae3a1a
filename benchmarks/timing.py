"""Timing calls against each other in one process.

What a call leaves to a CUDA device is waited for before the clock is read, once for all calls that are timed together.
"""

from __future__ import annotations

import gc
import math
import random
import resource
import statistics
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns
from typing import TypeAlias, TypeVar

import torch

Call: TypeAlias = Callable[[], object]
_Name = TypeVar("_Name", bound=Hashable)

# Long enough that a sample is the steady state of one contestant, not the tail of another.
_SAMPLE_NS = 2_000_000
_WARM_UP_CALLS, _WARM_UP_SECONDS = 5, 0.2
# With fewer, two runs could not be told apart (compare.py).
LEAST_ROUNDS = 5
# What is written to a file; the machine repeats itself to fewer digits.
_DIGITS = 4


@dataclass(frozen=True)
class Timing:
    """Percentiles of the time of one call, in microseconds, and the samples that they are of, in their order."""

    p20: float
    median: float
    p80: float
    calls_per_sample: int
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Effort:
    """How long to measure: for so many seconds, and so many rounds at least, unless `limit` seconds do not suffice."""

    seconds: float
    rounds: int
    limit: float = 60.0

    def wants(self, rounds: int, seconds: float) -> bool:
        """Another round, after so many in so many seconds."""
        if rounds < LEAST_ROUNDS or seconds < self.seconds:
            return True
        return rounds < self.rounds and seconds < self.limit


def interleave(
    calls: Mapping[_Name, Call], effort: Effort, prepare: Callable[[_Name], object] = lambda _: None
) -> tuple[dict[_Name, Timing], float]:
    """Times every call once a round, and counts the page faults of a round.

    Each round has another order, so that no call always finds the caches as the same other one left them.

    Args:
        prepare: sets up what the call of this name is to find, before each of its samples; it is not timed.
    """
    repeats: dict[_Name, int] = {}
    samples: dict[_Name, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        prepare(name)
        repeats[name] = _repeats(call)
    rounds = 0
    gc.collect()
    gc.disable()
    try:
        faults, begun = _page_faults(), perf_counter()
        order, chance = list(calls), random.Random(0)
        while effort.wants(rounds, perf_counter() - begun):
            chance.shuffle(order)
            for name in order:
                prepare(name)
                samples[name].append(_sample(calls[name], repeats[name]))
            rounds += 1
        faults = _page_faults() - faults
    finally:
        gc.enable()
    return {name: summarise(samples[name], repeats[name]) for name in calls}, faults / rounds


def seconds_of(call: Call) -> float:
    """The time of one call."""
    finish()
    start = perf_counter()
    call()
    finish()
    return perf_counter() - start


def summarise(samples: list[float], calls_per_sample: int) -> Timing:
    """The percentiles of so many samples, two or more."""
    deciles = statistics.quantiles(samples, n=10, method="inclusive")
    p20, median, p80, *rounded = (rounded_off(number) for number in (deciles[1], deciles[4], deciles[7], *samples))
    return Timing(p20, median, p80, calls_per_sample, tuple(rounded))


def rounded_off(number: float) -> float:
    """To as many digits as are written to a file."""
    return float(f"{number:.{_DIGITS}g}")


def finish() -> None:
    """Waits for what was left to a CUDA device."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _sample(call: Call, repeats: int) -> float:
    """The time of one call, over so many.

    One more beforehand finds the caches as another contestant left them; a call that lasts a whole sample alone
    finds its own way.
    """
    if repeats > 1:
        call()
    finish()
    start = perf_counter_ns()
    for _ in range(repeats):
        call()
    finish()
    return (perf_counter_ns() - start) / repeats / 1000


def _repeats(call: Call) -> int:
    """How many calls last long enough to be timed together; warms them up, too."""
    fastest, end = math.inf, perf_counter() + _WARM_UP_SECONDS
    for _ in range(_WARM_UP_CALLS):
        fastest = min(fastest, _sample(call, 1))
        if perf_counter() > end:
            break
    return max(1, math.ceil(_SAMPLE_NS / 1000 / fastest))


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
