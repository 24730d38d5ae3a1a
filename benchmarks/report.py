"""What the terminal shows of a results.json, or of two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import compare, groups, losses, results, summary, tables
from benchmarks.machine import quiet_cores
from benchmarks.results import Document
from benchmarks.terminal import Terminal, terminal
from vae_ext.errors import UserError


def show(document: Document, terminal: Terminal) -> None:
    """Tables, conditions, summary."""
    for table in (*tables.tables(document), *groups.tables(document), *losses.tables(document)):
        terminal.show(table)
    terminal.say(*conditions(document))
    for line in summary.lines(document):
        terminal.say(f"{'✗' if line.missed else ' '} {line}", warning=line.missed)


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
    if busy > quiet_cores(found.get("cores_of_all", found["cores"])):
        yield "The machine was busy: these numbers mean little."
    if settings["quick"]:
        yield "A quick look: not to be quoted."
    yield "Seconds: " + ", ".join(f"{part} {seconds:.0f}" for part, seconds in document["seconds"].items())
    for name, reason in document["left_out"].items():
        yield f"Left out: {name}: {reason}."
    for name, row in results.named_rows(document):
        yield from (f"{peer} failed in {name}: {message}" for peer, message in row["failed"].items())
        default = row.get("default_allocator", {}).get("failed", {})
        yield from (f"{peer} failed in {name} with the default allocator: {why}" for peer, why in default.items())


def compare_files(before: Path, after: Path) -> None:
    """Shows what changed between two results.json.

    Raises:
        UserError: one is no such file, or they have no row in common.
    """
    here = terminal()
    old, new = results.read(before), results.read(after)
    found = compare.changes(old, new)
    if not found:
        raise UserError(f"{before} and {after} have no row in common")
    here.show(compare.table(found))
    here.say(*compare.differences(old, new), *compare.other_changes(old, new), compare.verdicts(found))
    for path, names in zip((before, after), compare.only_in_one(old, new), strict=True):
        if names:
            here.say(f"Only in {path}: {', '.join(names)}")
