"""Measures: first that the operators are right, then how fast they and their peers are."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

import vae_ext
from benchmarks.timing import Call, Effort, Timing, interleave, seconds_of
from benchmarks.workloads import SUITES, Inputs, Sizes, Workload, operator_of, parts_of
from tests import accuracy
from tests.cases import Case, select
from tests.memory import peak_bytes
from vae_ext import reference
from vae_ext.errors import UserError

CONTESTANTS = ("eager", "compile", "ours")
# From here on a working set is beyond a core's own caches, or on a CUDA device beyond all: what the shared cache or
# memory gives is measured beside it.
_BEYOND_OWN_CACHES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}


@dataclass(frozen=True)
class Measurement:
    """What was found of one workload, by contestant."""

    workload: Workload
    timings: Mapping[str, Timing]
    peaks: Mapping[str, int]  # bytes
    sizes: Sizes
    compile_seconds: float
    page_faults_per_round: float

    def speedup(self, peer: str) -> float:
        """How many times faster ours is than `peer`."""
        return self.timings[peer].p20 / self.timings["ours"].p20

    def bound(self) -> float:
        """What ours would take, in µs, were it but the call and what all cores or the memory take for the work.

        Cores take what one does for rows in its own caches; of a workload that one core does whole, the call alone is
        the bound. A CUDA device works while the next call is made, and its cores are not looked at.
        """
        part, call = self.workload.on_one_core(), self.timings["call"].p20
        memory = self.timings["memory"].p20 if "memory" in self.timings else 0.0
        if "core" not in self.timings:
            return max(call, memory)
        if part == self.workload:
            return call
        work = max(0.0, self.timings["core"].p20 - call) * self.workload.elements / part.elements
        cores = min(torch.get_num_threads(), math.ceil(self.workload.elements / part.elements))
        return call + max(work / cores, memory)

    def share_of_bandwidth(self) -> float | None:
        """The time in which memory alone reads (fwd) or copies (fwd+bwd, CUDA) as many bytes, over ours."""
        return self.timings["memory"].p20 / self.timings["ours"].p20 if "memory" in self.timings else None


def chosen(only: str, device: str) -> Sequence[Workload]:
    """The workloads whose name the regular expression `only` is found in."""
    try:
        pattern = re.compile(only)
    except re.error as error:
        raise UserError(f"--only {only} is not a regular expression: {error}") from error
    workloads = [workload for workload in SUITES[device] if pattern.search(workload.name)]
    if not workloads:
        raise UserError(f"--only {only} matches none of: {', '.join(workload.name for workload in SUITES[device])}")
    return workloads


def gate(operators: Collection[str], dtype: torch.dtype) -> list[Case]:
    """The registered cases that have to be right before anything is measured."""
    float16_overflows = ("extreme", "saturated") if dtype == torch.float16 else ()
    parts = {part for operator in operators for part in parts_of(operator)}
    return [case for case in select(*parts) if case.values not in float16_overflows]


def check(case: Case, dtype: torch.dtype, device: str) -> None:
    """Raises UserError unless values and gradients of the fused operator are accurate in `case`."""
    try:
        accuracy.check(case, case.make(dtype=dtype, device=device, requires_grad=True))
    except Exception as error:
        raise UserError(f"nothing was measured, because {case.id} is wrong in {dtype}: {error}") from error


@contextmanager
def fresh_compiler() -> Iterator[None]:
    """torch.compile without what earlier runs left behind, loaded, and without processes of its own."""
    with tempfile.TemporaryDirectory(prefix="vae_ext-benchmarks-") as folder:
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": folder, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        torch.compile(torch.neg)(torch.ones(1000))
        yield


def measure(workload: Workload, dtype: torch.dtype, device: str, effort: Effort) -> Measurement:
    """Times the three contestants on the same inputs, each drawing its own noise, and what bounds ours."""
    torch.manual_seed(0)
    torch.compiler.reset()
    eager, ours = operator_of(reference, workload.operator), operator_of(vae_ext, workload.operator)
    compiled = torch.compile(eager, dynamic=False, fullgraph=True)

    inputs = Inputs(workload, dtype, device)
    calls = {name: inputs.call(operator) for name, operator in zip(CONTESTANTS, (eager, compiled, ours), strict=True)}
    compile_seconds = seconds_of(calls["compile"])
    sizes = inputs.sizes(ours)
    memory = {}
    if sizes.moved >= _BEYOND_OWN_CACHES[device]:
        memory["memory"] = _memory(sizes.moved, workload.direction, device)
    # The least that any call through torch takes, ours with next to nothing to compute, and on one core's share.
    parts = {"torch": _torch_alone(workload.direction, device)}
    parts["call"] = Inputs(workload.call_alone(), dtype, device).call(ours)
    if device == "cpu":
        parts["core"] = Inputs(workload.on_one_core(), dtype, device).call(ours)
    timings, page_faults_per_round = interleave(calls | memory | parts, effort)
    return Measurement(
        workload,
        timings,
        {name: peak_bytes(call, device)[0] for name, call in calls.items()},
        sizes,
        compile_seconds,
        page_faults_per_round,
    )


def _torch_alone(direction: str, device: str) -> Call:
    """An addition of two numbers, and its gradients: no operator of two arguments takes less."""
    a, b, grad = torch.ones(3, 1, 1, device=device)
    if direction == "fwd":
        return lambda: a + b
    wanted = (a.requires_grad_(), b.requires_grad_())
    return lambda: torch.autograd.grad(a + b, wanted, grad)


def _memory(moved: int, direction: str, device: str) -> Call:
    """Reads so many bytes, or copies half as many, which is what a CUDA device's memory is best at."""
    if direction == "fwd" and device == "cpu":
        return torch.ones(moved // 4).sum
    source, destination = torch.ones(2, moved // 8, device=device)
    return lambda: destination.copy_(source)
