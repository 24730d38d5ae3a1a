"""What the parts of a run share: the processes that measure, how to measure, the bar, the time, what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from benchmarks.terminal import Terminal
from benchmarks.timing import Effort
from benchmarks.worker import Worker

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    device: str
    quick: bool
    input_sets: int

    @property
    def effort(self) -> Effort:
        """For one operator on one workload."""
        return Effort(seconds=0.15, rounds=8) if self.quick else Effort(seconds=0.6, rounds=12, limit=5.0)

    @property
    def effort_of_a_step(self) -> Effort:
        """For whole training steps."""
        return Effort(seconds=0.5, rounds=4) if self.quick else Effort(seconds=2.0, rounds=7, limit=15.0)

    @property
    def effort_of_a_point(self) -> Effort:
        """For one point of a curve."""
        return Effort(seconds=0.05, rounds=4) if self.quick else Effort(seconds=0.2, rounds=9)


@dataclass
class Session:
    """One run.

    Attributes:
        pinned: where everything is measured.
        as_it_comes: the same with the default allocator; None on a CUDA device, where torch's own is used.
        deadline: of `time.monotonic`; what has not been begun then is left out.
        left_out: what was not measured, and why.
    """

    terminal: Terminal
    plan: Plan
    pinned: Worker
    as_it_comes: Worker | None
    deadline: float
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = reason

    def each(self, what: str, items: Mapping[str, _Item]) -> Iterator[_Item]:
        """The items there is time for."""
        for name, item in self.terminal.each(what, items):
            if monotonic() > self.deadline:
                self.leave_out(name, "the time was up")
            else:
                yield item

    def workers(self) -> list[Worker]:
        return [worker for worker in (self.pinned, self.as_it_comes) if worker is not None]
