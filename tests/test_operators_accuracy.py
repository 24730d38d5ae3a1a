"""Values and gradients against float64, at ordinary and at extreme inputs."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import vae_ext
from tests import accuracy
from tests.cases import (
    CASES,
    OPERATORS,
    ROLES,
    SCALE_KINDS,
    Z_ALONE,
    Case,
    as_tuple,
    case_of,
    from_log_var,
    select,
    widen,
)
from vae_ext.arguments import ScaleKind

pytestmark = pytest.mark.usefixtures("poisoned_memory")

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, dtype) for case in CASES for dtype in DTYPES if case.fits(dtype)],
    ids=lambda value: value.id if isinstance(value, Case) else _dtype_name(value),
)
def test_values_and_gradients_are_accurate(case: Case, dtype: torch.dtype) -> None:
    accuracy.check(case, case.make(dtype=dtype, requires_grad=True))


@pytest.mark.parametrize("operator", OPERATORS)
def test_results_are_float32_or_float64(operator: str) -> None:
    case = select(operator, num_samples=None)[0]
    for dtype in DTYPES:
        outputs = as_tuple(case.ours(**case.make(dtype=dtype)))
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        expected = (dtype, wide)[-len(outputs) :] if case.is_sampler and len(outputs) == 2 else (wide,)
        if operator in Z_ALONE:
            expected = (dtype,)
        assert tuple(output.dtype for output in outputs) == expected
        assert all(output.is_contiguous() for output in outputs)


@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_kl_near_collapse_keeps_its_digits(kind: ScaleKind) -> None:
    """Each term is right to 2.1 ulp (elementary.h) and a rounding, none is negative, at most ten additions follow."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    log_var = 1e-4 * torch.randn(3, 64, generator=generator)
    mean = 1e-5 * torch.randn(3, 64, generator=generator)
    scale = from_log_var(log_var, kind)
    kwargs: dict[str, Any] = {kind: scale}
    kl = vae_ext.normal_kl(mean, **kwargs)
    for row in range(3):
        exact = mpmath.fsum(
            (_exact_log_var_term(s, kind) + mpmath.mpf(m) ** 2) / 2
            for m, s in zip(mean[row].tolist(), scale[row].tolist(), strict=True)
        )
        assert kl[row].item() == pytest.approx(float(exact), rel=16 * 2**-24)


def _exact_log_var_term(scale: float, kind: str) -> mpmath.mpf:
    with mpmath.workdps(50):
        s = mpmath.mpf(scale)
        v = {"log_var": s, "log_std": 2 * s, "std": 2 * mpmath.log(s), "var": mpmath.log(s)}[kind]
        return mpmath.expm1(v) - v


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 80.0), (torch.float64, 700.0)], ids=str)
@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_kl_of_scales_whose_ratio_is_out_of_range(kind: ScaleKind, dtype: torch.dtype, far: float) -> None:
    """Too large, it makes the KL infinite; too small, (r - 1 - log r) / 2 is far from it."""
    logarithm = torch.tensor([[far], [-far]], dtype=dtype)
    scale, prior = (value if kind.startswith("log") else value.exp() for value in (logarithm, -logarithm))
    arguments: dict[str, Any] = {kind: scale, f"prior_{kind}": prior}
    infinite, finite = vae_ext.normal_kl(torch.zeros_like(scale), **arguments).tolist()
    assert infinite == math.inf
    log_ratio = far * (4 if "std" in kind else 2)
    assert finite == pytest.approx((log_ratio - 1) / 2, rel=1e-6)


@pytest.mark.parametrize("size", [1, 15, 64, 784, 5000])
@pytest.mark.parametrize("logit", [17.0, 25.0, 60.0])
def test_saturated_bernoulli_keeps_what_is_left(size: int, logit: float) -> None:
    """Where x agrees with a saturated logit, -log p is as small as exp(-|logit|), and must not be lost."""
    x = (torch.arange(size) % 2).float().expand(3, size)
    logits = logit * (2 * x - 1)
    expected = -size * math.log1p(math.exp(-logit))
    torch.testing.assert_close(vae_ext.bernoulli_log_prob(logits, x), torch.full((3,), expected), rtol=1e-5, atol=0.0)


def test_bernoulli_extends_linearly_outside_the_unit_interval() -> None:
    logits = torch.tensor([[0.5, -2.0, 30.0]])
    x = torch.tensor([[-1.0, 2.5, 7.0]])
    expected = (x.double() * logits.double() - torch.nn.functional.softplus(logits.double())).sum(-1)
    torch.testing.assert_close(vae_ext.bernoulli_log_prob(logits, x).double(), expected, rtol=1e-6, atol=0.0)


NONFINITE_CASES = [
    case_of(operator, (6, 83), prior=True, scale_kind=kind)
    for operator, roles in ROLES.items()
    for kind in (SCALE_KINDS if "scale" in roles else SCALE_KINDS[:1])
]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=_dtype_name)
@pytest.mark.parametrize("case", NONFINITE_CASES, ids=lambda case: case.id)
def test_nan_and_inf_come_out_where_they_went_in(case: Case, dtype: torch.dtype, value: float) -> None:
    clean = as_tuple(case.ours(**case.make(dtype=dtype)))
    for name in case.differentiable:
        kwargs = case.make(dtype=dtype)
        kwargs[name][4, 77] = value
        outputs, expected = as_tuple(case.ours(**kwargs)), as_tuple(case.reference(**widen(kwargs)))
        for output, wanted, without in zip(outputs, expected, clean, strict=True):
            others = torch.arange(6) != 4
            assert torch.equal(output[others], without[others]), name
            assert torch.equal(output.isfinite(), wanted.isfinite()), name
            _assert_same_infinities(output, wanted, name)
            if math.isnan(value):
                assert torch.equal(output.isnan(), wanted.isnan()), name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("case", NONFINITE_CASES, ids=lambda case: case.id)
def test_gradients_are_nan_and_inf_where_eager_ones_are(case: Case, value: float) -> None:
    names = case.differentiable
    for name in names:
        kwargs = _with_value(case, name, value)
        wide = widen(kwargs)
        for actual, expected in zip(
            _sum_gradients(case.ours(**kwargs), [kwargs[n] for n in names]),
            _sum_gradients(case.reference(**wide), [wide[n] for n in names]),
            strict=True,
        ):
            _assert_same_infinities(actual, expected, name)
            if math.isnan(value):
                assert torch.equal(actual.isnan(), expected.isnan()), name
            mask = torch.ones(6, 83, dtype=torch.bool)
            mask[4, 77] = False
            assert actual[mask].isfinite().all(), name


def _assert_same_infinities(actual: Tensor, expected: Tensor, name: str) -> None:
    """Of one sign, where neither is NaN: that is what inf - inf and inf * 0 in one of the two expressions give."""
    neither = ~(actual.isnan() | expected.isnan())
    for is_infinite in (torch.isposinf, torch.isneginf):
        assert torch.equal(is_infinite(actual) & neither, is_infinite(expected) & neither), name


def _with_value(case: Case, name: str, value: float) -> dict[str, Any]:
    kwargs = case.make()
    kwargs[name][4, 77] = value
    for differentiable in case.differentiable:
        kwargs[differentiable].requires_grad_()
    return kwargs


def _sum_gradients(outputs: Any, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad([output.sum() for output in as_tuple(outputs)], inputs)
