"""Shapes, strides, broadcasting, empty tensors, autocast."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vae_ext
from tests.cases import (
    LOCATION_SCALE,
    NOISY,
    OPERATORS,
    ROLES,
    Case,
    Shape,
    as_tuple,
    case_of,
    cotangents,
    select,
)
from vae_ext.arguments import ScaleKind

pytestmark = pytest.mark.usefixtures("poisoned_memory")

AUTOCAST_CASES = [case_of(operator, (4, 5)) for operator in OPERATORS]
EMPTY_CASES = [
    case_of(operator, shape, num_samples=num_samples)
    for operator in OPERATORS
    for shape in ((0, 7), (5, 0), (0, 0), (2, 0, 3), (0,))
    for num_samples in ((None, 3) if operator in NOISY else (None,))
]


def _gradients(case: Case, kwargs: dict[str, Any], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    inputs = [kwargs[name] for name in case.differentiable]
    return torch.autograd.grad(outputs, inputs, cotangents(outputs)) if inputs else ()


def _assert_same(case: Case, first: dict[str, Any], second: dict[str, Any]) -> None:
    """Both calls give the same bits, in values and gradients."""
    first_outputs, second_outputs = as_tuple(case.ours(**first)), as_tuple(case.ours(**second))
    for actual, expected in zip(
        (*first_outputs, *_gradients(case, first, first_outputs)),
        (*second_outputs, *_gradients(case, second, second_outputs)),
        strict=True,
    ):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [c for c in select() if c.layout != "contiguous"], ids=lambda case: case.id)
def test_strides_change_nothing(case: Case, dtype: torch.dtype) -> None:
    strided = case.make(dtype=dtype, requires_grad=True)
    dense = {
        name: value.detach().clone(memory_format=torch.contiguous_format).requires_grad_(value.requires_grad)
        if isinstance(value, Tensor)
        else value
        for name, value in strided.items()
    }
    assert any(isinstance(value, Tensor) and not value.is_contiguous() for value in strided.values())
    _assert_same(case, strided, dense)


@pytest.mark.parametrize("event", [(20,), (6, 4, 4)])
@pytest.mark.parametrize("operator", ["normal_kl", *NOISY])
def test_halves_of_one_encoder_output(operator: str, event: tuple[int, ...]) -> None:
    """Their gradients meet again in the encoder's output."""
    case = case_of(operator, (7, *event))
    encoded = torch.randn(7, 2 * event[0], *event[1:]).requires_grad_()
    kwargs = case.make() | dict(zip(case.differentiable, encoded.chunk(2, 1), strict=True))
    outputs = as_tuple(case.ours(**kwargs))
    (actual,) = torch.autograd.grad(outputs, encoded, cotangents(outputs))

    dense = kwargs | {name: kwargs[name].detach().contiguous().requires_grad_() for name in case.differentiable}
    dense_outputs = as_tuple(case.ours(**dense))
    for first, second in zip(outputs, dense_outputs, strict=True):
        assert torch.equal(first, second)
    assert torch.equal(actual, torch.cat(_gradients(case, dense, dense_outputs), 1))


@pytest.mark.parametrize(
    "case", [c for c in select() if not c.gradcheck and c.values == "ordinary"], ids=lambda case: case.id
)
def test_output_shapes(case: Case) -> None:
    outputs = as_tuple(case.ours(**case.make()))
    assert [output.shape for output in outputs] == _output_shapes(case)
    assert all(output.is_contiguous() for output in outputs)


def _output_shapes(case: Case) -> list[Shape]:
    shapes = [shape or () for shape in case.shapes.values()]
    full = torch.broadcast_shapes(*shapes)
    batch = tuple(full[: len(full) - case.resolved_event_ndim])
    samples = () if case.num_samples is None else (case.num_samples,)
    of_z = (*samples, *torch.broadcast_shapes(*[case.shapes.get(role) or () for role in ("mean", "scale")]))
    return {
        "normal_rsample": [of_z],
        LOCATION_SCALE: [of_z],
        "normal_rsample_kl": [of_z, batch],
        "normal_rsample_log_ratio": [of_z, (*samples, *batch)],
    }.get(case.operator, [batch])


def test_left_out_event_ndim_is_one_less_than_the_fewest_dims() -> None:
    x, logits = torch.rand(4, 5), torch.randn(3, 4, 5)
    assert vae_ext.bernoulli_log_prob(logits, x).shape == (3, 4)
    assert vae_ext.bernoulli_log_prob(logits, logits.sigmoid()).shape == (3,)
    assert vae_ext.bernoulli_log_prob(logits, logits.sigmoid(), event_ndim=1).shape == (3, 4)
    assert vae_ext.normal_log_prob(x, torch.zeros(5), logits).shape == (3, 4)
    assert vae_ext.normal_kl(logits, torch.zeros(5), event_ndim=1).shape == (3, 4)
    assert vae_ext.normal_kl(logits, torch.zeros(3, 4, 5)).shape == (3,)


@pytest.mark.parametrize("operator", OPERATORS)
def test_broadcasting_is_expanding(operator: str) -> None:
    """Broadcast operands give the values of expanded ones; their gradients are the sums of those."""
    event = (37,)
    shapes = {
        "bernoulli_log_prob": {"logits": (3, 1, *event), "x": (4, *event)},
        "normal_log_prob": {"mean": (3, 1, *event), "scale": event, "x": (4, *event)},
        "normal_kl": {"mean": (3, 1, *event), "scale": (4, *event), "prior_mean": event, "prior_scale": ()},
    }.get(operator, {"mean": (3, 1, *event), "scale": (4, *event)})
    case = Case(operator, shapes, event_ndim=1)
    kwargs = case.make(dtype=torch.float64, requires_grad=True)
    expanded = {
        name: value.detach().expand(3, 4, *event).clone().requires_grad_() if name in case.differentiable else value
        for name, value in kwargs.items()
    }
    outputs, expanded_outputs = as_tuple(case.ours(**kwargs)), as_tuple(case.ours(**expanded))
    for actual, expected in zip(outputs, expanded_outputs, strict=True):
        torch.testing.assert_close(actual, expected)
    for name, actual, expected in zip(
        case.differentiable,
        _gradients(case, kwargs, outputs),
        _gradients(case, expanded, expanded_outputs),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected.sum_to_size(kwargs[name].shape))


@pytest.mark.parametrize("case", EMPTY_CASES, ids=lambda case: case.id)
def test_empty_tensors(case: Case) -> None:
    """Samples have no elements, and sums of none are zero."""
    kwargs = case.make(requires_grad=True)
    outputs = as_tuple(case.ours(**kwargs))
    assert [output.shape for output in outputs] == _output_shapes(case)
    assert not any(output.any() for output in outputs)
    for name, gradient in zip(case.differentiable, _gradients(case, kwargs, outputs), strict=True):
        assert gradient.shape == kwargs[name].shape


@pytest.mark.parametrize("case", AUTOCAST_CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(case: Case, dtype: torch.dtype) -> None:
    kwargs = case.make(dtype=dtype, requires_grad=True)
    expected = as_tuple(case.ours(**kwargs))
    expected_gradients = _gradients(case, kwargs, expected)
    with torch.autocast(torch.get_default_device().type, dtype=torch.bfloat16):
        actual = as_tuple(case.ours(**kwargs))
        actual_gradients = _gradients(case, kwargs, actual)
    for first, second in zip((*actual, *actual_gradients), (*expected, *expected_gradients), strict=True):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)


@pytest.mark.parametrize("operator", [operator for operator, roles in ROLES.items() if "scale" in roles])
@pytest.mark.parametrize(("kind", "value"), [("log_var", -0.5), ("log_std", 0.25), ("std", 0.5), ("var", 2)])
def test_a_number_for_a_scale_is_a_scalar_tensor(operator: str, kind: ScaleKind, value: float) -> None:
    case = case_of(operator, (4, 35), scale_kind=kind)
    kwargs, name = case.make(), case.argument("scale")
    of_number, of_tensor = (
        as_tuple(case.ours(**kwargs | {name: scale})) for scale in (value, torch.tensor(float(value)))
    )
    assert all(torch.equal(first, second) for first, second in zip(of_number, of_tensor, strict=True))


@pytest.mark.parametrize("operator", OPERATORS)
def test_inputs_are_left_as_they_were(operator: str) -> None:
    case = select(operator, gradcheck=False, layout="contiguous", values="ordinary")[4]
    kwargs = case.make(requires_grad=True)
    before = {name: value.detach().clone() for name, value in kwargs.items() if isinstance(value, Tensor)}
    outputs = as_tuple(case.ours(**kwargs))
    _gradients(case, kwargs, outputs)
    assert all(torch.equal(kwargs[name], value) for name, value in before.items())


@pytest.mark.parametrize("operator", NOISY)
@pytest.mark.parametrize("num_samples", [None, 2])
@pytest.mark.parametrize("shape", [(1, 0), (1,)])
def test_an_empty_event_that_is_expanded(operator: str, num_samples: int | None, shape: tuple[int, ...]) -> None:
    empty = torch.zeros(shape).expand(3, 0).requires_grad_()
    case = case_of(operator, (3, 0), num_samples=num_samples)
    outputs = as_tuple(case.ours(**case.make() | dict.fromkeys(case.differentiable, empty)))
    assert outputs[0].shape == ((3, 0) if num_samples is None else (2, 3, 0))
    assert all(not output.any() for output in outputs)
    torch.stack([output.sum() for output in outputs]).sum().backward()


@pytest.mark.parametrize("operator", ["normal_kl", "bernoulli_log_prob", "normal_log_prob"])
def test_sums_over_an_empty_event_that_is_expanded(operator: str) -> None:
    empty = torch.zeros(1).expand(3, 0).requires_grad_()
    arguments = [empty] * (3 if operator == "normal_log_prob" else 2)
    result = getattr(vae_ext, operator)(*arguments)
    assert torch.equal(result, torch.zeros(3))
    result.sum().backward()


def test_one_number_for_every_event_is_not_written_out() -> None:
    """The gradient of a sum is one number, expanded: as large as z, and of no size in memory."""
    mean, log_var = (torch.randn(4096, 64, requires_grad=True) for _ in range(2))
    z = vae_ext.normal_rsample(mean, log_var)
    expected = torch.autograd.grad(z, log_var, torch.full_like(z, 2.0), retain_graph=True)
    actual = torch.autograd.grad(z, log_var, torch.tensor(2.0).expand_as(z))
    assert torch.equal(actual[0], expected[0])
