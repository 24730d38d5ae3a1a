"""First, right answers: the cases of the tests' registry have to satisfy the tests' own rule of accuracy."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch

from benchmarks.session import Session
from tests import accuracy
from tests.cases import Case, select
from vae_ext.errors import UserError

# Rows of a million elements take half of the time of all cases.
_QUICK_ELEMENTS = 100_000


def pass_gate(session: Session, operators: Collection[str], dtypes: Sequence[str]) -> int:
    """Checks every case of these operators in every dtype; returns how many there was time for.

    Raises:
        UserError: one of them is wrong.
    """
    chosen = cases(operators, session.plan.quick)
    checks = {f"{case.id} {dtype}": (case, dtype) for dtype in dtypes for case in chosen}
    right = 0
    for case, dtype in session.each("correctness", checks):
        session.pinned.run(check, case, dtype, session.plan.device)
        right += 1
    return right


def cases(operators: Collection[str], quick: bool) -> list[Case]:
    """What has to be right before anything is measured."""
    return [case for case in select(*operators) if not quick or _elements(case) < _QUICK_ELEMENTS]


def check(case: Case, dtype: str, device: str) -> None:
    """Raises UserError unless values and gradients of the fused operator are accurate in `case`."""
    try:
        accuracy.check(case, case.make(dtype=getattr(torch, dtype), device=device, requires_grad=True))
    except Exception as error:
        raise UserError(f"nothing was measured, because {case.id} is wrong in {dtype}: {error}") from error


def _elements(case: Case) -> int:
    return max(math.prod(shape) for shape in case.shapes.values() if shape is not None)
