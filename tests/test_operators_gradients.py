"""Gradients: checked numerically to second order, given only where wanted, from any cotangent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import vae_ext
from tests.cases import LOCATION_SCALE, NOISY, SAMPLERS, Case, as_tuple, case_of, cotangents, select, widen

pytestmark = pytest.mark.usefixtures("poisoned_memory")

GRADCHECK_CASES = select(gradcheck=True)
WANTED_CASES = [
    Case("bernoulli_log_prob", {"logits": (3, 5, 33), "x": (5, 33)}),
    Case("normal_log_prob", {"mean": (3, 5, 33), "scale": (33,), "x": (5, 33)}),
    Case("normal_log_prob", {"mean": (5, 33), "scale": (), "x": (5, 33)}, "std"),
    *(
        Case(
            operator,
            {"mean": (5, 33), "scale": (5, 33), "prior_mean": (5, 33), "prior_scale": (33,)},
            num_samples=None if operator == "normal_kl" else num_samples,
        )
        for operator in ("normal_kl", "normal_rsample_kl", "normal_rsample_log_ratio")
        for num_samples in (None, 2)
    ),
    case_of("normal_rsample", (5, 33)),
    case_of("normal_rsample", (5, 33), num_samples=2),
    case_of(LOCATION_SCALE, (5, 33)),
    Case(LOCATION_SCALE, {"mean": (5, 33), "scale": (33,)}, "std", num_samples=2),
]


@pytest.mark.parametrize("case", GRADCHECK_CASES, ids=lambda case: case.id)
def test_gradcheck(case: Case) -> None:
    function, inputs = case.as_function()
    assert gradcheck(function, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("case", GRADCHECK_CASES, ids=lambda case: case.id)
def test_gradgradcheck(case: Case) -> None:
    function, inputs = case.as_function()
    assert gradgradcheck(function, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", WANTED_CASES, ids=lambda case: case.id)
def test_second_derivatives_are_close_in_low_precision(case: Case, dtype: torch.dtype) -> None:
    kwargs = case.make(dtype=dtype, requires_grad=True)
    wide = widen(kwargs)
    actual = _gradients_of_gradients(case, case.ours, kwargs, dtype)
    expected = _gradients_of_gradients(case, case.reference, wide, dtype)
    for name, first, second in zip(case.differentiable, actual, expected, strict=True):
        if second is None:
            assert first is None or not first.any(), name
            continue
        # Beside the largest element. To bfloat16 each gradient is rounded, each of up to four contributions to a second
        # derivative, and each of their three sums, by half an eps; float32 also in each of the dozen operations before.
        tolerance = (16 if dtype == torch.float32 else 4) * torch.finfo(dtype).eps
        assert first is not None, name
        error = (first.double() - second).abs().max().item()
        assert error <= tolerance * second.abs().max().item(), name


def _gradients_of_gradients(
    case: Case, operator: Any, kwargs: dict[str, Any], dtype: torch.dtype
) -> tuple[Tensor | None, ...]:
    outputs = as_tuple(operator(**kwargs))
    inputs = [kwargs[name] for name in case.differentiable]
    # Weights that are the same numbers whichever dtype the outputs are in.
    weights = tuple(
        weight.to(dtype).to(output.dtype)
        for weight, output in zip(cotangents(tuple(output.double() for output in outputs)), outputs, strict=True)
    )
    gradients = torch.autograd.grad(outputs, inputs, weights, create_graph=True)
    squares = [gradient.double().square().sum() for gradient in gradients if gradient.requires_grad]
    if not squares:
        return (None,) * len(inputs)
    return torch.autograd.grad(torch.stack(squares).sum(), inputs, allow_unused=True)


@pytest.mark.parametrize("case", WANTED_CASES, ids=lambda case: case.id)
def test_gradients_are_given_only_where_wanted(case: Case) -> None:
    kwargs = case.make(requires_grad=True)
    outputs = as_tuple(case.ours(**kwargs))
    grads = cotangents(outputs)
    together = torch.autograd.grad(outputs, [kwargs[name] for name in case.differentiable], grads)
    for name, expected in zip(case.differentiable, together, strict=True):
        alone = case.make()
        alone[name].requires_grad_()
        outputs = as_tuple(case.ours(**alone))
        wanting = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
        torch.autograd.backward([output for output, _ in wanting], [grad for _, grad in wanting])
        assert torch.equal(alone[name].grad, expected), name
        assert all(alone[other].grad is None for other in case.differentiable if other != name)


@pytest.mark.parametrize("case", WANTED_CASES, ids=lambda case: case.id)
def test_nothing_requires_grad_where_no_input_does(case: Case) -> None:
    assert not any(output.requires_grad for output in as_tuple(case.ours(**case.make())))
    with torch.no_grad():
        assert not any(output.requires_grad for output in as_tuple(case.ours(**case.make(requires_grad=True))))


@pytest.mark.parametrize("num_samples", [None, 3])
def test_samples_do_not_depend_on_the_prior(num_samples: int | None) -> None:
    mean, log_var, prior_mean = torch.randn(3, 4, 5).unbind()
    z, kl = vae_ext.normal_rsample_kl(mean, log_var, num_samples, prior_mean=prior_mean.requires_grad_())
    assert kl.requires_grad
    if z.requires_grad:
        z.sum().backward()
        assert prior_mean.grad is None or not prior_mean.grad.any()


@pytest.mark.parametrize("num_samples", [None, 2])
@pytest.mark.parametrize("operator", SAMPLERS[1:])
@pytest.mark.parametrize("used", [0, 1])
def test_one_of_two_outputs_can_go_unused(operator: str, used: int, num_samples: int | None) -> None:
    case = case_of(operator, (5, 33), num_samples=num_samples)
    kwargs = case.make(requires_grad=True)
    inputs = [kwargs[name] for name in case.differentiable]
    outputs = as_tuple(case.ours(**kwargs))
    grads = [torch.zeros_like(output) for output in outputs]
    grads[used] = cotangents(outputs)[used]
    expected = torch.autograd.grad(outputs, inputs, grads, retain_graph=True)
    actual = torch.autograd.grad(outputs[used], inputs, grads[used])
    for first, second in zip(actual, expected, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", WANTED_CASES, ids=lambda case: case.id)
def test_cotangents_may_have_any_strides(case: Case) -> None:
    kwargs = case.make(requires_grad=True)
    inputs = [kwargs[name] for name in case.differentiable]
    outputs = as_tuple(case.ours(**kwargs))
    for grads in (
        tuple(torch.full((), 0.75, dtype=output.dtype).expand(output.shape) for output in outputs),
        tuple(torch.stack([grad, grad], -1)[..., 0] for grad in cotangents(outputs)),
        tuple(grad.flip(0).transpose(0, -1).contiguous().transpose(0, -1) for grad in cotangents(outputs)),
    ):
        actual = torch.autograd.grad(outputs, inputs, grads, retain_graph=True)
        dense = tuple(grad.contiguous() for grad in grads)
        expected = torch.autograd.grad(outputs, inputs, dense, retain_graph=True)
        assert all(torch.equal(first, second) for first, second in zip(actual, expected, strict=True))


def test_gradient_of_mean_is_the_gradient_of_z_itself() -> None:
    mean, log_var = torch.randn(2, 6, 20).unbind()
    grad = torch.randn(6, 20)
    z = vae_ext.normal_rsample(mean.requires_grad_(), log_var.requires_grad_())
    (mean_grad, _) = torch.autograd.grad(z, (mean, log_var), grad)
    assert mean_grad.data_ptr() == grad.data_ptr()


@pytest.mark.parametrize("operator", NOISY)
def test_backward_replays_the_noise_of_forward(operator: str) -> None:
    """At a scale of one, the gradient that sum(z) sends to its logarithm is epsilon."""
    case = case_of(operator, (5, 33), scale_kind="log_std", num_samples=2, first_row=7, stream=1)
    kwargs = case.make(requires_grad=True)
    log_std = kwargs[case.argument("scale")]
    with torch.no_grad():
        log_std.zero_()
    epsilon = case.epsilon(**kwargs)
    z = as_tuple(case.ours(**kwargs))[0]
    for sample in range(2):
        (gradient,) = torch.autograd.grad(z[sample].sum(), log_std, retain_graph=True)
        assert torch.equal(gradient, epsilon[sample])


def test_log_ratio_gradient_is_that_of_estimator_a() -> None:
    """log q(z given x) has no gradient towards the mean, and -1/2 per element towards log_var."""
    case = case_of("normal_rsample_log_ratio", (4, 6))
    kwargs = case.make(dtype=torch.float64, requires_grad=True)
    z, log_ratio = as_tuple(case.ours(**kwargs))
    mean_grad, log_var_grad = torch.autograd.grad(log_ratio.sum(), (kwargs["mean"], kwargs["log_var"]))
    torch.testing.assert_close(mean_grad, -z)
    torch.testing.assert_close(log_var_grad, 0.5 - 0.5 * z * (z - kwargs["mean"]))


@pytest.mark.parametrize("case", select(values="ordinary", layout="contiguous"), ids=lambda case: case.id)
def test_gradients_that_can_be_differentiated_are_the_same(case: Case) -> None:
    """With `create_graph` they are expressions of whole tensors, without it kernels."""
    kwargs = case.make(dtype=torch.float64, requires_grad=True)
    names = [name for name in case.differentiable if kwargs[name].requires_grad]
    outputs = as_tuple(case.ours(**kwargs))
    grads, inputs = cotangents(outputs), [kwargs[name] for name in names]
    fused = torch.autograd.grad(outputs, inputs, grads, retain_graph=True)
    expressed = torch.autograd.grad(outputs, inputs, grads, create_graph=True)
    for name, first, second in zip(names, fused, expressed, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("rows", [512, 513, 2**18, 2**18 + 1, 300_001])
def test_one_row_broadcast_over_very_many(rows: int) -> None:
    """Their sum is one of chunks, and of chunks of chunks; these addends leave it exact."""
    mean = torch.zeros(3, requires_grad=True)
    log_likelihood = vae_ext.normal_log_prob(mean, std=1.0, x=torch.tensor([1.0, 0.5, -2.0]).expand(rows, 3))
    log_likelihood.sum().backward()
    assert mean.grad is not None
    assert torch.equal(mean.grad, rows * torch.tensor([1.0, 0.5, -2.0]))


@pytest.mark.parametrize("case", WANTED_CASES, ids=lambda case: case.id)
def test_batched_gradients(case: Case) -> None:
    kwargs = case.make(dtype=torch.float64, requires_grad=True)
    outputs = as_tuple(case.ours(**kwargs))
    inputs = [kwargs[name] for name in case.differentiable]
    several = [cotangents(outputs, seed) for seed in (1, 2, 3)]
    stacked = tuple(torch.stack(grads) for grads in zip(*several, strict=True))
    batched = torch.autograd.grad(outputs, inputs, stacked, is_grads_batched=True, retain_graph=True)
    for index, grads in enumerate(several):
        single = torch.autograd.grad(outputs, inputs, grads, retain_graph=True)
        for together, alone in zip(batched, single, strict=True):
            torch.testing.assert_close(together[index], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("operator", SAMPLERS[1:])
@pytest.mark.parametrize("output", [0, 1])
def test_gradients_through_one_output_alone(operator: str, output: int) -> None:
    case = Case(operator, {"mean": (5, 33), "scale": (5, 33), "prior_mean": (33,)}, num_samples=2)
    kwargs = case.make(dtype=torch.float64, requires_grad=True)
    inputs = [kwargs[name] for name in case.differentiable]
    grad = cotangents(as_tuple(case.ours(**kwargs)))[output]
    pairs = [
        torch.autograd.grad(as_tuple(function(**kwargs))[output], inputs, grad, allow_unused=True)
        for function in (case.ours, case.reference)
    ]
    for ours, reference in zip(*pairs, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(
            zero.double() if ours is None or not ours.any() else ours,
            zero.double() if reference is None or not reference.any() else reference,
        )
