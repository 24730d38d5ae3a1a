"""The operators: how fast and how greedy each contestant is on every workload, and what bounds ours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

import vae_ext
from benchmarks import machine
from benchmarks.contestants import COMPILED, contestants, wake_compiler
from benchmarks.session import Plan, Session
from benchmarks.timing import Call, Timing, interleave, rounded_off, seconds_of
from benchmarks.workloads import Inputs, Workload, by_importance, operator_of
from tests.memory import peak_bytes

# From here on a working set is beyond a core's own caches, or on a CUDA device beyond all: what the shared cache or
# memory gives is measured beside it.
_BEYOND_OWN_CACHES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}


def sweep(session: Session, workloads: Sequence[Workload]) -> Iterator[list[dict[str, Any]]]:
    """After each workload that there is memory and time for, the rows so far, in the order of `workloads`."""
    rows: dict[Workload, dict[str, Any]] = {}
    ordered = by_importance(workloads)
    for workload in session.each("operators", {workload.name: workload for workload in ordered}):
        available = session.pinned.run(machine.available_memory, session.plan.device)
        needed = workload.memory_needed(session.plan.input_sets)
        if needed > available:
            missing = f"{needed / 2**30:.1f} GiB of memory are needed, {available / 2**30:.1f} free"
            session.leave_out(workload.name, missing)
            continue
        row = session.measured(workload.name, session.pinned, measure, workload, session.plan)
        if row is None:
            continue
        rows[workload] = row
        # Half precision has the same allocations, at half the size; so do several samples, at a multiple.
        if session.as_it_comes is not None and workload.dtype == "float32" and workload.samples == 1:
            name = f"{workload.name} with the default allocator"
            default = session.measured(name, session.as_it_comes, time_alone, workload, session.plan)
            row |= {} if default is None else {"default_allocator": default}
        yield [rows[workload] for workload in workloads if workload in rows]


def measure(workload: Workload, plan: Plan) -> dict[str, Any]:
    """Everything about one workload: times in µs a call, sizes in bytes."""
    inputs, calls, seconds, failed = _prepare(workload, plan)
    sizes = inputs.sizes(operator_of(vae_ext, workload.operator))
    limits = _limits(inputs, plan, sizes.moved)
    timings, page_faults = interleave(calls | limits, plan.effort)
    measured_limits = {name: timings.pop(name) for name in limits}
    return workload.row | {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "limits": {name: timing.p20 for name, timing in measured_limits.items()},
        "bound": bound(workload, measured_limits, torch.get_num_threads()),
        "compile_seconds": seconds,
        "peak_bytes": {name: peak_bytes(call, plan.device)[0] for name, call in calls.items() if name != "jax"},
        "bytes_moved": sizes.moved,
        "bytes_of_results": sizes.new,
        "input_sets": len(inputs.sets),
        "page_faults_per_round": rounded_off(page_faults),
        "failed": failed,
    }


def time_alone(workload: Workload, plan: Plan) -> dict[str, Any]:
    """The times of the contestants, and nothing else."""
    _, calls, _, failed = _prepare(workload, plan)
    timings, page_faults = interleave(calls, plan.effort)
    return {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "page_faults_per_round": rounded_off(page_faults),
        "failed": failed,
    }


def bound(workload: Workload, limits: Mapping[str, Timing], threads: int) -> float | None:
    """What ours would take, in µs, were it but the call and what all cores or the memory take for the work.

    Cores take what one does for rows in its own caches; of a workload that one core does whole, the call alone is
    the bound. A CUDA device works while the next call is made, and its cores are not looked at. None where the call
    was not timed.
    """
    if "call" not in limits:
        return None
    part, call = workload.on_one_core(), limits["call"].p20
    memory = limits["memory"].p20 if "memory" in limits else 0.0
    if "core" not in limits:
        return max(call, memory)
    if part == workload:
        return call
    work = max(0.0, limits["core"].p20 - call) * workload.elements / part.elements
    cores = min(threads, math.ceil(workload.elements / part.elements))
    return rounded_off(call + max(work / cores, memory))


def _prepare(workload: Workload, plan: Plan) -> tuple[Inputs, dict[str, Call], dict[str, float | None], dict[str, str]]:
    """Inputs, calls that have been made once, the seconds of those that compile, and what went wrong with a peer."""
    torch.manual_seed(0)
    torch.compiler.reset()
    inputs = Inputs(workload, plan.device, plan.input_sets)
    calls = contestants(inputs, plan.device)
    seconds: dict[str, float | None] = {}
    failed: dict[str, str] = {}
    for name in [name for name in calls if name in COMPILED]:
        # A peer that cannot compile is no reason to have measured for nothing.
        try:
            if name != "jax":
                wake_compiler(plan.device)
            seconds[name] = rounded_off(seconds_of(calls[name]))
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            del calls[name]
    return inputs, calls, seconds, failed


def _limits(inputs: Inputs, plan: Plan, moved: int) -> dict[str, Call]:
    """What bounds ours: memory; the least that any call through torch takes; the call; the work of one core."""
    workload = inputs.workload
    limits: dict[str, Call] = {}
    if moved >= _BEYOND_OWN_CACHES[plan.device]:
        limits["memory"] = _memory(moved, workload.direction, len(inputs.sets), plan.device)
    if workload.samples > 1:
        return limits
    ours = operator_of(vae_ext, workload.operator)
    limits["torch"] = _torch_alone(workload.direction, plan.device)
    limits["call"] = Inputs(workload.call_alone(), plan.device, plan.input_sets).call(ours)
    if plan.device == "cpu":
        limits["core"] = Inputs(workload.on_one_core(), plan.device, sets=1).call(ours)
    return limits


def _torch_alone(direction: str, device: str) -> Call:
    """An addition of two numbers, and its gradients: no operator of two arguments takes less."""
    a, b, grad = torch.ones(3, 1, 1, device=device)
    if direction == "fwd":
        return lambda: a + b
    wanted = (a.requires_grad_(), b.requires_grad_())
    return lambda: torch.autograd.grad(a + b, wanted, grad)


def _memory(moved: int, direction: str, sets: int, device: str) -> Call:
    """Reads so many bytes, or copies half as many, which is what a CUDA device's memory is best at.

    From as many places as there are sets of inputs, so that it finds the caches as the contestants do.
    """
    if direction == "fwd" and device == "cpu":
        blocks = itertools.cycle(torch.ones(sets, moved // 4))
        return lambda: next(blocks).sum()
    *sources, destination = torch.ones(sets + 1, moved // 8, device=device)
    turns = itertools.cycle(sources)
    return lambda: destination.copy_(next(turns))
