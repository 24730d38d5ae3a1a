"""Where a peer does better than ours: every row in which it is faster, and in which it needs less memory at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.results import WAYS, Document, Row, named_rows, times_as_fast
from benchmarks.tables import Table, megabytes

# Beside its results a sampler allocates the 16 bytes of its noise state, and the compiler a seed of 8.
MORE_MEMORY = 1.01


def tables(document: Document) -> list[Table]:
    """What there is to list."""
    return [table for table in (slower(document), greedier(document)) if table.rows]


def slower(document: Document) -> Table:
    """With either allocator; where the 20th to 80th percentiles of the two overlap, it may be chance."""
    rows = [
        [name, allocator, ours, peer, f"{speed:.3f}", "overlap" if _overlap(timings[ours], timings[peer]) else ""]
        for name, row in named_rows(document)
        for allocator, percentile, timings in _by_allocator(row)
        for ours, peer in _pairs(timings)
        if (speed := times_as_fast(timings, peer, ours, percentile)) < 1
    ]
    headings = ["row", "allocator", "of ours", "faster", "times as fast ours is", "p20 to p80"]
    return Table("Where a peer is faster than ours", headings, rows, words=4, grouped=False)


def greedier(document: Document) -> Table:
    """Results and what an operator allocates beside them. Differences below 1 % are left out."""
    rows = [
        [name, ours, peer, *(megabytes(peaks[each]) for each in (ours, peer)), f"{peaks[ours] / peaks[peer]:.2f}"]
        for name, row in named_rows(document)
        for peaks in [row["peak_bytes"]]
        for ours, peer in _pairs(peaks)
        if peaks[ours] > MORE_MEMORY * peaks[peer]
    ]
    headings = ["row", "of ours", "less has", "peak MB of ours", "of the peer", "times as much"]
    title = "Where ours needs more memory at once than a peer, by more than 1 %"
    return Table(title, headings, rows, words=3, grouped=False)


def _by_allocator(row: Row) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Which allocator, the percentile that counts, the timings."""
    yield "pinned", "p20", row["timings"]
    if "default_allocator" in row:
        # New pages are what there is to see, and the quickest calls are those that met none.
        yield "default", "median", row["default_allocator"]["timings"]


def _pairs(measured: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each way of ours that was measured, beside each peer."""
    ways = [way for way in WAYS if way in measured]
    yield from itertools.product(ways, [name for name in measured if name not in WAYS])


def _overlap(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> bool:
    return bool(ours["p20"] <= peer["p80"] and peer["p20"] <= ours["p80"])
