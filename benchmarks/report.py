"""What the terminal shows of a results.json, or of two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks import compare, results, summary, tables
from benchmarks.machine import QUIET_CORES
from benchmarks.results import Document
from vae_ext.errors import UserError

_WIDTH_OF_TABLES = 160


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
    if busy > QUIET_CORES:
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
