"""The CUDA kernels on the emulated device: right, and of the CPU's bits where that is promised."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import accuracy
from tests.cases import CASES, Case, as_tuple, cotangents
from tests.cuda_cases import (
    BROADCAST_CASES,
    KIND_CASES,
    LARGE_CASES,
    ROW_CASES,
    SIZE_CASES,
    X_CASES,
    results,
    shifted,
)
from tests.emulation.device import at_most_blocks
from tests.emulation.operators import EmulatedCase

pytestmark = pytest.mark.cpu_only("the CUDA kernels run on the CPU here")

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Those whose bits are promised.
EXACT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

OWN_CASES = [*SIZE_CASES, *ROW_CASES, *BROADCAST_CASES, *KIND_CASES, *X_CASES]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, dtype) for case in (*CASES, *OWN_CASES) for dtype in DTYPES if case.fits(dtype)],
    ids=lambda value: value.id if isinstance(value, Case) else str(value),
)
def test_values_and_gradients(case: Case, dtype: torch.dtype) -> None:
    emulated = EmulatedCase.of(case)
    accuracy.check(emulated, emulated.make(dtype=dtype, requires_grad=True))


@pytest.mark.parametrize("dtype", EXACT_DTYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, *SIZE_CASES, *KIND_CASES, *X_CASES], ids=lambda case: case.id)
def test_elementwise_results_have_the_bits_of_the_cpu(case: Case, dtype: torch.dtype) -> None:
    kwargs = case.make(dtype=dtype, requires_grad=True)
    expected = elementwise(case, kwargs, results(case, kwargs))
    assert_same_bits(results(EmulatedCase.of(case), kwargs), expected)


@pytest.mark.parametrize("case", LARGE_CASES, ids=lambda case: case.id)
def test_large(case: Case) -> None:
    emulated = EmulatedCase.of(case)
    kwargs = emulated.make(requires_grad=True)
    accuracy.check(emulated, kwargs)
    assert_same_bits(results(emulated, kwargs), elementwise(case, kwargs, results(case, kwargs)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("case", SIZE_CASES, ids=lambda case: case.id)
def test_addresses_do_not_matter(case: Case, dtype: torch.dtype) -> None:
    """Nor does whether a row is read in two groups at a time, in one, or element by element."""
    emulated = EmulatedCase.of(case)
    kwargs = emulated.make(dtype=dtype, requires_grad=True)
    expected = results(emulated, kwargs)
    for elements in (1, 2, 4):
        moved = {name: shifted(kwargs[name], elements) for name in case.differentiable}
        assert_same_bits(results(emulated, kwargs | moved), expected)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", [*SIZE_CASES, *ROW_CASES, *BROADCAST_CASES], ids=lambda case: case.id)
def test_any_number_of_blocks_will_do(case: Case, count: int) -> None:
    emulated = EmulatedCase.of(case)
    kwargs = emulated.make(requires_grad=True)
    expected = results(emulated, kwargs)
    with at_most_blocks(count):
        assert_same_bits(results(emulated, kwargs), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("case", SIZE_CASES, ids=lambda case: case.id)
def test_rows_are_the_same_in_any_batch(case: Case, dtype: torch.dtype) -> None:
    """The last row alone, as the global row that it is."""
    whole = EmulatedCase.of(dataclasses.replace(case, num_samples=None))
    kwargs = whole.make(dtype=dtype, requires_grad=True)
    outputs = as_tuple(whole.ours(**kwargs))
    grads = cotangents(outputs)
    last = outputs[0].shape[0] - 1
    alone = dataclasses.replace(whole, first_row=last)
    part = {name: kwargs[name].detach()[last:].clone().requires_grad_() for name in case.differentiable}
    expected = {name: value[last:] for name, value in results(whole, kwargs, grads).items()}
    assert_same_bits(results(alone, kwargs | part, tuple(grad[last:] for grad in grads)), expected)


def elementwise(case: Case, kwargs: dict[str, Any], values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that are no sums: z, and the gradients of what is not broadcast."""
    arguments = [kwargs[case.argument(role)] for role, shape in case.shapes.items() if shape is not None]
    shape = torch.broadcast_shapes(*(argument.shape for argument in arguments))
    if case.num_samples is not None:
        shape = torch.Size((case.num_samples, *shape))
    names = [name for name in values if name.startswith("gradient") or (case.is_sampler and name == "output 0")]
    return {name: values[name] for name in names if values[name].shape == shape}


def bits(tensor: Tensor) -> Tensor:
    """The same for every NaN."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
    return torch.where(tensor.isnan(), -1, tensor.contiguous().view(integers))


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    different = [name for name, value in expected.items() if not torch.equal(bits(actual[name]), bits(value))]
    assert not different
