"""Where a peer does better than ours: every row in which it is faster, and in which it needs less memory at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.results import Document, by_allocator, named_rows, pairs, times_as_fast
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
        for allocator, percentile, timings in by_allocator(row)
        for ours, peer in pairs(timings)
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
        for ours, peer in pairs(peaks)
        if peaks[ours] > MORE_MEMORY * peaks[peer]
    ]
    headings = ["row", "of ours", "less has", "peak MB of ours", "of the peer", "times as much"]
    title = "Where ours needs more memory at once than a peer, by more than 1 %"
    return Table(title, headings, rows, words=3, grouped=False)


def _overlap(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> bool:
    return bool(ours["p20"] <= peer["p80"] and peer["p20"] <= ours["p80"])
