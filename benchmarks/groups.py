"""The operators in groups of rows: how many times as fast ours is on the whole, and what share of memory it takes."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence

from benchmarks.results import PEERS, Document, Row, share_of_memory, times_as_fast
from benchmarks.tables import BEYOND_CACHES, Table
from benchmarks.workloads import LOSS, OPERATORS, PASSES
from tests.cases import NOISY

# A compiled sampler spends its time on the compiler's own normals, so that means of all say little.
_SUMS = tuple(operator for operator in OPERATORS if operator not in NOISY)
_GROUPS = {"samplers": NOISY, "likelihoods and KL": _SUMS}
_KINDS = {
    "f32": ("float32", False),
    "f32, L > 1": ("float32", True),
    "bf16": ("bfloat16", False),
    "bf16, L > 1": ("bfloat16", True),
}


def tables(document: Document) -> list[Table]:
    """What there is something for."""
    return [table for table in (speeds(document["operators"]), shares(document)) if table.rows]


def speeds(rows: Sequence[Row]) -> Table:
    """A line for each operator and pass, then for groups of them: geometric means, with the worst row behind."""
    peers = [peer for peer in PEERS if any(peer in row["timings"] for row in rows)]
    kinds = [kind for kind in _KINDS if any(_is_of(row, kind) for row in rows)]
    groups = {operator: (operator,) for operator in (*OPERATORS, LOSS)} | _GROUPS

    def cells(found: Sequence[Row]) -> Iterator[str]:
        for kind in kinds:
            for peer in peers:
                yield _mean_and_least([row for row in found if _is_of(row, kind)], peer)

    lines = [
        [name, direction, *cells(found)]
        for name, operators in groups.items()
        for direction in PASSES
        if (found := [row for row in rows if row["operator"] in operators and row["pass"] == direction])
    ]
    headings = ["operator", "pass", *(f"{kind}: × {peer}" for kind in kinds for peer in peers)]
    title = "Operators: how many times as fast ours is, geometric mean of all shapes (and the worst)"
    return Table(title, headings, lines, words=2, code=False)


def shares(document: Document) -> Table:
    """Of working sets beyond the caches, in float32: the bandwidth that ours takes, of reading (fwd) or copying."""
    device = document["settings"]["device"]
    rows = [row for row in document["operators"] if row["dtype"] == "float32" and row["bytes_moved"] >= BEYOND_CACHES]
    numbers = sorted({row["samples"] for row in rows})

    def found(operators: Sequence[str], direction: str, samples: int) -> list[float]:
        chosen = [row for row in rows if (row["pass"], row["samples"]) == (direction, samples)]
        of_all = [share_of_memory(row, device) for row in chosen if row["operator"] in operators]
        return [share for share in of_all if share is not None]

    lines = [
        [name, direction, str(samples), str(len(some)), f"{min(some):.0%}", f"{max(some):.0%}"]
        for direction, (name, operators), samples in itertools.product(PASSES, _GROUPS.items(), numbers)
        if (some := found(operators, direction, samples))
    ]
    headings = ["operators", "pass", "L", "rows", "least", "greatest"]
    title = "Operators: share of the bandwidth beyond the caches, float32"
    return Table(title, headings, lines, words=2, grouped=False, code=False)


def _is_of(row: Row, kind: str) -> bool:
    return (row["dtype"], row["samples"] > 1) == _KINDS[kind]


def _mean_and_least(rows: Sequence[Row], peer: str) -> str:
    found = [times_as_fast(row["timings"], peer) for row in rows if peer in row["timings"]]
    return f"{statistics.geometric_mean(found):.1f} ({min(found):.1f})" if found else ""
