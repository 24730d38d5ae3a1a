"""One run of the benchmark: a quiet machine, right operators, measurements, a report; in this order."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import machine
from benchmarks.figures import draw
from benchmarks.report import Report
from benchmarks.suite import check, chosen, fresh_compiler, gate, measure
from benchmarks.timing import Effort
from benchmarks.workloads import Workload
from vae_ext.errors import UserError

_WIDTH_OF_A_PIPE = 175


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    only: str
    quick: bool
    threads: int | None
    device: str
    dtype: str
    allocator: str
    force: bool
    out: Path | None


def run(options: Options) -> None:
    """Measures what `options` ask for and shows it.

    Raises:
        UserError: the machine is busy, there is no such device, an operator is wrong, or nothing is left to measure.
    """
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE)
    dtype: torch.dtype = getattr(torch, options.dtype)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device is cuda, but torch {torch.__version__} sees no CUDA device")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    workloads, left_out = _fitting(chosen(options.only, options.device), dtype, options.device)
    _expect_quiet(console, options.force)

    operators = {workload.operator for workload in workloads}
    for case in _shown(console, "correctness", {case.id: case for case in gate(operators, dtype)}):
        check(case, dtype, options.device)

    load = machine.OtherLoad()
    bandwidth = machine.measure_bandwidth(options.device)
    effort = Effort(seconds=0.1, rounds=6) if options.quick else Effort(seconds=1.5, rounds=24)
    named = {workload.name: workload for workload in workloads}
    with fresh_compiler():
        measurements = [
            measure(workload, dtype, options.device, effort) for workload in _shown(console, "speed", named)
        ]
    settings = {
        "machine": machine.describe(options.device),
        "device": options.device,
        "allocator": options.allocator,
        "quick": options.quick,
        "cores_busy_with_others": load.cores(),
        "left_out": [workload.name for workload in left_out],
    }
    report = Report(measurements, bandwidth, dtype, settings)
    if options.out is not None:
        document = report.document()
        (options.out / "results.json").write_text(json.dumps(document, indent=2) + "\n")
        draw(document, options.out)
    console.print(*report.conditions(), report.table(), *report.misses(), sep="\n", highlight=False)


def _fitting(workloads: Sequence[Workload], dtype: torch.dtype, device: str) -> tuple[list[Workload], list[Workload]]:
    """The workloads that there is memory for, and the others."""
    available = machine.available_memory(device)
    fitting = [workload for workload in workloads if workload.memory_needed(dtype) <= available]
    left_out = [workload for workload in workloads if workload not in fitting]
    if not fitting:
        needed = min(workload.memory_needed(dtype) for workload in left_out)
        raise UserError(f"{available / 2**30:.1f} GiB of memory are free, expected {needed / 2**30:.1f} or more")
    return fitting, left_out


def _expect_quiet(console: Console, force: bool) -> None:
    """Raises UserError on a machine that is busy with something else; with `force`, only says so."""
    load = machine.OtherLoad()
    time.sleep(1)
    busy = load.cores()
    if busy <= machine.QUIET_CORES:
        return
    sentence = f"other processes keep {busy:.1f} cores busy, expected {machine.QUIET_CORES} or less"
    if not force:
        raise UserError(f"{sentence}: end them, or give --force")
    console.print(f"[bold red]{sentence.capitalize()}: these numbers mean little.")


_Item = TypeVar("_Item")


def _shown(console: Console, what: str, items: Mapping[str, _Item]) -> Iterator[_Item]:
    """The items, with a bar that is drawn between them: a thread that draws would be measured too."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=len(items), now="")
        for name, item in items.items():
            progress.update(task, now=name, refresh=True)
            yield item
            progress.advance(task)
