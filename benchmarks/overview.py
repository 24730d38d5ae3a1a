"""The tables of the project's README: fewer rows and columns than beside the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.losses import MORE_MEMORY
from benchmarks.results import STEPS, Document, Row
from benchmarks.tables import (
    BEYOND_CACHES,
    SHORT,
    Table,
    bandwidth,
    megabytes,
    microseconds,
    ratio,
    samples_per_second,
    shape,
)

_FORWARD_TOO = ("bernoulli_log_prob", "normal_rsample")
_PEERS = ("eager", "compile")


def operators(document: Document) -> Table:
    """float32, one sample: forward with backward, and what is often used without a gradient also forward."""
    shown = [
        row
        for row in document["operators"]
        if (row["dtype"], row["samples"]) == ("float32", 1)
        and (row["pass"] == "fwd+bwd" or row["operator"] in _FORWARD_TOO)
    ]
    default = any("default_allocator" in row for row in shown)

    def cells(row: Row) -> Iterator[str]:
        timings, as_it_comes = row["timings"], row.get("default_allocator", {"timings": {}})["timings"]
        yield from (row["operator"], row["pass"], shape(row))
        yield from (microseconds(timings[name]["p20"]) if name in timings else "" for name in ("ours", *_PEERS))
        yield from (ratio(timings, peer) for peer in _PEERS)
        if default:
            yield from (ratio(as_it_comes, peer, percentile="median") for peer in _PEERS)
        yield bandwidth(row, document["settings"]["device"], BEYOND_CACHES)

    headings = ["operator", "pass", "shape", "ours", "eager", "compile", "× eager", "× compile"]
    headings += [*(["default: × eager", "× compile"] if default else []), "memory"]
    title = "Operators, float32, one sample: µs a call, and how many times as fast ours is"
    return Table(title, headings, [list(cells(row)) for row in shown], words=3)


def training(rows: Sequence[Row]) -> Table:
    """Every row; bold where a peer does better."""

    def speed(row: Row, peer: str, ours: str) -> str:
        found = ratio(row["timings"], peer, ours, 2)
        slower = found and row["timings"][peer]["p20"] < row["timings"][ours]["p20"]
        return f"**{found}**" if slower else found

    def peak(row: Row, name: str) -> str:
        peaks = row["peak_bytes"]
        least = min(peaks[peer] for peer in _PEERS if peer in peaks)
        found = megabytes(peaks.get(name), 1)
        return f"**{found}**" if name in peaks and peaks[name] > MORE_MEMORY * least and name not in _PEERS else found

    def cells(row: Row) -> Iterator[str]:
        yield from (row["model"], f"{row['batch']:,}", SHORT[row["dtype"]])
        yield f"{samples_per_second(row, 'ours'):,.0f}"
        yield from (speed(row, peer, ours) for ours in STEPS[2:] for peer in _PEERS)
        yield from (peak(row, name) for name in STEPS)

    headings = ["model", "M", "products", "ours, samples/s", "ours: × eager", "× compile"]
    headings += ["ours+compile: × eager", "× compile", f"peak MB: {STEPS[0]}", *STEPS[1:]]
    title = "Whole training steps: how many times as fast ours is (bold: a peer does better)"
    return Table(title, headings, [list(cells(row)) for row in rows], words=3)
