"""How far our curves are from the paper's, and AEVB from wake-sleep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.paper import published
from benchmarks.paper.curves import LearnedCurve

# After how many training samples curves are compared.
POINTS = (10**5, 10**6, 10**7, 10**8)
# How near the test bound is to be to the paper's, in nats, from so many samples on.
AIMS = {"mnist": (2.0, (10**6, 10**7)), "frey": (25.0, (10**6,))}


@dataclass(frozen=True)
class Difference:
    """A curve of ours after so many samples; the paper's are None where they were not read. In nats.

    Attributes:
        curve: its name.
        variant: as `Curve` has it, the seed in it too.
        test_minus_paper, train_minus_paper: above 0 where ours is the higher.
        aim: what `test_minus_paper` is to be within, where there is one.
    """

    curve: str
    dataset: str
    algorithm: str
    latent: int
    variant: str
    seed: int
    samples: int
    test: float
    train: float
    paper_test: float | None
    paper_train: float | None
    test_minus_paper: float | None
    train_minus_paper: float | None
    aim: float | None

    @property
    def met(self) -> bool | None:
        """Whether the aim is; None where there is none."""
        if self.aim is None or self.test_minus_paper is None:
            return None
        return abs(self.test_minus_paper) <= self.aim


@dataclass(frozen=True)
class Spread:
    """The test bounds after so many samples of curves that differ in their seed, in nats; the paper's has one.

    Attributes:
        curve: the name of that of seed 0.
        bounds: from the lowest to the highest.
        step_sizes: of the same curves: the trials of another seed may choose another.
    """

    curve: str
    samples: int
    bounds: list[float]
    step_sizes: list[float]
    paper: float | None

    @property
    def mean(self) -> float:
        return sum(self.bounds) / len(self.bounds)


@dataclass(frozen=True)
class Contest:
    """The test bounds of both algorithms after as many samples, in nats."""

    dataset: str
    latent: int
    variant: str
    samples: int
    aevb: float
    wake_sleep: float

    @property
    def lead(self) -> float:
        """How far AEVB is above."""
        return self.aevb - self.wake_sleep


def differences(learned: Sequence[LearnedCurve]) -> list[Difference]:
    """Of every curve at every one of `POINTS` that it reaches."""
    return [_difference(one, samples) for one in learned for samples in POINTS if one.reaches(samples)]


def _difference(one: LearnedCurve, samples: int) -> Difference:
    curve = one.curve
    points = published.points_of(curve.dataset, curve.algorithm, curve.latent)
    point = next((point for point in points if point.samples == samples), None)
    paper_test, paper_train = (None, None) if point is None else (point.test, point.train)
    test, train = one.bound_at("test", samples), one.bound_at("train", samples)
    aim, aimed_at = AIMS[curve.dataset]
    wanted = samples in aimed_at and curve.algorithm == "aevb" and paper_test is not None
    return Difference(
        curve.name,
        curve.dataset,
        curve.algorithm,
        curve.latent,
        curve.variant,
        curve.seed,
        samples,
        test,
        train,
        paper_test,
        paper_train,
        None if paper_test is None else round(test - paper_test, 3),
        None if paper_train is None else round(train - paper_train, 3),
        aim if wanted else None,
    )


def spreads(rows: Sequence[Difference], learned: Sequence[LearnedCurve]) -> list[Spread]:
    """Of every curve that was run with more seeds than one, at every one of `POINTS` that more than one reach."""
    unseeded = {one.curve.name: replace(one.curve, seed=0).name for one in learned}
    step_sizes = {one.curve.name: one.config.lr for one in learned}
    places = dict.fromkeys((unseeded[row.curve], row.samples) for row in rows)
    groups = {place: [row for row in rows if (unseeded[row.curve], row.samples) == place] for place in places}
    return [_spread(place, group, step_sizes) for place, group in groups.items() if len(group) > 1]


def _spread(place: tuple[str, int], group: Sequence[Difference], step_sizes: Mapping[str, float]) -> Spread:
    ranked = sorted(group, key=lambda row: row.test)
    bounds, sizes = [row.test for row in ranked], [step_sizes[row.curve] for row in ranked]
    return Spread(*place, bounds, sizes, group[0].paper_test)


def contests(learned: Sequence[LearnedCurve]) -> list[Contest]:
    """Of every pair of curves that differ in their algorithm alone, at every one of `POINTS` that both reach."""
    by_name = {one.curve.name: one for one in learned}
    pairs = [
        (one, by_name.get(one.curve.name.replace("-aevb-", "-wake-sleep-")))
        for one in learned
        if one.curve.algorithm == "aevb"
    ]
    return [
        Contest(
            aevb.curve.dataset,
            aevb.curve.latent,
            aevb.curve.variant,
            samples,
            aevb.bound_at("test", samples),
            other.bound_at("test", samples),
        )
        for aevb, other in pairs
        if other is not None
        for samples in POINTS
        if aevb.reaches(samples) and other.reaches(samples)
    ]
