"""What changed from one results.json to another: times, peak memory and errors of ours. Scaling is not compared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from benchmarks.results import OURS, WAYS, Document, named_rows, samples
from benchmarks.tables import Table, error, megabytes, microseconds
from benchmarks.timing import LEAST_ROUNDS

# Two runs of the same code on a quiet machine differ by as much.
_LEAST_CHANGE = 1.05
# Where ours has changed and not the machine, these have not.
_CONTROLS = ("eager", "compile")
# Of the intervals: so many draws, and what lies between these quantiles of them.
_DRAWS, _INTERVAL = 1000, (0.005, 0.995)
_QUANTILE = 0.2
# The bootstrap makes too little of chance where rounds are few: ranks have to say so too. Of five rounds and five, none
# may overlap; of fewer in either run, ranks say nothing.
_LIKELY_CHANCE = 0.01

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """One row that is in both: 20th percentiles of ours in µs, and ratios of them, after over before."""

    name: str
    before: float
    after: float
    ratio: float
    drift: float  # of the peers, which tell what the machine does
    interval: tuple[float, float]  # of 99 % of what ratio / drift might as well have been
    chance: float  # of rounds ranked as unlike as these had nothing changed (Mann and Whitney's test); 1 of too few

    @property
    def own(self) -> float:
        """What is left of the ratio without what the machine did."""
        return self.ratio / self.drift

    @property
    def verdict(self) -> str:
        """Whether ours changed beside its peers, by more than chance and by more than two runs always differ by."""
        low, high = self.interval
        if self.chance > _LIKELY_CHANCE:
            return ""
        if low > 1 and self.own > _LEAST_CHANGE:
            return "slower"
        return "faster" if high < 1 and self.own < 1 / _LEAST_CHANGE else ""


def changes(before: Document, after: Document) -> list[Change]:
    """Every way of ours in each row of the operators and of training that is in both, in the order of `after`."""
    earlier = dict(_timings(before))
    return [
        _change(name if ours == OURS else f"{name} {ours}", ours, earlier[name], timings)
        for name, timings in _timings(after)
        for ours in WAYS
        if name in earlier and ours in timings and ours in earlier[name]
    ]


def other_changes(before: Document, after: Document) -> list[str]:
    """Each peak of memory and each error of ours that is not what it was."""
    return [
        *_unequal("peak MB of", _peaks(before), _peaks(after), megabytes),
        *_unequal("error of", _errors(before), _errors(after), lambda found: error(_for_people(found))),
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
    """A row for each, with the ratio of ours, of its peers, and of the two, and what changed."""
    rows = [
        [
            change.name,
            change.verdict,
            microseconds(change.before),
            microseconds(change.after),
            f"{change.ratio:.2f}",
            f"{change.drift:.2f}",
            f"{change.own:.2f}",
            f"{change.interval[0]:.2f} to {change.interval[1]:.2f}",
            f"{change.chance:.1%}",
        ]
        for change in found
    ]
    headings = ["row", "ours is", "before", "after", "after / before", "peers", "over peers", "99 % of chance", "ranks"]
    return Table("20th percentiles of ours in µs, and their ratios", headings, rows, words=2, grouped=False)


def verdicts(found: Sequence[Change]) -> str:
    """One sentence about all rows."""
    faster, slower = (sum(change.verdict == verdict for change in found) for verdict in ("faster", "slower"))
    mean = statistics.geometric_mean([change.own for change in found])
    return (
        f"Of {len(found)} rows {faster} are faster and {slower} slower beyond chance, were rounds independent; a"
        f" machine that drifts adds some (benchmarks/README.md). Over its peers, ours takes {mean:.2f} times as long"
        " (geometric mean). Scaling is not compared."
    )


def _change(name: str, ours: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    controls = [peer for peer in _CONTROLS if peer in before and peer in after]
    ratios = {each: after[each]["p20"] / before[each]["p20"] for each in (ours, *controls)}
    drawn = {each: np.log(_draws(after[each], seed=1) / _draws(before[each], seed=0)) for each in ratios}
    own = drawn[ours] - (np.mean([drawn[peer] for peer in controls], axis=0) if controls else 0.0)
    low, high = np.exp(np.quantile(own, _INTERVAL))
    return Change(
        name,
        before[ours]["p20"],
        after[ours]["p20"],
        ratio=ratios[ours],
        drift=statistics.geometric_mean([ratios[peer] for peer in controls]) if controls else 1.0,
        interval=(float(low), float(high)),
        chance=_chance(before, after, ours, controls),
    )


def _chance(before: Mapping[str, Any], after: Mapping[str, Any], ours: str, controls: Sequence[str]) -> float:
    if any(len(timings[each]["samples"]) < LEAST_ROUNDS for timings in (before, after) for each in (ours, *controls)):
        return 1.0
    return float(mannwhitneyu(*(_over_peers(timings, ours, controls) for timings in (before, after))).pvalue)


def _over_peers(timings: Mapping[str, Any], ours: str, controls: Sequence[str]) -> _Floats:
    """The logarithm of each round's time of ours over its peers', whose disturbances it shares."""
    own = np.log(samples(timings[ours]))
    over: _Floats = own - np.mean([np.log(samples(timings[peer])) for peer in controls], axis=0) if controls else own
    return over


def _draws(timing: Mapping[str, Any], seed: int) -> _Floats:
    """The 20th percentile of the samples, had other rounds been measured: the bootstrap.

    With one seed all contestants of a run have the same rounds, whose disturbances they share. Rounds that follow each
    other are alike, so that there is more chance than this shows.
    """
    rounds = np.asarray(samples(timing))
    chosen = np.random.default_rng(seed).integers(len(rounds), size=(_DRAWS, len(rounds)))
    drawn: _Floats = np.quantile(rounds[chosen], _QUANTILE, axis=1)
    return drawn


def _unequal(
    what: str, before: Mapping[str, float], after: Mapping[str, float], form: Callable[[float], str]
) -> Iterator[str]:
    for name, now in after.items():
        if name not in before or max(now, before[name]) <= _LEAST_CHANGE * min(now, before[name]):
            continue
        change = "more" if now > before[name] else "less"
        yield f"{what} {name}: {change}, {form(before[name])} before, {form(now)} after"


def _timings(document: Document) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, row in named_rows(document):
        yield name, row["timings"]


def _peaks(document: Document) -> dict[str, float]:
    return {
        f"{ours}, {name}": row["peak_bytes"][ours]
        for name, row in named_rows(document)
        for ours in WAYS
        if ours in row["peak_bytes"]
    }


def _errors(document: Document) -> dict[str, float]:
    """An error that is not finite is greater than any."""
    return {
        f"ours, {row['operator']} {row['dtype']}, {row['values']} inputs, {part}s": math.inf
        if row[part]["ours"] is None
        else row[part]["ours"]
        for row in document["accuracy"]
        for part in ("output", "gradient")
    }


def _for_people(found: float) -> float | None:
    return found if math.isfinite(found) else None
