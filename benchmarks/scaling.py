"""Scaling: how the time of an operator grows with the batch, the event, the samples, and shrinks with threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

import vae_ext
from benchmarks.results import OURS
from benchmarks.session import Plan, Session
from benchmarks.timing import interleave
from benchmarks.workloads import Inputs, Workload, operator_of
from vae_ext import reference

# One likelihood and one sampler, whose cost is memory and arithmetic.
_EVENTS = {"bernoulli_log_prob": 784, "normal_rsample_kl": 64}
_BATCHES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
_EVENT_SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
_SAMPLES = (1, 2, 5, 10, 20, 50)
_ROWS = 256


@dataclass(frozen=True)
class Point:
    """One workload on one curve, with each of these numbers of threads; none is as many as torch takes."""

    axis: str
    workload: Workload
    threads: tuple[int, ...] = ()

    @property
    def value(self) -> int:
        """Where on its axis it is; curves of threads go along the batch."""
        event, samples = self.workload.shape[1], self.workload.samples
        return {"event": event, "samples": samples}.get(self.axis, self.workload.shape[0])

    @property
    def name(self) -> str:
        return f"{self.axis}: {self.workload.name}"

    @property
    def made_of(self) -> tuple[str, ...]:
        """The operators that have to be right for it."""
        return self.workload.made_of


def points(device: str, quick: bool, dtypes: Sequence[str]) -> list[Point]:
    """All points of all curves, which are of float32."""
    every = 3 if quick else 1
    found = [point for operator in _EVENTS for point in _points(operator, device, every)]
    return [point for point in found if point.workload.dtype in dtypes]


def _points(operator: str, device: str, every: int) -> Iterator[Point]:
    event = _EVENTS[operator]

    def workload(rows: int, elements: int, samples: int = 1) -> Workload:
        return Workload(operator, (rows, elements), "fwd+bwd", samples=samples)

    for batch in _BATCHES[::every]:
        yield Point("batch", workload(batch, event))
    for size in _EVENT_SIZES[::every]:
        yield Point("event", workload(_ROWS, size))
    for samples in _SAMPLES[::every]:
        yield Point("samples", workload(_ROWS, event, samples))
    if device == "cuda":
        return
    for batch in _BATCHES[::every]:
        yield Point("threads", workload(batch, event), thread_counts(len(os.sched_getaffinity(0))))


def thread_counts(cores: int) -> tuple[int, ...]:
    """Powers of two up to the cores, and the cores."""
    return tuple(sorted({1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores}))


def grow(session: Session, cells: Sequence[Point]) -> Iterator[list[dict[str, Any]]]:
    """The rows so far, after each point."""
    rows: list[dict[str, Any]] = []
    for point in session.each("scaling", {point.name: point for point in cells}):
        rows += session.measured(point.name, session.pinned, measure, point, session.plan) or []
        yield rows


def measure(point: Point, plan: Plan) -> list[dict[str, Any]]:
    """Times in µs a call, of ours and of eager, a row for each number of threads; all are in the same rounds."""
    before = torch.get_num_threads()
    counts = point.threads or (before,)
    inputs = Inputs(point.workload, plan.device, plan.input_sets)
    functions = {
        name: inputs.call(operator_of(module, point.workload.operator))
        for name, module in {OURS: vae_ext, "eager": reference}.items()
    }
    calls = {(name, count): call for count in counts for name, call in functions.items()}

    def with_threads(contestant: tuple[str, int]) -> None:
        torch.set_num_threads(contestant[1])
        # Threads that are new start with the first call, which is not to be timed.
        calls[contestant]()

    try:
        timings, _ = interleave(calls, plan.effort_of_a_point, prepare=with_threads)
    finally:
        torch.set_num_threads(before)
    return [
        {
            "axis": point.axis,
            "operator": point.workload.operator,
            "shape": list(point.workload.shape),
            "samples": point.workload.samples,
            "threads": count,
            "value": point.value,
            "timings": {name: asdict(timings[name, count]) for name in functions},
        }
        for count in counts
    ]
