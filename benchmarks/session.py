"""What the parts of a run share: the processes that measure, how to measure, the bar, the time, what was left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import ParamSpec, TypeVar

from benchmarks.terminal import Terminal
from benchmarks.timing import Effort
from benchmarks.worker import OutOfMemory, Worker

_Arguments = ParamSpec("_Arguments")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
        return Effort(seconds=0.5, rounds=5) if self.quick else Effort(seconds=2.0, rounds=7, limit=15.0)

    @property
    def effort_of_a_point(self) -> Effort:
        """For one point of a curve."""
        return Effort(seconds=0.05, rounds=5) if self.quick else Effort(seconds=0.2, rounds=9)


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

    def pids(self) -> list[int]:
        """The processes of this run, as they are now; those that have ended are counted with this one."""
        return [os.getpid(), *(worker.pid for worker in self.workers())]

    def measured(
        self,
        name: str,
        worker: Worker,
        function: Callable[_Arguments, _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result | None:
        """What `worker` measures; None, and left out, where the memory did not suffice."""
        try:
            return worker.run(function, *args, **kwargs)
        except OutOfMemory as error:
            self.leave_out(name, str(error))
            return None

    def each(self, what: str, items: Mapping[str, _Item]) -> Iterator[_Item]:
        """The items there is time for."""
        for name, item in self.terminal.each(what, items):
            if monotonic() > self.deadline:
                self.leave_out(name, "the time was up")
            else:
                yield item

    def workers(self) -> list[Worker]:
        return [worker for worker in (self.pinned, self.as_it_comes) if worker is not None]
