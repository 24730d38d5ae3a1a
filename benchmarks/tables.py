"""The tables of a results.json: for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.results import PEERS, STEPS, Document, Row, share_of_memory, times_as_fast

SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}
# Below this the shared cache and not memory would be what the bandwidth is of.
BEYOND_CACHES = 64 * 2**20


@dataclass(frozen=True)
class Table:
    """Headings and rows of text; the first `words` columns are words, the others numbers.

    Rows of the same first column are a group, if there are groups at all; it is a name of the code, or words.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int
    grouped: bool = True
    code: bool = True

    def plain(self) -> Iterator[str]:
        lines = [self.headings, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = enumerate(zip(line, widths, strict=True))
            yield "  ".join(
                cell.ljust(width) if index < self.words else cell.rjust(width) for index, (cell, width) in cells
            )

    def markdown(self) -> Iterator[str]:
        yield f"| {' | '.join(self.headings)} |"
        yield "|" + "---|" * self.words + "---:|" * (len(self.headings) - self.words)
        for first, *cells in self.rows:
            yield f"| {' | '.join([f'`{first}`' if self.code else first, *cells])} |"


def tables(document: Document) -> list[Table]:
    """Every table there is something for."""
    made = []
    if document["operators"]:
        made += [speed(document["operators"]), limits(document["operators"], document["settings"]["device"])]
    if document["training"]:
        made.append(training(document["training"]))
    if document["accuracy"]:
        made.append(accuracy(document["accuracy"]))
    if document["scaling"]:
        made.append(scaling(document["scaling"]))
    return made


def speed(rows: Sequence[Row]) -> Table:
    """How long a call takes, and how many times as long a peer's."""
    peers = [peer for peer in PEERS if any(peer in row["timings"] for row in rows)]
    defaults = any("default_allocator" in row for row in rows)

    def cells(row: Row) -> Iterator[str]:
        timings = row["timings"]
        yield from (row["operator"], row["pass"], shape(row), SHORT[row["dtype"]])
        yield from (microseconds(timings["ours"][percentile]) for percentile in ("p20", "median", "p80"))
        yield from (microseconds(timings[peer]["p20"]) if peer in timings else "" for peer in peers)
        yield from (ratio(timings, peer) for peer in peers)
        if defaults:
            as_it_comes = row.get("default_allocator", {"timings": {}})["timings"]
            yield microseconds(as_it_comes["ours"]["median"]) if "ours" in as_it_comes else ""
            yield from (ratio(as_it_comes, peer, percentile="median") for peer in peers)

    headings = ["operator", "pass", "shape", "dtype", "ours", "median", "p80", *peers, *(f"× {peer}" for peer in peers)]
    if defaults:
        headings += ["default: ours", *(f"× {peer}" for peer in peers)]
    title = "Operators: µs a call (20th percentile), and how many times as fast ours is; default allocator: medians"
    return Table(title, headings, [list(cells(row)) for row in rows], words=4)


def limits(rows: Sequence[Row], device: str) -> Table:
    """What bounds ours, and what else a call costs."""

    def cells(row: Row) -> Iterator[str]:
        found, ours = row["limits"], row["timings"]["ours"]["p20"]
        yield from (row["operator"], row["pass"], shape(row), SHORT[row["dtype"]])
        yield from (microseconds(found[name]) if name in found else "" for name in ("torch", "call"))
        yield f"{row['bound'] / ours:.0%}" if row["bound"] is not None else ""
        yield bandwidth(row, device, 0)
        yield from (megabytes(row["peak_bytes"].get(name)) for name in ("ours", "eager", "compile"))
        yield f"{row['bytes_of_results'] / 1e6:.2f}"
        compiled = row["compile_seconds"].get("compile")
        yield "" if compiled is None else f"{compiled:.1f}"

    headings = ["operator", "pass", "shape", "dtype", "torch", "call", "bound", "bandwidth"]
    headings += ["peak MB: ours", "eager", "compile", "results", "compile s"]
    title = "Operators: what bounds ours, the most memory at once, the time to compile"
    return Table(title, headings, [list(cells(row)) for row in rows], words=4)


def training(rows: Sequence[Row]) -> Table:
    """Samples per second, and how much they are beside eager's."""

    def cells(row: Row) -> Iterator[str]:
        timings, default = row["timings"], row.get("default_allocator", {"timings": {}})["timings"]
        yield from (row["model"], f"{row['batch']:,}", SHORT[row["dtype"]])
        yield from (f"{samples_per_second(row, name):,.0f}" if name in timings else "" for name in STEPS)
        yield from (ratio(timings, "eager", name, 2) for name in STEPS[1:])
        yield ratio(default, "eager", "ours", 2, "median")
        yield from (megabytes(row["peak_bytes"].get(name), 0) for name in STEPS)

    headings = ["model", "M", "products", *STEPS, f"× eager: {STEPS[1]}", *STEPS[2:], "default: ours"]
    headings += [f"peak MB: {STEPS[0]}", *STEPS[1:]]
    title = "Training: samples per second of whole steps, over eager's, and peak memory"
    return Table(title, headings, [list(cells(row)) for row in rows], words=3)


def accuracy(rows: Sequence[Row]) -> Table:
    """The worst error, relative to the sum of |terms|."""
    names = [name for name in ("ours", "eager", "compile") if any(name in row["output"] for row in rows)]

    def cells(row: Row) -> Iterator[str]:
        yield from (row["operator"], SHORT[row["dtype"]], row["values"])
        for part in ("output", "gradient"):
            yield from (error(row[part][name]) if name in row[part] else "" for name in names)

    headings = ["operator", "dtype", "inputs"]
    headings += [f"{part}: {name}" if name == names[0] else name for part in ("output", "gradient") for name in names]
    title = "Accuracy: the largest error against float64, over the sum of |terms|"
    return Table(title, headings, [list(cells(row)) for row in rows], words=3)


def scaling(rows: Sequence[Row]) -> Table:
    """Time along each axis."""

    def cells(row: Row) -> Iterator[str]:
        ours = row["timings"]["ours"]["p20"]
        elements = row["samples"] * row["shape"][0] * row["shape"][1]
        yield from (row["operator"], row["axis"], shape(row), str(row["threads"]))
        yield from (microseconds(ours), microseconds(row["timings"]["eager"]["p20"]), f"{ours * 1e3 / elements:.2f}")

    headings = ["operator", "along", "shape", "threads", "ours", "eager", "ours, ns an element"]
    return Table(
        "Scaling: µs a call (20th percentile), fwd+bwd, f32", headings, [list(cells(row)) for row in rows], words=3
    )


def shape(row: Row) -> str:
    samples = [row["samples"]] if row["samples"] > 1 else []
    return "×".join(map(str, [*samples, *row["shape"]]))


def microseconds(time: float) -> str:
    return f"{time:.1f}" if time < 100 else f"{time:,.0f}"


def ratio(timings: Mapping[str, Any], peer: str, ours: str = "ours", digits: int = 1, percentile: str = "p20") -> str:
    """How many times as fast ours is; nothing where one of them was not measured."""
    if peer not in timings or ours not in timings:
        return ""
    return f"{times_as_fast(timings, peer, ours, percentile):.{digits}f}"


def bandwidth(row: Row, device: str, least: int) -> str:
    """`share_of_memory`; nothing where less than `least` bytes are moved."""
    share = share_of_memory(row, device)
    return "" if share is None or row["bytes_moved"] < least else f"{share:.0%}"


def megabytes(size: float | None, digits: int = 2) -> str:
    return "" if size is None else f"{size / 1e6:,.{digits}f}"


def error(relative: float | None) -> str:
    """A relative error; what is not a number stands out."""
    return "not finite" if relative is None else f"{relative:.1e}"


def samples_per_second(row: Row, name: str) -> float:
    speed: float = row["batch"] * 1e6 / row["timings"][name]["p20"]
    return speed
