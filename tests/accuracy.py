"""The accuracy rule for values and gradients: `err <= max(2 * eager's error, 4 eps * sum of |terms|)`.

The terms are those of the operator's formula as written; a gradient's terms are the derivatives of each of
them. The eager error is taken relative to the terms and over the whole tensor, so that an element which eager
happens to get right by luck does not tighten the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tests.cases import LOCATION_SCALE, Case, Result, as_tuple, cotangents, widen
from vae_ext.arguments import ScaleKind

# What a float64 oracle, with errors of its own, can vouch for in float64.
FLOAT64_EPS_FACTOR = 64


def check(case: Case, kwargs: dict[str, Any]) -> None:
    """Assert the rule for every output and every gradient of `case` at these arguments."""
    noise = {"epsilon": case.epsilon(**kwargs)} if case.is_sampler else {}
    wide = widen(kwargs)
    actual, baseline = as_tuple(case.ours(**kwargs)), as_tuple(case.reference(**kwargs, **noise))
    oracle = as_tuple(case.reference(**wide, **noise))
    grads = cotangents(actual)

    values, gradients = _magnitudes(case, wide, noise.get("epsilon"), grads)
    for index, magnitude in enumerate(values):
        expected, expected_of_baseline = oracle[index], oracle[index]
        if case.operator == "normal_rsample_log_ratio" and index == 1:
            expected, magnitude = log_ratio_of(case, wide, actual[0])
            expected_of_baseline, _ = log_ratio_of(case, wide, baseline[0])
        _assert_accurate(f"output {index}", actual[index], expected, baseline[index], expected_of_baseline, magnitude)

    names = [name for name in case.differentiable if kwargs[name].requires_grad]
    if not names:
        return
    actual_gradients = _gradients(actual, kwargs, names, grads)
    baseline_gradients = _gradients(baseline, kwargs, names, grads)
    oracle_gradients = _gradients(oracle, wide, names, tuple(grad.double() for grad in grads))
    for index, name in enumerate(names):
        expected = oracle_gradients[index]
        _assert_accurate(
            f"gradient of {name}",
            actual_gradients[index],
            expected,
            baseline_gradients[index],
            expected,
            gradients[name],
        )


def worst_errors(
    case: Case, kwargs: dict[str, Any], functions: Mapping[str, Callable[[], Result]]
) -> dict[str, tuple[float, float]]:
    """The largest error of each function's outputs, and of its gradients, relative to the sums of |terms|.

    Each function computes `case` at `kwargs`, the fused operator's arguments, with the same noise. What is lost to
    underflow is no error.
    """
    noise = {"epsilon": case.epsilon(**kwargs)} if case.is_sampler else {}
    wide = widen(kwargs)
    oracle = as_tuple(case.reference(**wide, **noise))
    grads = cotangents(as_tuple(case.ours(**kwargs)))
    magnitudes, gradient_magnitudes = _magnitudes(case, wide, noise.get("epsilon"), grads)
    names = [name for name in case.differentiable if kwargs[name].requires_grad]
    expected_gradients = _gradients(oracle, wide, names, tuple(grad.double() for grad in grads))

    def worst(outputs: tuple[Tensor, ...]) -> tuple[float, float]:
        expected, of_terms = list(oracle), list(magnitudes)
        if case.operator == "normal_rsample_log_ratio":
            expected[1], of_terms[1] = log_ratio_of(case, wide, outputs[0])
        gradients = _gradients(outputs, kwargs, names, grads)
        return (
            max(map(_relative_error, outputs, expected, of_terms)),
            max(map(_relative_error, gradients, expected_gradients, [gradient_magnitudes[name] for name in names])),
        )

    return {name: worst(as_tuple(function())) for name, function in functions.items()}


def _relative_error(actual: Tensor, expected: Tensor, magnitude: Tensor) -> float:
    error = (_error(actual, expected) - _underflow(actual.dtype)).clamp(min=0)
    return torch.where(error > 0, error / magnitude, 0.0).max().item()


def _gradients(
    outputs: tuple[Tensor, ...], kwargs: dict[str, Any], names: list[str], grads: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(outputs, [kwargs[name] for name in names], grads)


def _assert_accurate(
    what: str,
    actual: Tensor,
    expected: Tensor,
    baseline: Tensor,
    expected_of_baseline: Tensor,
    magnitude: Tensor,
) -> None:
    assert actual.shape == expected.shape, what
    error = _error(actual, expected)
    baseline_error = _error(baseline, expected_of_baseline)
    eps = torch.finfo(actual.dtype).eps
    relative = torch.where(magnitude > 0, baseline_error / magnitude, 0.0)
    relative = torch.where(relative.isfinite(), relative, 0.0)
    worst = relative.max().item() if relative.numel() else 0.0
    factor = FLOAT64_EPS_FACTOR if actual.dtype == torch.float64 else 4
    allowed = torch.maximum(max(2 * worst, factor * eps) * magnitude, 2 * baseline_error) + _underflow(actual.dtype)
    # Where eager overflows too, any number is allowed but NaN.
    excess = (error > allowed) | (actual.isnan() & ~expected.isnan() & ~baseline.isnan())
    if excess.any():
        at = tuple(excess.nonzero()[0].tolist())
        raise AssertionError(
            f"{what}: {int(excess.sum())} of {excess.numel()} elements are too far off; at {at}"
            f" {actual[at].item():.9g}, expected {expected[at].item():.9g}: error {error[at].item():.3g},"
            f" allowed {allowed[at].item():.3g}, eager's {baseline_error[at].item():.3g}"
        )


def _error(actual: Tensor, expected: Tensor) -> Tensor:
    """|actual - expected|; none where both overflow alike, infinite where only one is NaN."""
    actual, expected = actual.detach().double(), expected.detach().double()
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    return torch.where(same, 0.0, (actual - expected).abs().nan_to_num(nan=math.inf, posinf=math.inf))


def _underflow(dtype: torch.dtype) -> float:
    """What may be lost below the normal numbers of `dtype`, and of the float32 it was computed in."""
    if dtype == torch.float64:
        return torch.finfo(dtype).tiny
    return max(torch.finfo(torch.float32).tiny, torch.finfo(dtype).tiny * torch.finfo(dtype).eps)


def _magnitudes(
    case: Case, wide: dict[str, Any], epsilon: Tensor | None, grads: tuple[Tensor, ...]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The sums of |terms| of each output, and of each gradient."""
    values: list[Tensor] = []
    gradients = {name: torch.zeros_like(wide[name]) for name in case.differentiable}
    event_ndim = case.resolved_event_ndim
    for index, grad in enumerate(grads):
        sampled = case.operator != "normal_kl" and (case.operator, index) != ("normal_rsample_kl", 1)
        inputs = _expanded_inputs(case, wide, epsilon if sampled else None)
        terms = [term.expand(_full_shape(inputs)) for term in _terms(case, index, inputs, epsilon)]
        is_z = case.is_sampler and index == 0
        total = torch.stack([term.detach().abs() for term in terms]).sum(0)
        values.append(total if is_z else _sum_event(total, event_ndim))
        weight = grad.double() if is_z else grad.double().reshape(*grad.shape, *(1,) * event_ndim)
        for term in terms:
            if not term.requires_grad:
                continue
            names = [name for name in gradients if inputs[name].requires_grad]
            derivatives = torch.autograd.grad(
                term,
                [inputs[name] for name in names],
                weight.expand(term.shape),
                allow_unused=True,
                retain_graph=True,
            )
            for name, derivative in zip(names, derivatives, strict=True):
                if derivative is not None:
                    gradients[name] += derivative.abs().sum_to_size(wide[name].shape)
    return values, gradients


def _expanded_inputs(case: Case, wide: dict[str, Any], epsilon: Tensor | None) -> dict[str, Any]:
    """Every argument as a leaf of the full shape, so that nothing cancels where gradients are summed."""
    tensors = {
        name: torch.as_tensor(wide[name], dtype=torch.float64).detach()
        for name in (case.argument(role) for role in case.shapes)
    }
    shapes = [tensor.shape for tensor in tensors.values()]
    shape = torch.broadcast_shapes(*shapes, *([] if epsilon is None else [epsilon.shape]))
    return {
        name: tensor.expand(shape).clone().requires_grad_(name in case.differentiable)
        for name, tensor in tensors.items()
    }


def _full_shape(inputs: dict[str, Any]) -> torch.Size:
    shape: torch.Size = next(iter(inputs.values())).shape
    return shape


def _terms(case: Case, index: int, inputs: dict[str, Tensor], epsilon: Tensor | None) -> list[Tensor]:
    """The terms of output `index`, element by element."""
    if case.operator == "bernoulli_log_prob":
        logits, x = inputs["logits"], inputs["x"]
        return [x * logits, -logits.relu(), -(-logits.abs()).exp().log1p()]

    if case.operator == LOCATION_SCALE:
        assert epsilon is not None
        name = case.argument("scale")
        scale = inputs[name].exp() if name == "log_scale" else inputs[name]
        return [inputs["loc"], scale * epsilon.double()]

    mean, log_var = inputs["mean"], _log_var(inputs[case.scale_kind], case.scale_kind)
    if case.operator == "normal_log_prob":
        constant = torch.full_like(mean, -0.5 * math.log(2 * math.pi))
        return [constant, -0.5 * log_var, -0.5 * (inputs["x"] - mean).square() * (-log_var).exp()]

    prior_mean = inputs.get("prior_mean", torch.zeros_like(mean))
    prior_scale = inputs.get(case.argument("prior_scale"))
    prior_log_var = torch.zeros_like(mean) if prior_scale is None else _log_var(prior_scale, case.scale_kind)
    if case.operator == "normal_kl" or (case.operator, index) == ("normal_rsample_kl", 1):
        log_ratio = log_var - prior_log_var
        squared_error = (mean - prior_mean).square() * (-prior_log_var).exp()
        return [0.5 * log_ratio.expm1(), -0.5 * log_var, 0.5 * prior_log_var, 0.5 * squared_error]

    assert epsilon is not None
    deviation = (0.5 * log_var).exp() * epsilon.double()
    if index == 0:
        return [mean, deviation]
    parts, half_precision = [mean, deviation, -prior_mean], 0.5 * (-prior_log_var).exp()
    products = [-half_precision * first * second for first in parts for second in parts]
    return [0.5 * log_var, -0.5 * prior_log_var, *products]


def log_ratio_of(case: Case, wide: dict[str, Any], z: Tensor) -> tuple[Tensor, Tensor]:
    """log p(z) - log q(z given x) of this very z, and the sum of its |terms|."""
    z = z.detach().double()
    mean, scale = wide["mean"].detach(), torch.as_tensor(wide[case.scale_kind], dtype=torch.float64).detach()
    prior_mean = torch.as_tensor(wide.get("prior_mean", 0.0), dtype=torch.float64).detach()
    log_var, prior_log_var = _log_var(scale, case.scale_kind), torch.zeros((), dtype=torch.float64)
    prior_name = case.argument("prior_scale")
    if prior_name in wide:
        prior_log_var = _log_var(torch.as_tensor(wide[prior_name], dtype=torch.float64).detach(), case.scale_kind)
    terms = [
        0.5 * log_var,
        -0.5 * prior_log_var,
        0.5 * (z - mean).square() * (-log_var).exp(),
        -0.5 * (z - prior_mean).square() * (-prior_log_var).exp(),
    ]
    terms = list(torch.broadcast_tensors(*terms))
    event_ndim = case.resolved_event_ndim
    return _sum_event(sum(terms), event_ndim), _sum_event(sum(term.abs() for term in terms), event_ndim)


def _log_var(scale: Tensor, kind: ScaleKind) -> Tensor:
    if kind == "log_var":
        return scale
    if kind == "log_std":
        return 2 * scale
    return 2 * scale.log() if kind == "std" else scale.log()


def _sum_event(terms: Any, event_ndim: int) -> Tensor:
    total: Tensor = terms.sum(tuple(range(-event_ndim, 0))) if event_ndim else terms
    return total
