"""Random shapes, strides and bad arguments: the operators agree with the eager ones, or say what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import vae_ext
from tests.accuracy import log_ratio_of
from tests.cases import LOCATION_SCALE, NOISY, OPERATORS, ROLES, SCALE_KINDS, Case, as_tuple, case_of, cotangents, widen
from tests.messages import names
from vae_ext.arguments import STANDARDS

pytestmark = pytest.mark.usefixtures("poisoned_memory")

sizes = st.integers(0, 5) | st.sampled_from([16, 17, 33, 65, 130])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A call whose batch dims broadcast and whose event dims agree."""
    operator = draw(st.sampled_from(OPERATORS))
    event = tuple(draw(st.lists(sizes, max_size=2)))
    batch = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    shapes: dict[str, tuple[int, ...] | None] = {}
    for role in ROLES[operator]:
        if role.startswith("prior") and draw(st.booleans()):
            continue
        choices = ["full", "broadcast"]
        choices += ["event", "scalar", "float"] if "scale" in role else ["event"] if role == "prior_mean" else []
        shape = draw(st.sampled_from(choices))
        if shape == "full" or role in ("mean", "logits"):
            shapes[role] = (*batch, *event)
        elif shape == "broadcast":
            kept = batch[draw(st.integers(0, len(batch) - 1)) :]
            shapes[role] = (*(size if draw(st.booleans()) else 1 for size in kept), *event)
        else:
            shapes[role] = {"event": event, "scalar": (), "float": None}[shape]
    sampler = operator in NOISY
    return Case(
        operator,
        shapes,
        scale_kind=draw(st.sampled_from(SCALE_KINDS)),
        standard=draw(st.sampled_from(STANDARDS)) if operator == LOCATION_SCALE else "laplace",
        num_samples=draw(st.none() | st.integers(1, 3)) if sampler else None,
        event_ndim=len(event),
        first_row=draw(st.integers(0, 2**31)) if sampler else 0,
        stream=draw(st.integers(0, 3)) if sampler else 0,
    )


@st.composite
def same_values_in_other_strides(draw: st.DrawFn, tensor: Tensor) -> Tensor:
    """The tensor as a view of a larger one: permuted, stepped, and not from its beginning."""
    order = draw(st.permutations(range(tensor.dim())))
    steps = [draw(st.sampled_from([1, 1, 2, 3])) for _ in order]
    starts = [draw(st.integers(0, 2)) for _ in order]
    permuted = tensor.permute(order)
    room = [start + size * step for start, size, step in zip(starts, permuted.shape, steps, strict=True)]
    larger = torch.full(room, 7, dtype=tensor.dtype)
    view = larger[tuple(slice(start, None, step) for start, step in zip(starts, steps, strict=True))]
    view.copy_(permuted)
    inverse = [order.index(dim) for dim in range(tensor.dim())]
    return view.permute(inverse)


@given(st.data())
def test_any_shapes_and_strides_agree_with_eager(data: st.DataObject) -> None:
    case = data.draw(cases())
    kwargs = case.make(dtype=data.draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16])))
    for name in case.differentiable:
        kwargs[name] = data.draw(same_values_in_other_strides(kwargs[name]))
        kwargs[name].requires_grad_(data.draw(st.booleans()))
    wide = widen(kwargs)
    outputs, expected = as_tuple(case.ours(**kwargs)), as_tuple(case.reference(**wide))
    values = list(expected)
    if case.operator == "normal_rsample_log_ratio":  # which is of z as it was rounded, and the oracle's z is not
        values[1], _ = log_ratio_of(case, wide, outputs[0])
    for actual, wanted in zip(outputs, values, strict=True):
        _assert_close(actual, wanted, actual.dtype)

    names = [name for name in case.differentiable if kwargs[name].requires_grad]
    if not any(output.requires_grad for output in outputs):
        return
    grads = cotangents(outputs)
    actual_gradients = _gradients(outputs, [kwargs[name] for name in names], grads)
    expected_gradients = _gradients(expected, [wide[name] for name in names], tuple(g.double() for g in grads))
    for name, first, second in zip(names, actual_gradients, expected_gradients, strict=True):
        if first is None or second is None:
            assert first is None or not first.any()
            assert second is None or not second.any()
            continue
        assert first.shape == kwargs[name].shape
        _assert_close(first, second, kwargs[name].dtype)


def _assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Close beside the largest element; the accuracy rule itself is tested elsewhere."""
    assert actual.shape == expected.shape
    if not expected.numel():
        return
    tolerance = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 4e-2}[dtype]
    error = (actual.detach().double() - expected.detach()).abs().max().item()
    assert error <= tolerance * (1 + expected.detach().abs().max().item())


def _gradients(outputs: tuple[Tensor, ...], inputs: list[Tensor], grads: tuple[Tensor, ...]) -> Any:
    wanting = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
    return torch.autograd.grad(
        [output for output, _ in wanting], inputs, [grad for _, grad in wanting], allow_unused=True
    )


junk = st.one_of(
    st.sampled_from([None, "1", 1.5, -1, 2**40, 2**70, [], {}, object(), True, float("nan"), torch.int32]),
    st.sampled_from(
        [
            torch.ones(()),
            torch.ones(3),
            torch.ones(4, 6),
            torch.ones(2, 4, 5),
            torch.ones(4, 5, dtype=torch.int64),
            torch.ones(4, 5, dtype=torch.float64),
            torch.ones(4, 5, dtype=torch.complex64),
            torch.ones(4, 5, device="meta"),
            torch.ones(4, 5).to_sparse(),
            torch.ones(0),
            torch.zeros(2, dtype=torch.int64),
        ]
    ),
)
ARGUMENTS = (
    *("mean", "logits", "x", *SCALE_KINDS, "prior_mean", *(f"prior_{kind}" for kind in SCALE_KINDS)),
    *("loc", "scale", "log_scale", "standard"),
    *("num_samples", "event_ndim", "rng_state", "generator", "first_row", "stream"),
)


@given(st.sampled_from(OPERATORS), st.dictionaries(st.sampled_from(ARGUMENTS), junk, min_size=1, max_size=2))
def test_bad_arguments_are_errors_that_name_one(operator: str, changes: dict[str, Any]) -> None:
    """Either the call is right after all, or its error is one of three kinds, and names an argument."""
    kwargs = case_of(operator, (4, 5)).make() | changes
    try:
        outputs = as_tuple(getattr(vae_ext, operator)(**kwargs))
    except (ValueError, TypeError, RuntimeError) as error:
        message = str(error)
        assert any(names(message, name) for name in kwargs), message
        assert "INTERNAL ASSERT" not in message
    else:
        assert all(isinstance(output, Tensor) for output in outputs)
