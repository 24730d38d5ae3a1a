"""results.json: what a run leaves, and all that tables, pictures and comparisons are made of.

Times are in µs, sizes in bytes. Each row of a part is on a line of its own, so that two files can be told apart by
line. A part that was not measured has no rows.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vae_ext.errors import UserError

Document: TypeAlias = Mapping[str, Any]
Row: TypeAlias = Mapping[str, Any]

FORMAT = 2
FILE_NAME = "results.json"
PARTS = ("operators", "training", "accuracy", "scaling")

# Who is measured, in the order of the reports: of the operators beside ours, and of training.
OURS = "ours"
PEERS = ("eager", "compile", "reduce-overhead", "jax")
# Our operators alone, and with the rest of a step compiled.
WAYS = (OURS, "ours+compile")
STEPS = ("eager", "compile", *WAYS)
# Written beside what is read.
_NEGLIGIBLE = 0.1


def write(document: Document, folder: Path) -> Path:
    """Writes results.json into the folder: all of it, or what was there before stays."""
    path = folder / FILE_NAME
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(dump(document))
    return unfinished.replace(path)


def dump(document: Document) -> str:
    """As JSON, each entry and each row of a part on a line."""
    entries = [
        f"{json.dumps(name)}: {_rows(value) if name in PARTS else json.dumps(value, allow_nan=False)}"
        for name, value in document.items()
    ]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def read(path: Path) -> Document:
    """What `write` wrote.

    Raises:
        UserError: it is not such a file.
    """
    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not a results.json of `vae-ext benchmark`: {error}") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, expected {FORMAT}: measure again")
    checked: Document = document
    return checked


def digest(path: Path) -> str:
    """What a picture carries, to tell which results it was drawn from."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def operator_name(row: Row) -> str:
    """The name of a row of the operators, as `--only` searches it."""
    samples = f" L={row['samples']}" if row["samples"] > 1 else ""
    return f"{row['operator']} {row['pass']} {row['shape'][0]}x{row['shape'][1]}{samples} {row['dtype']}"


def step_name(row: Row) -> str:
    """The name of a row of training."""
    return f"{row['model']} M={row['batch']} {row['dtype']}"


def named_rows(document: Document) -> Iterator[tuple[str, Row]]:
    """The rows that have timings of ours and of peers: operators, then training."""
    for row in document["operators"]:
        yield operator_name(row), row
    for row in document["training"]:
        yield step_name(row), row


def by_allocator(row: Row) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Which allocator, the percentile that counts, the timings."""
    yield "pinned", "p20", row["timings"]
    if "default_allocator" in row:
        # New pages are what there is to see, and the quickest calls are those that met none.
        yield "default", "median", row["default_allocator"]["timings"]


def pairs(measured: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each way of ours that was measured, beside each peer."""
    ways = [way for way in WAYS if way in measured]
    yield from itertools.product(ways, [name for name in measured if name not in WAYS])


def times_as_fast(timings: Mapping[str, Any], peer: str, ours: str = "ours", percentile: str = "p20") -> float:
    """A percentile of a peer over that of ours."""
    ratio: float = timings[peer][percentile] / timings[ours][percentile]
    return ratio


def samples(timing: Mapping[str, Any]) -> Sequence[float]:
    """The times of single rounds; of files of earlier versions, which may have none, the percentiles stand for them."""
    found: Sequence[float] = timing["samples"] or [timing[name] for name in ("p20", "median", "p80")]
    return found


def share_of_memory(row: Row, device: str) -> float | None:
    """The time in which memory alone moves what a row of the operators does, over ours.

    None where it was not timed, and for what on the CPU is timed beside a read but writes as well: the samplers.
    """
    memory = row["limits"].get("memory")
    only_timed_reading = device == "cpu" and row["pass"] == "fwd"
    if memory is None or (only_timed_reading and row["bytes_of_results"] > _NEGLIGIBLE * row["bytes_moved"]):
        return None
    share: float = memory / row["timings"][OURS]["p20"]
    return share


def _rows(rows: Any) -> str:
    return "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]"
