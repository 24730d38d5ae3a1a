"""Where a peer does better than ours: every row in which it is faster, and in which it needs less memory at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from benchmarks.results import Document, by_allocator, named_rows, pairs, samples, times_as_fast
from benchmarks.tables import Table, megabytes

# Beside its results a sampler allocates the 16 bytes of its noise state, and the compiler a seed of 8.
MORE_MEMORY = 1.01
# By a stricter level, five rounds that all say the same would be chance.
_LIKELY_CHANCE = 0.05


def tables(document: Document) -> list[Table]:
    """What there is to list."""
    return [table for table in (slower(document), greedier(document)) if table.rows]


def slower(document: Document) -> Table:
    """With either allocator; marked where chance may have made the difference of the rounds."""
    rows = [
        [name, allocator, ours, peer, f"{speed:.3f}", _mark(timings[ours], timings[peer])]
        for name, row in named_rows(document)
        for allocator, percentile, timings in by_allocator(row)
        for ours, peer in pairs(timings)
        if (speed := times_as_fast(timings, peer, ours, percentile)) < 1
    ]
    headings = ["row", "allocator", "of ours", "faster", "times as fast ours is", "signed ranks"]
    title = "Where a peer is faster than ours, and whether by chance (one-sided signed-rank test of the rounds at 5 %)"
    return Table(title, headings, rows, words=4, grouped=False)


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


def _mark(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> str:
    """What Wilcoxon's test says of the rounds, in each of which both were timed."""
    logarithms = (np.log(samples(timing)) for timing in (ours, peer))
    return "within chance" if wilcoxon(*logarithms, alternative="greater").pvalue > _LIKELY_CHANCE else ""
