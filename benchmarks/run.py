"""One run: a quiet machine, right operators, measurements, a report; in this order."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from benchmarks import accuracy, figures, machine, operators, results, scaling, training
from benchmarks.contestants import fresh_cache
from benchmarks.gate import pass_gate
from benchmarks.report import show
from benchmarks.results import PARTS
from benchmarks.selection import Selection, select
from benchmarks.session import Plan, Session
from benchmarks.terminal import terminal
from benchmarks.worker import AS_IT_COMES, PINNED, Worker
from benchmarks.workloads import DTYPES
from vae_ext import _native
from vae_ext.errors import UserError


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
    device = _resolve_device(options.device)
    selection = select(device, options.quick, options.parts, options.dtypes, options.only)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    with _session(Plan(device, options.quick, options.input_sets), options) as session:
        document = _measure(session, options, selection)
    if not any(document[part] for part in PARTS):
        reason = next(iter(session.left_out.values()))
        raise UserError(f"nothing was measured: {len(session.left_out)} were left out, the first because {reason}")
    show(document, session.terminal)
    if options.out is not None:
        figures.draw(document, options.out, results.digest(options.out / results.FILE_NAME))
        session.terminal.say(f"Written to {options.out}")


def _measure(session: Session, options: Options, selection: Selection) -> dict[str, Any]:
    """The document of results.json, written after each row: what was measured so far outlives an interruption."""
    _expect_quiet(session, options.force)
    load = machine.OtherLoad(session.pids)
    begun = monotonic()
    cases = pass_gate(session, selection.made_of(), options.dtypes)
    document = _header(session, options) | {"cases_right": cases, "seconds": {"correctness": _seconds_since(begun)}}
    document |= {part: [] for part in PARTS}
    measured: dict[str, Iterator[list[dict[str, Any]]]] = {
        "operators": operators.sweep(session, selection.operators),
        "training": training.train(session, selection.training),
        "accuracy": accuracy.compare(session, selection.accuracy),
        "scaling": scaling.grow(session, selection.scaling),
    }
    for part in options.parts:
        if not selection.cells(part):
            session.terminal.say(f"Nothing of {part}: --only and --dtypes leave none of its rows.")
            continue
        begun = monotonic()
        for rows in measured[part]:
            document[part] = rows
            document["seconds"][part] = _seconds_since(begun)
            _record(document, session, load, options.out)
        # Once more, for what was left out after the last row.
        document["seconds"][part] = _seconds_since(begun)
        _record(document, session, load, options.out)
    return document


def _record(document: dict[str, Any], session: Session, load: machine.OtherLoad, out: Path | None) -> None:
    """Writes what there is so far."""
    document |= {"cores_busy_with_others": round(load.cores(), 3), "left_out": session.left_out}
    if out is not None:
        results.write(document, out)


def _header(session: Session, options: Options) -> dict[str, Any]:
    """Where and how it is measured."""
    plan = session.plan
    return {
        "format": results.FORMAT,
        "machine": session.pinned.run(machine.describe, plan.device),
        "settings": {
            "device": plan.device,
            "quick": plan.quick,
            "only": options.only,
            "threads": options.threads,
            "input_sets": plan.input_sets,
            "effort": asdict(plan.effort),
        },
        "bandwidth_bytes_per_second": asdict(session.pinned.run(machine.measure_bandwidth, plan.device)),
    }


@contextmanager
def _session(plan: Plan, options: Options) -> Iterator[Session]:
    """The processes, with a compiler cache that they share: what one has compiled the other only loads."""
    with ExitStack() as stack:
        deadline = math.inf if options.minutes is None else monotonic() + 60 * options.minutes
        cache = stack.enter_context(fresh_cache())
        allocators = (PINNED, AS_IT_COMES) if plan.device == "cpu" else (PINNED,)
        workers = []
        for allocator in allocators:
            workers.append(Worker(allocator, cache, options.threads))
            stack.callback(workers[-1].close)
        yield Session(terminal(), plan, workers[0], workers[1] if len(workers) > 1 else None, deadline)


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


def _expect_quiet(session: Session, force: bool) -> None:
    """Raises UserError on a machine that is busy with something else; with `force`, only says so."""
    load = machine.OtherLoad(session.pids)
    time.sleep(1)
    busy = load.cores()
    quiet = machine.quiet_cores(os.cpu_count() or 1)
    if busy <= quiet:
        return
    sentence = f"other processes keep {busy:.1f} cores busy, expected {quiet:.2g} or less"
    if not force:
        raise UserError(f"{sentence}: end them, or give --force")
    session.terminal.say(f"{sentence.capitalize()}: these numbers mean little.", warning=True)


def _seconds_since(begun: float) -> float:
    return round(monotonic() - begun, 1)
