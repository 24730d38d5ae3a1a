"""What a run is asked for: of each part, the cells that the options leave."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from benchmarks.accuracy import Question, questions
from benchmarks.results import PARTS
from benchmarks.scaling import Point, points
from benchmarks.training import Step, steps
from benchmarks.workloads import DTYPES, Workload, suite
from vae_ext.errors import UserError


class Cell(Protocol):
    """What is measured at once."""

    @property
    def name(self) -> str:
        """What `--only` searches."""

    @property
    def made_of(self) -> tuple[str, ...]:
        """The operators that have to be right for it."""


_Cell = TypeVar("_Cell", bound=Cell)


@dataclass(frozen=True)
class Selection:
    """The cells of each part; none of a part that is not asked for."""

    operators: Sequence[Workload] = ()
    training: Sequence[Step] = ()
    accuracy: Sequence[Question] = ()
    scaling: Sequence[Point] = ()

    def cells(self, part: str) -> Sequence[Cell]:
        found: Sequence[Cell] = getattr(self, part)
        return found

    def made_of(self) -> set[str]:
        """The operators that have to be right for all of it."""
        return {operator for part in PARTS for cell in self.cells(part) for operator in cell.made_of}


def select(
    device: str, quick: bool = False, parts: Sequence[str] = PARTS, dtypes: Sequence[str] = DTYPES, only: str = ""
) -> Selection:
    """The cells of these parts and dtypes in whose names the regular expression `only` is found.

    Raises:
        UserError: it is none, or no cell is left.
    """
    _expect_known("--parts", parts, PARTS)
    _expect_known("--dtypes", dtypes, DTYPES)
    try:
        pattern = re.compile(only)
    except re.error as error:
        raise UserError(f"--only {only} is not a regular expression: {error}") from error
    everything = Selection(
        suite(device, quick, dtypes), steps(quick, dtypes), questions(dtypes), points(device, quick, dtypes)
    )

    def chosen(part: str, cells: Sequence[_Cell]) -> list[_Cell]:
        return [cell for cell in cells if part in parts and pattern.search(cell.name)]

    selection = Selection(
        chosen("operators", everything.operators),
        chosen("training", everything.training),
        chosen("accuracy", everything.accuracy),
        chosen("scaling", everything.scaling),
    )
    if not any(map(selection.cells, PARTS)):
        raise UserError(_why_nothing(everything, parts, dtypes, only))
    return selection


def _why_nothing(everything: Selection, parts: Sequence[str], dtypes: Sequence[str], only: str) -> str:
    examples = list(_examples(everything, parts))
    if not examples:
        return f"--parts {','.join(parts)} has nothing in --dtypes {','.join(dtypes)}"
    return f"--only {only} is found in none of the names, which are like {'; '.join(examples)}"


def _examples(everything: Selection, parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        for cell in everything.cells(part)[:1]:
            yield f"{cell.name} ({part})"


def _expect_known(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"{option} has {name!r}, expected some of {', '.join(known)}")
