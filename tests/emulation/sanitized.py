"""The emulated device under AddressSanitizer with UBSan, and under ThreadSanitizer: `make emulate-sanitize`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.cases import OPERATORS, Case, select
from tests.cuda_cases import (
    BROADCAST_CASES,
    KIND_CASES,
    ROW_CASES,
    SIZE_CASES,
    X_CASES,
    event_size,
    results,
    shifted,
)
from tests.emulation.build import Kind, build, run_sanitized
from tests.emulation.faults import FAULTS, check_found, check_silent, found_by
from tests.emulation.operators import EmulatedCase
from tests.emulation.recording import recording

KINDS: tuple[Kind, ...] = ("address", "thread")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# One for each number of lanes to a row, with tails and without.
SIZES = (1, 3, 4, 33, 64, 127, 132, 784, 3076, 6145, 12288, 12289, 16388)
# As many as the kernels ask for, and so few that each goes round its work.
_NUMBERS_OF_BLOCKS = ((), ("2",))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in found_by(kind)])
def test_fault_is_found(kind: Kind, name: str) -> None:
    check_found(name, kind)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_without_the_fault(kind: Kind, name: str) -> None:
    check_silent(name, kind)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("kind", KINDS)
def test_kernels(kind: Kind, operator: str, tmp_path: Path) -> None:
    """What the plain build computed, computed again under a sanitizer, in memory of exactly the right size."""
    program = build(kind) / "replay"
    launches = tmp_path / "launches"
    with recording(launches):
        for case, dtype in _calls(operator):
            _run(EmulatedCase.of(case), dtype)
    for blocks in _NUMBERS_OF_BLOCKS:
        done = run_sanitized(program, str(launches), *blocks)
        assert done.returncode == 0, done.stderr


def _calls(operator: str) -> Iterator[tuple[Case, torch.dtype]]:
    for case in [*ROW_CASES, *BROADCAST_CASES, *KIND_CASES, *X_CASES, *select(layout="strided_rows")]:
        if case.operator == operator:
            yield case, torch.float32
    for case, dtype in itertools.product(SIZE_CASES, DTYPES):
        if case.operator == operator and event_size(case) in SIZES:
            yield case, dtype


def _run(case: EmulatedCase, dtype: torch.dtype) -> None:
    """Forward and backward, with arguments that are aligned and with some that are not."""
    kwargs = case.make(dtype=dtype, requires_grad=True)
    results(case, kwargs)
    if case.layout == "contiguous":
        results(case, kwargs | {name: shifted(kwargs[name], 1) for name in case.differentiable})
