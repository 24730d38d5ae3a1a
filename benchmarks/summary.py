"""A run in a few lines: the means and extremes of its rows, beside what is aimed at."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.results import (
    Document,
    Row,
    by_allocator,
    operator_name,
    pairs,
    share_of_memory,
    step_name,
    times_as_fast,
)
from benchmarks.tables import BEYOND_CACHES, Table
from benchmarks.workloads import LOSS, OPERATORS, PASSES

# Inputs of this size stay in the caches of two cores, whichever set it is.
_CACHED = {"bernoulli_log_prob": [1024, 784], "normal_rsample": [8192, 64]}
# From here on p80 over p20 is no quiet machine's; a round has a hundred faults where memory is new.
WIDE, _MANY_PAGE_FAULTS = 1.5, 100
# Samplers that sum compute more for each byte than the device has time for.
_SHARES_ON_A_GPU: Mapping[tuple[str, ...], float | None] = {
    ("bernoulli_log_prob", "normal_log_prob", "normal_kl"): 0.85,
    ("normal_rsample",): 0.75,
    ("normal_rsample_kl", "normal_rsample_log_ratio"): None,
}


@dataclass(frozen=True)
class Line:
    """One number of a run, and what it should be: at least the aim, or `at_most`."""

    what: str
    reached: float
    where: str = ""
    aim: float | None = None
    at_most: bool = False
    form: str = ".2f"

    @property
    def missed(self) -> bool:
        if self.aim is None:
            return False
        return self.reached > self.aim if self.at_most else self.reached < self.aim

    @property
    def value(self) -> str:
        return f"{self.reached:{self.form}}"

    @property
    def aimed_at(self) -> str:
        if self.aim is None:
            return ""
        return f"{'at most' if self.at_most else 'at least'} {self.aim:{self.form}}"

    def __str__(self) -> str:
        where, aim = f", {self.where}" if self.where else "", f" (aim: {self.aimed_at})" if self.aim is not None else ""
        return f"{self.what}: {self.value}{where}{aim}"


def lines(document: Document) -> list[Line]:
    """What there is to say about the rows of the operators and of training."""
    rows, steps, machine = document["operators"], document["training"], document["machine"]
    float32 = [row for row in rows if row["dtype"] == "float32"]
    if document["settings"]["device"] == "cuda":
        of_device = list(_on_a_gpu(float32))
    elif (machine["cores"], machine["isa"]) == (2, "AVX512"):
        of_device = list(_on_two_cores(float32))
    else:
        of_device = [replace(line, aim=None) for line in _on_two_cores(float32)]
    return [*of_device, *_half_precision(rows), *_steps(steps), *_disturbances(rows, steps)]


def table(document: Document) -> Table:
    """The same, with the aims and which of them are missed."""
    rows = [
        [line.what, line.where, line.value, line.aimed_at, "missed" if line.missed else ""] for line in lines(document)
    ]
    return Table("Summary", ["", "row", "reached", "aim", ""], rows, words=2, grouped=False, code=False)


def widely_spread(rows: Sequence[Row]) -> int:
    """How many of them have a p80 of ours beyond 1.5 × its p20."""
    return sum(row["timings"]["ours"]["p80"] > WIDE * row["timings"]["ours"]["p20"] for row in rows)


def _on_two_cores(rows: Sequence[Row]) -> Iterator[Line]:
    """Beside what two AVX-512 cores should do."""
    yield from _means(rows, {("eager", "fwd+bwd"): 7.0, ("compile", "fwd+bwd"): 5.0})
    for direction, kind, aim in (("fwd", "read", 0.95), ("fwd+bwd", "copy", 0.85)):
        passes = [row for row in rows if row["pass"] == direction]
        yield from _least_share(passes, "cpu", f"the {kind} bandwidth", aim)
    yield from _per_element(rows)
    yield from _at_the_bound(rows)


def _on_a_gpu(rows: Sequence[Row]) -> Iterator[Line]:
    """Beside what a device of the H200's kind should do."""
    yield from _means(rows, {})
    for peer, aim in (("eager", 3.0), ("compile", 1.0), ("reduce-overhead", 1.0)):
        yield from _least_speed(rows, peer, aim)
    yield from _least_speed([row for row in rows if row["operator"] == LOSS], "eager", aim=5.0)
    for operators, share in _SHARES_ON_A_GPU.items():
        large = [row for row in rows if row["operator"] in operators]
        yield from _least_share(large, "cuda", f"the copy bandwidth by {', '.join(operators)}", share)


def _means(rows: Sequence[Row], aims: Mapping[tuple[str, str], float]) -> Iterator[Line]:
    for direction, peer in itertools.product(PASSES, ("eager", "compile")):
        speeds = [
            times_as_fast(row["timings"], peer)
            for row in rows
            if row["pass"] == direction and row["operator"] in OPERATORS and peer in row["timings"]
        ]
        if speeds:
            what = f"times as fast as {peer}, {direction}, float32, geometric mean of {len(speeds)}"
            yield Line(what, statistics.geometric_mean(speeds), aim=aims.get((peer, direction)), form=".1f")


def _at_the_bound(rows: Sequence[Row]) -> Iterator[Line]:
    """What each row of one sample being as fast as its bound would bring, where it is not yet."""
    bounded = [
        row
        for row in rows
        if row["pass"] == "fwd+bwd" and row["operator"] in OPERATORS and row["bound"] and "eager" in row["timings"]
    ]
    if bounded:
        what = f"times as fast as eager, fwd+bwd, float32, geometric mean of {len(bounded)} of one sample"
        yield Line(what, statistics.geometric_mean([times_as_fast(row["timings"], "eager") for row in bounded]))
        best = [row["timings"]["eager"]["p20"] / min(row["bound"], row["timings"]["ours"]["p20"]) for row in bounded]
        yield Line(f"{what}, were each at its bound", statistics.geometric_mean(best))


def _least_speed(rows: Sequence[Row], peer: str, aim: float) -> Iterator[Line]:
    speeds = {operator_name(row): times_as_fast(row["timings"], peer) for row in rows if peer in row["timings"]}
    if speeds:
        least = min(speeds, key=lambda name: speeds[name])
        yield Line(f"least times as fast as {peer}", speeds[least], least, aim)


def _least_share(rows: Sequence[Row], device: str, of_what: str, aim: float | None) -> Iterator[Line]:
    shares = {
        operator_name(row): share
        for row in rows
        if row["bytes_moved"] >= BEYOND_CACHES and (share := share_of_memory(row, device)) is not None
    }
    if shares:
        least = min(shares, key=lambda name: shares[name])
        yield Line(f"least share of {of_what} beyond the caches", shares[least], least, aim, form=".0%")


def _per_element(rows: Sequence[Row]) -> Iterator[Line]:
    aims = {"bernoulli_log_prob": 0.09, "normal_rsample": 0.4}
    for row in rows:
        operator = row["operator"]
        if (row["pass"], row["samples"], row["shape"]) == ("fwd", 1, _CACHED.get(operator)):
            nanoseconds = row["timings"]["ours"]["p20"] * 1e3 / (row["shape"][0] * row["shape"][1])
            yield Line("ns an element in the caches", nanoseconds, operator_name(row), aims[operator], at_most=True)


def _half_precision(rows: Sequence[Row]) -> Iterator[Line]:
    ours = {operator_name(row): row["timings"]["ours"]["p20"] for row in rows}
    speeds = {
        name: ours[wide] / time
        for name, time in ours.items()
        if name.endswith("bfloat16") and (wide := name.replace("bfloat16", "float32")) in ours
    }
    if speeds:
        least = min(speeds, key=lambda name: speeds[name])
        yield Line("least speed of bfloat16 over float32", speeds[least], least, aim=1.0)
        slower = sum(speed < 1 for speed in speeds.values())
        yield Line(f"rows of bfloat16 that are slower than in float32, of {len(speeds)}", slower, form=".0f")


def _steps(steps: Sequence[Row]) -> Iterator[Line]:
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for row in steps:
        for allocator, percentile, timings in by_allocator(row):
            for ours, peer in pairs(timings):
                what = f"training: least speed of {ours} over {peer}, {allocator} allocator"
                found[what][step_name(row)] = times_as_fast(timings, peer, ours, percentile)
    for what, speeds in found.items():
        least = min(speeds, key=lambda name: speeds[name])
        yield Line(what, speeds[least], least, aim=1.0)
    for row in steps:
        if (row["model"], row["batch"], row["dtype"]) == ("mlp", 8192, "bfloat16"):
            speed = times_as_fast(row["timings"], "eager")
            yield Line("training: speed of ours over eager", speed, step_name(row), aim=1.1)


def _disturbances(rows: Sequence[Row], steps: Sequence[Row]) -> Iterator[Line]:
    """What tells how quiet the machine was, and whether pinning the allocator worked."""
    for of, measured in (("operators", rows), ("training", steps)):
        if measured:
            what = f"rows of {of} whose p80 is beyond {WIDE} × p20, of {len(measured)}"
            yield Line(what, widely_spread(measured), form=".0f")
    faults = {operator_name(row): row["page_faults_per_round"] for row in rows}
    if faults:
        many = sum(count > _MANY_PAGE_FAULTS for count in faults.values())
        what = f"rows of operators with more than {_MANY_PAGE_FAULTS} page faults a round, of {len(faults)}"
        yield Line(what, many, form=".0f")
        most = max(faults, key=lambda name: faults[name])
        yield Line("most page faults a round of all contestants", faults[most], most, form=",.0f")
