"""One run: a quiet machine, right operators, measurements, a report; in this order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from rich.console import Console

from benchmarks import accuracy, compare, figures, machine, operators, results, scaling, summary, tables, training
from benchmarks.contestants import fresh_cache, wake_compiler
from benchmarks.gate import pass_gate
from benchmarks.results import PARTS, Document
from benchmarks.session import Plan, Session
from benchmarks.worker import AS_IT_COMES, PINNED, Worker
from benchmarks.workloads import DTYPES, OPERATORS, matching, suite
from vae_ext import _native
from vae_ext.errors import UserError

_WIDTH_OF_TABLES = 160


@dataclass(frozen=True)
class Options:
    """What the command line asks for; `device` None is CUDA where it can be had, `minutes` None all it takes."""

    parts: Sequence[str] = PARTS
    only: str = ""
    quick: bool = False
    device: str | None = None
    dtypes: Sequence[str] = DTYPES
    threads: int | None = None
    input_sets: int = 4
    minutes: float | None = None
    force: bool = False
    out: Path | None = None


def run(options: Options) -> None:
    """Measures what `options` ask for and shows it.

    Raises:
        UserError: an option is unusable, the machine is busy, an operator is wrong, or nothing was measured.
    """
    console = Console()
    _expect_known("--parts", options.parts, PARTS)
    _expect_known("--dtypes", options.dtypes, DTYPES)
    device = _resolve_device(options.device)
    workloads = matching(options.only, suite(device, options.quick, options.dtypes))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    deadline = math.inf if options.minutes is None else monotonic() + 60 * options.minutes
    plan = Plan(device, options.quick, options.input_sets)
    named = {workload.operator for workload in workloads}

    with _session(console, plan, options.threads, deadline) as session:
        pids = [worker.pid for worker in session.workers()]
        _expect_quiet(console, options.force, pids)
        load = machine.OtherLoad(pids)
        begun = monotonic()
        cases = pass_gate(session, OPERATORS if set(options.parts) - {"operators"} else named, options.dtypes)
        seconds = round(monotonic() - begun, 1)
        document: dict[str, Any] = {
            "format": results.FORMAT,
            "machine": session.pinned.run(machine.describe, device),
            "settings": {
                "device": device,
                "quick": options.quick,
                "only": options.only,
                "threads": options.threads,
                "input_sets": options.input_sets,
                "effort": asdict(plan.effort),
            },
            "cases_right": cases,
            "bandwidth_bytes_per_second": asdict(session.pinned.run(machine.measure_bandwidth, device)),
            "seconds": {"correctness": seconds},
            **{part: [] for part in PARTS},
        }
        for worker in session.workers():
            worker.run(wake_compiler, device)
        measures: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "operators": lambda: operators.sweep(session, workloads),
            "training": lambda: training.train(session, training.steps(options.quick, options.dtypes)),
            "accuracy": lambda: accuracy.compare(session, accuracy.questions(options.dtypes)),
            "scaling": lambda: scaling.grow(session, scaling.points(device, options.quick)),
        }
        for part in options.parts:
            begun = monotonic()
            document[part] = measures[part]()
            document["seconds"][part] = round(monotonic() - begun, 1)
            document |= {"cores_busy_with_others": round(load.cores(), 3), "left_out": session.left_out}
            # What was measured so far outlives an interruption.
            if options.out is not None:
                results.write(document, options.out)
    if not any(document[part] for part in PARTS):
        raise UserError(f"nothing was measured: {'; '.join(f'{k}: {why}' for k, why in session.left_out.items())}")
    if options.out is not None:
        figures.draw(document, options.out, results.digest(options.out / results.FILE_NAME))
        console.print(f"Written to {options.out}", highlight=False)
    show(document)


def show(document: Document) -> None:
    """Tables, conditions, summary."""
    console = _wide_console()
    console.print(*(table.rich() for table in tables.tables(document)), *conditions(document), sep="\n")
    for line in summary.lines(document["operators"], document["training"]):
        text = line.with_aim()
        console.print(f"[red]✗ {text}[/]" if line.missed else f"  {text}", highlight=False)
    slower = summary.losses(document)
    if slower:
        console.print("Slower than a peer:", *slower, sep="\n  ", highlight=False)


def conditions(document: Document) -> Iterator[str]:
    """Where and how it was measured."""
    found, settings = document["machine"], document["settings"]
    if "gpu" in found:
        yield f"{found['gpu']}, CUDA {found['cuda']}"
    yield f"{found['cpu']}, {found['cores']} cores, {found['threads']} threads, {found['isa']}"
    yield f"torch {found['torch']}, vae_ext {found['vae_ext']} at {found['commit']}, compiler {found['compiler']}"
    speed = document["bandwidth_bytes_per_second"]
    busy = document["cores_busy_with_others"]
    yield (
        f"memory reads {speed['read'] / 1e9:.1f} GB/s, copies {speed['copy'] / 1e9:.1f} GB/s;"
        f" others kept {busy:.2f} cores busy meanwhile"
    )
    if busy > machine.QUIET_CORES:
        yield "The machine was busy: these numbers mean little."
    if settings["quick"]:
        yield "A quick look: not to be quoted."
    yield "Seconds: " + ", ".join(f"{part} {seconds:.0f}" for part, seconds in document["seconds"].items())
    for name, reason in document["left_out"].items():
        yield f"Left out: {name}: {reason}."
    named = [(results.operator_name(row), row) for row in document["operators"]]
    for name, row in [*named, *((results.step_name(row), row) for row in document["training"])]:
        yield from (f"{peer} failed in {name}: {message}" for peer, message in row["failed"].items())


def compare_files(before: Path, after: Path) -> None:
    """Shows what changed between two results.json.

    Raises:
        UserError: one is no such file, or they have no row in common.
    """
    console = _wide_console()
    old, new = results.read(before), results.read(after)
    found = compare.changes(old, new)
    if not found:
        raise UserError(f"{before} and {after} have no row in common")
    console.print(compare.table(found).rich(), *compare.differences(old, new), compare.verdicts(found), sep="\n")
    for path, names in zip((before, after), compare.only_in_one(old, new), strict=True):
        if names:
            console.print(f"Only in {path}: {', '.join(names)}", highlight=False)


def _wide_console() -> Console:
    """Where it is narrow, the terminal wraps lines: better than a table that lacks numbers."""
    return Console(width=max(Console().width, _WIDTH_OF_TABLES))


@contextmanager
def _session(console: Console, plan: Plan, threads: int | None, deadline: float) -> Iterator[Session]:
    """The processes, with a compiler cache that they share: what one has compiled the other only loads."""
    with ExitStack() as stack:
        cache = stack.enter_context(fresh_cache())
        allocators = (PINNED, AS_IT_COMES) if plan.device == "cpu" else (PINNED,)
        workers = []
        for allocator in allocators:
            workers.append(Worker(allocator, cache, threads))
            stack.callback(workers[-1].close)
        yield Session(console, plan, workers[0], workers[1] if len(workers) > 1 else None, deadline)


def _expect_known(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"{option} has {name!r}, expected some of {', '.join(known)}")


def _resolve_device(name: str | None) -> str:
    built = _native.load().build_info()["cuda"] is not None
    if name is None:
        return "cuda" if built and torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UserError(f"--device is {name!r}, expected cpu or cuda")
    if name == "cuda" and not built:
        raise UserError("--device is cuda, but vae_ext was built without CUDA")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device is cuda, but torch {torch.__version__} sees no CUDA device")
    return name


def _expect_quiet(console: Console, force: bool, pids: Sequence[int]) -> None:
    """Raises UserError on a machine that is busy with something else; with `force`, only says so."""
    load = machine.OtherLoad(pids)
    time.sleep(1)
    busy = load.cores()
    if busy <= machine.QUIET_CORES:
        return
    sentence = f"other processes keep {busy:.1f} cores busy, expected {machine.QUIET_CORES} or less"
    if not force:
        raise UserError(f"{sentence}: end them, or give --force")
    console.print(f"[bold red]{sentence.capitalize()}: these numbers mean little.[/]", soft_wrap=True)
