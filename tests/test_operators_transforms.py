"""opcheck, torch.compile, torch.export, torch.func and forward-mode AD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad, gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import vae_ext
from tests.cases import LOCATION_SCALE, NOISY, OPERATORS, Z_ALONE, Case, as_tuple, case_of, cotangents

OPCHECK_CASES = [
    Case("bernoulli_log_prob", {"logits": (3, 4, 5), "x": (4, 5)}),
    case_of("bernoulli_log_prob", (4, 5), x_dtype=torch.uint8),
    Case("normal_log_prob", {"mean": (4, 5), "scale": (5,), "x": (3, 4, 5)}, "std"),
    case_of("normal_kl", (4, 5)),
    Case("normal_kl", {"mean": (4, 5), "scale": (4, 5), "prior_mean": (5,), "prior_scale": ()}, "var"),
    case_of("normal_rsample", (4, 5)),
    Case("normal_rsample", {"mean": (4, 5), "scale": ()}, "log_std", num_samples=2),
    case_of(LOCATION_SCALE, (4, 5)),
    Case(LOCATION_SCALE, {"mean": (4, 5), "scale": ()}, "std", standard="cauchy", num_samples=2),
    case_of("normal_rsample_kl", (4, 5)),
    Case("normal_rsample_kl", {"mean": (4, 5), "scale": (4, 5), "prior_mean": (4, 5)}, num_samples=2),
    case_of("normal_rsample_log_ratio", (4, 5)),
    Case(
        "normal_rsample_log_ratio",
        {"mean": (4, 5), "scale": (4, 5), "prior_scale": (4, 5)},
        "std",
        num_samples=2,
    ),
]
FUNC_CASES = [
    case_of("bernoulli_log_prob", (4, 5)),
    case_of("normal_log_prob", (4, 5)),
    case_of("normal_kl", (4, 5), prior=True, scale_kind="std"),
    case_of("normal_rsample", (4, 5), num_samples=2),
    case_of(LOCATION_SCALE, (4, 5), scale_kind="std", standard="logistic", num_samples=2),
    case_of("normal_rsample_kl", (4, 5), first_row=3),
    case_of("normal_rsample_log_ratio", (4, 5), num_samples=2, stream=1),
]


class _CallRecorder(TorchDispatchMode):
    """Keeps the calls of vae_ext's own operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.namespace == "vae_ext":
            self.calls[str(func)] = (func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _recorded_calls(case: Case) -> Iterator[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """The native calls of the operator's forward and backward, with arguments that want gradients again."""
    with _CallRecorder() as recorder:
        outputs = as_tuple(case.ours(**case.make(requires_grad=True)))
        torch.autograd.backward(outputs, cotangents(outputs))
    for func, args, kwargs in recorder.calls.values():
        yield (
            func,
            tuple(map(_wanting_gradient, args)),
            {name: _wanting_gradient(v) for name, v in kwargs.items()},
        )


def _wanting_gradient(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.is_floating_point())
    return value


@pytest.mark.parametrize("case", OPCHECK_CASES, ids=lambda case: case.id)
def test_opcheck(case: Case) -> None:
    calls = list(_recorded_calls(case))
    assert calls
    for func, args, kwargs in calls:
        torch.library.opcheck(func, args, kwargs)


def _all_operators(encoded: Tensor, logits: Tensor, x: Tensor, rng_state: Tensor) -> tuple[Tensor, ...]:
    """Every operator once; the halves of one encoder output, a bound, and the gradient's inputs."""
    mean, log_var = encoded.chunk(2, -1)
    z, kl = vae_ext.normal_rsample_kl(mean, log_var, 2, rng_state=rng_state)
    z_a, log_ratio = vae_ext.normal_rsample_log_ratio(mean, std=(0.5 * log_var).exp(), rng_state=rng_state, stream=1)
    sample = vae_ext.normal_rsample(mean, log_var, rng_state=rng_state, first_row=5, stream=2)
    laplace = vae_ext.location_scale_rsample(mean, "laplace", log_scale=log_var, rng_state=rng_state, stream=3)
    bound = (
        vae_ext.bernoulli_log_prob(logits, x)
        + vae_ext.normal_log_prob(mean, 0.0, sample)
        - kl
        - vae_ext.normal_kl(mean, log_var, prior_mean=z_a.detach())
        + log_ratio
    )
    return z, z_a, sample, laplace, bound


def _arguments(batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator(torch.get_default_device()).manual_seed(batch)
    encoded = torch.randn(batch, 14, generator=generator).requires_grad_()
    logits = torch.randn(batch, 19, generator=generator).requires_grad_()
    x = torch.rand(batch, 19, generator=generator).round()
    return encoded, logits, x, vae_ext.make_rng_state(generator)


def _shared_parameters(mean: Tensor, event: Tensor, row: Tensor) -> list[Tensor]:
    """Samplers that draw their own state, with scales and priors that are not shaped like the mean."""
    return [
        vae_ext.normal_rsample(mean, event),
        vae_ext.normal_rsample(mean, row),
        vae_ext.location_scale_rsample(mean, "laplace", log_scale=event),
        vae_ext.location_scale_rsample(mean, "cauchy", log_scale=row),
        *vae_ext.normal_rsample_kl(mean, event, prior_mean=event),
        *vae_ext.normal_rsample_log_ratio(mean, row, prior_log_var=event),
    ]


def test_compile_with_dynamic_shapes_draws_for_shared_parameters() -> None:
    torch.compiler.reset()
    compiled = torch.compile(_shared_parameters, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, event in ((6, 5), (11, 7)):
        outputs = compiled(torch.randn(batch, event), torch.randn(event), torch.randn(1, event))
        assert outputs[0].shape == (batch, event)


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_a_dynamic_batch_draws_for_shared_parameters(strict: bool) -> None:
    class Model(torch.nn.Module):
        def forward(self, mean: Tensor, event: Tensor, row: Tensor) -> list[Tensor]:
            return _shared_parameters(mean, event, row)

    example = (torch.randn(8, 5), torch.randn(5), torch.randn(1, 5))
    batch = torch.export.Dim("batch")
    program = torch.export.export(Model(), example, dynamic_shapes=({0: batch}, None, None), strict=strict)
    assert program.module()(torch.randn(5, 5), *example[1:])[0].shape == (5, 5)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_with_dynamic_shapes(backend: str) -> None:
    torch.compiler.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(_all_operators, fullgraph=True, dynamic=True, backend=counter)
    for batch in (6, 11, 3):
        arguments = _arguments(batch)
        actual, expected = compiled(*arguments), _all_operators(*arguments)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(
            torch.autograd.grad([output.sum() for output in actual], arguments[:2]),
            torch.autograd.grad([output.sum() for output in expected], arguments[:2]),
        )
    assert counter.frame_count == 1


@pytest.mark.parametrize("operator", Z_ALONE)
def test_compiled_draws_differ_and_follow_the_seed(operator: str) -> None:
    torch.compiler.reset()
    ours = getattr(vae_ext, operator)
    kwargs = case_of(operator, (8, 5)).make()
    del kwargs["rng_state"]

    @torch.compile(fullgraph=True)
    def two_draws() -> tuple[Tensor, Tensor]:
        return ours(**kwargs), ours(**kwargs)

    torch.manual_seed(0)
    first, second = two_draws()
    third, _ = two_draws()
    assert not torch.equal(first, second)
    assert not torch.equal(first, third)
    torch.manual_seed(0)
    again, second_again = two_draws()
    assert torch.equal(first, again)
    assert torch.equal(second, second_again)


def test_compiled_draws_of_one_state_are_the_same() -> None:
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def two_draws(mean: Tensor, log_var: Tensor, rng_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = vae_ext.normal_rsample(mean, log_var, rng_state=rng_state)
        second, _ = vae_ext.normal_rsample_kl(mean, log_var, rng_state=rng_state)
        return first, second, vae_ext.normal_rsample(mean, log_var, rng_state=rng_state, stream=1)

    mean, log_var = torch.randn(2, 8, 5).unbind()
    rng_state = vae_ext.make_rng_state()
    first, second, other_stream = two_draws(mean, log_var, rng_state)
    assert torch.equal(first, second)
    assert not torch.equal(first, other_stream)
    assert torch.equal(first, vae_ext.normal_rsample(mean, log_var, rng_state=rng_state))


class _Bound(torch.nn.Module):
    def forward(self, encoded: Tensor, logits: Tensor, x: Tensor, rng_state: Tensor) -> tuple[Tensor, ...]:
        return _all_operators(encoded, logits, x, rng_state)


def test_export_with_a_dynamic_batch() -> None:
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(
        _Bound(),
        tuple(argument.detach() for argument in _arguments(6)),
        dynamic_shapes=({0: batch}, {0: batch}, {0: batch}, None),
    )
    for size in (6, 17):
        arguments = tuple(argument.detach() for argument in _arguments(size))
        torch.testing.assert_close(program.module()(*arguments), _all_operators(*arguments))


@pytest.mark.parametrize("case", FUNC_CASES, ids=lambda case: case.id)
def test_func_grad_and_hessian(case: Case) -> None:
    function, inputs = case.as_function()
    argnums = tuple(range(len(inputs)))

    def total(*inputs: Tensor) -> Tensor:
        return torch.stack([output.square().sum() for output in as_tuple(function(*inputs))]).sum()

    leaves = tuple(tensor.clone().requires_grad_() for tensor in inputs)
    torch.testing.assert_close(torch.func.grad(total, argnums)(*inputs), torch.autograd.grad(total(*leaves), leaves))
    torch.testing.assert_close(
        torch.func.hessian(total, argnums)(*inputs), torch.autograd.functional.hessian(total, inputs)
    )


@pytest.mark.parametrize("case", FUNC_CASES, ids=lambda case: case.id)
def test_func_jacobians(case: Case) -> None:
    function, inputs = case.as_function()
    argnums = tuple(range(len(inputs)))

    def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
        return as_tuple(function(*inputs))

    expected = torch.autograd.functional.jacobian(outputs, inputs)
    torch.testing.assert_close(torch.func.jacrev(outputs, argnums)(*inputs), expected)
    torch.testing.assert_close(torch.func.jacfwd(outputs, argnums)(*inputs), expected)


@pytest.mark.parametrize("case", FUNC_CASES, ids=lambda case: case.id)
def test_func_vmap_is_a_loop_of_pure_calls(case: Case) -> None:
    function, inputs = case.as_function()
    batched = tuple(torch.stack([tensor, 2 * tensor, tensor.flip(0).abs()]) for tensor in inputs)
    actual = as_tuple(torch.func.vmap(function)(*batched))
    expected = zip(*(as_tuple(function(*(tensor[i] for tensor in batched))) for i in range(3)), strict=True)
    torch.testing.assert_close(actual, tuple(torch.stack(outputs) for outputs in expected))


@pytest.mark.parametrize("operator", NOISY)
def test_func_vmap_over_states(operator: str, capfd: pytest.CaptureFixture[str]) -> None:
    case = case_of(operator, (4, 5), num_samples=2)
    kwargs = case.make()
    means, scales = torch.randn(2, 3, 4, 5).unbind()
    states = torch.stack([vae_ext.make_rng_state() for _ in range(3)])

    def sample(mean: Tensor, scale: Tensor, state: Tensor) -> Any:
        given = {case.argument("mean"): mean, case.argument("scale"): scale, "rng_state": state}
        return as_tuple(case.ours(**kwargs | given))

    actual = torch.func.vmap(sample, in_dims=(0, 0, 1))(means, scales, states.T)
    expected = zip(*map(sample, means, scales, states), strict=True)
    torch.testing.assert_close(actual, tuple(torch.stack(outputs) for outputs in expected))
    assert "performance" not in capfd.readouterr().err


def test_func_per_sample_gradients() -> None:
    mean, log_var, x = torch.randn(3, 6, 5, dtype=torch.float64).unbind()

    def loss(mean: Tensor, log_var: Tensor, x: Tensor) -> Tensor:
        return -vae_ext.normal_log_prob(mean[None], log_var[None], x[None]).sum()

    per_sample = torch.func.vmap(torch.func.grad(loss, (0, 1)))(mean, log_var, x)
    leaves = (mean.clone().requires_grad_(), log_var.clone().requires_grad_())
    expected = torch.autograd.grad(-vae_ext.normal_log_prob(*leaves, x).sum(), leaves)
    torch.testing.assert_close(per_sample, expected)


@pytest.mark.parametrize("case", FUNC_CASES, ids=lambda case: case.id)
def test_forward_mode(case: Case) -> None:
    function, inputs = case.as_function()
    tangents = cotangents(inputs)
    with forward_ad.dual_level():
        duals = tuple(map(forward_ad.make_dual, inputs, tangents))
        outputs = [forward_ad.unpack_dual(output) for output in as_tuple(function(*duals))]
    jacobians = torch.autograd.functional.jacobian(lambda *inputs: as_tuple(function(*inputs)), inputs)
    for output, primal, rows in zip(outputs, as_tuple(function(*inputs)), jacobians, strict=True):
        torch.testing.assert_close(output.primal, primal)
        expected = sum(
            (row * tangent).flatten(primal.dim()).sum(-1) for row, tangent in zip(rows, tangents, strict=True)
        )
        torch.testing.assert_close(output.tangent, expected)


@pytest.mark.parametrize("operator", OPERATORS)
def test_forward_mode_gradcheck(operator: str) -> None:
    case = next(case for case in FUNC_CASES if case.operator == operator)
    function, inputs = case.as_function()
    leaves = tuple(tensor[:2, :2].clone().requires_grad_() for tensor in inputs)
    assert gradcheck(function, leaves, check_forward_ad=True, check_backward_ad=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("operator", NOISY)
def test_noise_under_transforms_is_the_noise_outside(operator: str, dtype: torch.dtype) -> None:
    case = next(case for case in FUNC_CASES if case.operator == operator)
    function, inputs = case.as_function(dtype)
    expected = as_tuple(function(*inputs))
    for actual in (
        torch.func.vjp(function, *inputs)[0],
        torch.func.jvp(function, inputs, cotangents(inputs))[0],
    ):
        for output, wanted in zip(as_tuple(actual), expected, strict=True):
            # Fused and eager arithmetic may round z differently, by the last bit.
            eps = torch.finfo(output.dtype).eps
            torch.testing.assert_close(output, wanted, rtol=2 * eps, atol=8 * eps)
