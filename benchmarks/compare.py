"""What changed from one results.json to another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.results import Document, Row, operator_name, step_name
from benchmarks.tables import Table, microseconds

# Two runs of the same code on a quiet machine differ by as much.
_LEAST_NOISE = 0.05
# Where ours has changed and not the machine, these have not.
_CONTROLS = ("eager", "compile")


@dataclass(frozen=True)
class Change:
    """One row that is in both: medians of ours in µs, and ratios of medians, after over before."""

    name: str
    before: float
    after: float
    ratio: float
    drift: float  # of the peers, which tell what the machine does
    noise: float  # as a factor: a ratio between 1 / noise and noise says nothing

    @property
    def verdict(self) -> str:
        """Whether ours changed, by more than noise and by more than its peers did."""
        if max(self.ratio, 1 / self.ratio) <= self.noise:
            return ""
        own = self.ratio / self.drift
        if max(own, 1 / own) <= self.noise:
            return "as its peers"
        return "faster" if own < 1 else "slower"


def changes(before: Document, after: Document) -> list[Change]:
    """Every row of the operators and of training that is in both, in the order of `after`."""
    earlier = dict(_timings(before))
    return [
        _change(name, earlier[name], timings)
        for name, timings in _timings(after)
        if name in earlier and "ours" in timings and "ours" in earlier[name]
    ]


def only_in_one(before: Document, after: Document) -> tuple[list[str], list[str]]:
    """The rows that cannot be compared: those of `before` alone, and of `after` alone."""
    earlier, later = dict(_timings(before)), dict(_timings(after))
    return [name for name in earlier if name not in later], [name for name in later if name not in earlier]


def differences(before: Document, after: Document) -> list[str]:
    """What else is different between the two runs: machine, versions, settings."""
    pairs = [(before["machine"], after["machine"]), (before["settings"], after["settings"])]
    return [
        f"{name}: {old.get(name)} before, {new.get(name)} after"
        for old, new in pairs
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def table(found: Sequence[Change]) -> Table:
    """A row for each, with the ratio of ours and of its peers, what is within the noise, and what changed."""
    rows = [
        [
            change.name,
            change.verdict,
            microseconds(change.before),
            microseconds(change.after),
            f"{change.ratio:.2f}",
            f"{change.drift:.2f}",
            f"±{change.noise - 1:.0%}",
        ]
        for change in found
    ]
    headings = ["row", "ours is", "before", "after", "after / before", "peers", "noise"]
    return Table("Medians of ours in µs, and ratios of medians", headings, rows, words=2, grouped=False)


def verdicts(found: Sequence[Change]) -> str:
    """One sentence about all rows."""
    counts = {
        verdict: sum(change.verdict == verdict for change in found) for verdict in ("faster", "slower", "as its peers")
    }
    mean = statistics.geometric_mean([change.ratio / change.drift for change in found])
    return (
        f"Of {len(found)} rows {counts['faster']} are faster and {counts['slower']} slower beyond noise,"
        f" {counts['as its peers']} changed as their peers did; over its peers, ours takes {mean:.2f} times as long"
        " (geometric mean)."
    )


def _change(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    controls = [peer for peer in _CONTROLS if peer in before and peer in after]
    drifts = [after[peer]["median"] / before[peer]["median"] for peer in controls]
    return Change(
        name,
        before["ours"]["median"],
        after["ours"]["median"],
        ratio=after["ours"]["median"] / before["ours"]["median"],
        drift=statistics.geometric_mean(drifts) if drifts else 1.0,
        noise=max(1 + _LEAST_NOISE, math.sqrt(_spread(before["ours"]) * _spread(after["ours"]))),
    )


def _spread(timing: Mapping[str, Any]) -> float:
    """The 80th percentile over the 20th."""
    spread: float = timing["p80"] / timing["p20"]
    return spread


def _timings(document: Document) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows: Sequence[Row] = document["operators"]
    for row in rows:
        yield operator_name(row), row["timings"]
    for row in document["training"]:
        yield step_name(row), row["timings"]
