"""The same bits whatever the instruction set, the number of threads, and the batch a datapoint stands in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vae_ext
from tests.capabilities import CAPABILITIES, digests_under
from tests.cases import OPERATORS, Case, as_tuple, case_of, cotangents
from tests.outputs import digests


@pytest.fixture(scope="module")
def expected_digests() -> dict[str, str]:
    """What this process computes, with the instruction set torch chose and as many threads as it has."""
    return digests()


@pytest.mark.cpu_only("about instruction sets of the CPU")
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_instruction_sets_agree(capability: str, expected_digests: dict[str, str]) -> None:
    _assert_same(digests_under(capability, "tests.outputs"), expected_digests)


@pytest.mark.cpu_only("about threads of the CPU")
@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("num_threads", [1, 7])
def test_thread_counts_agree(num_threads: int, expected_digests: dict[str, str]) -> None:
    torch.set_num_threads(num_threads)
    _assert_same(digests(), expected_digests)


def _assert_same(actual: dict[str, str], expected: dict[str, str]) -> None:
    assert actual.keys() == expected.keys()
    different = [name for name, digest in actual.items() if digest != expected[name]]
    assert not different, f"{len(different)} of {len(actual)} differ: {different[:10]}"


@pytest.mark.cpu_only("about threads of the CPU")
@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("size", [1_000_003, 3_000_000])
def test_one_long_row_is_the_same_for_any_thread_count_in_float64(size: int) -> None:
    logits, x = torch.randn(2, 1, size, dtype=torch.float64).unbind()
    results = []
    for num_threads in (1, 2, 5):
        torch.set_num_threads(num_threads)
        results.append(vae_ext.bernoulli_log_prob(logits, x))
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1, 5, 20, 64, 130, 784, 1025, 70_001])
@pytest.mark.parametrize("operator", OPERATORS)
def test_rows_are_the_same_in_any_batch(operator: str, size: int, dtype: torch.dtype) -> None:
    count = 9 if size < 10_000 else 3
    case = case_of(operator, (count, size))
    kwargs = case.make(dtype=dtype, requires_grad=True)
    outputs = as_tuple(case.ours(**kwargs))
    grads = cotangents(outputs)
    whole = (*outputs, *torch.autograd.grad(outputs, _inputs(case, kwargs), grads))
    for rows in (slice(0, 1), slice(1, 3), slice(2, None), slice(count - 1, None)):
        part_kwargs = _rows_of(case, kwargs, rows)
        part_outputs = as_tuple(case.ours(**part_kwargs))
        part = (
            *part_outputs,
            *torch.autograd.grad(part_outputs, _inputs(case, part_kwargs), [grad[rows] for grad in grads]),
        )
        assert all(torch.equal(actual, expected[rows]) for actual, expected in zip(part, whole, strict=True)), rows


def _inputs(case: Case, kwargs: dict[str, Any]) -> list[Tensor]:
    return [kwargs[name] for name in case.differentiable]


def _rows_of(case: Case, kwargs: dict[str, Any], rows: slice) -> dict[str, Any]:
    """These rows alone, at an address of their own, as the global rows they are."""
    part = dict(kwargs)
    for name in case.differentiable:
        part[name] = kwargs[name].detach()[rows].clone().requires_grad_()
    if case.is_sampler:
        part["first_row"] = rows.start
    return part


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("offset", [1, 3, 7])
def test_addresses_do_not_matter(offset: int, dtype: torch.dtype) -> None:
    """Rows that start anywhere in memory, not only where vectors are aligned."""
    logits, x = torch.randn(2, 5, 203, dtype=dtype).unbind()
    shifted = torch.cat([torch.zeros(offset, dtype=dtype), logits.flatten()])[offset:].view(5, 203)
    assert torch.equal(vae_ext.bernoulli_log_prob(shifted, x), vae_ext.bernoulli_log_prob(logits, x))
    assert torch.equal(vae_ext.normal_kl(shifted, x), vae_ext.normal_kl(logits, x))
