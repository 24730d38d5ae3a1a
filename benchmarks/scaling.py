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
    """One workload on one curve. `threads` None is as many as torch takes."""

    axis: str
    workload: Workload
    threads: int | None = None

    @property
    def value(self) -> int:
        """Where on its axis it is; curves of threads go along the batch."""
        event, samples = self.workload.shape[1], self.workload.samples
        return {"event": event, "samples": samples}.get(self.axis, self.workload.shape[0])

    @property
    def name(self) -> str:
        threads = "" if self.threads is None else f" {self.threads} threads"
        return f"{self.axis}: {self.workload.name}{threads}"


def points(device: str, quick: bool) -> list[Point]:
    """All points of all curves."""
    every = 3 if quick else 1
    return [point for operator in _EVENTS for point in _points(operator, device, every)]


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
        for threads in thread_counts(len(os.sched_getaffinity(0))):
            yield Point("threads", workload(batch, event), threads)


def thread_counts(cores: int) -> list[int]:
    """Powers of two up to the cores, and the cores."""
    return sorted({1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores})


def grow(session: Session, cells: Sequence[Point]) -> Iterator[list[dict[str, Any]]]:
    """The rows so far, after each point."""
    rows: list[dict[str, Any]] = []
    for point in session.each("scaling", {point.name: point for point in cells}):
        row = session.measured(point.name, session.pinned, measure, point, session.plan)
        rows += [] if row is None else [row]
        yield rows


def measure(point: Point, plan: Plan) -> dict[str, Any]:
    """Times in µs a call, of ours and of eager."""
    before = torch.get_num_threads()
    operators = {OURS: vae_ext, "eager": reference}
    try:
        torch.set_num_threads(point.threads or before)
        inputs = Inputs(point.workload, plan.device, plan.input_sets)
        calls = {name: inputs.call(operator_of(module, point.workload.operator)) for name, module in operators.items()}
        timings, _ = interleave(calls, plan.effort_of_a_point)
        threads = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    return {
        "axis": point.axis,
        "operator": point.workload.operator,
        "shape": list(point.workload.shape),
        "samples": point.workload.samples,
        "threads": threads,
        "value": point.value,
        "timings": {name: asdict(timing) for name, timing in timings.items()},
    }
