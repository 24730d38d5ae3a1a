"""The eager operators, which judge the fused ones, against torch.distributions, SciPy and mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import Bernoulli, Normal, kl_divergence

from tests.cases import SCALE_KINDS
from vae_ext import reference
from vae_ext.arguments import STANDARDS, Standard, resolve_event_ndim, resolve_prior, resolve_scale

pytestmark = pytest.mark.cpu_only("compares eager PyTorch with SciPy")

OF_STD: dict[str, Callable[[Tensor], Tensor]] = {
    "log_var": lambda std: 2 * std.log(),
    "log_std": torch.log,
    "std": lambda std: std,
    "var": torch.square,
}


def _normals(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]


@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_kl_is_that_of_torch_distributions(kind: str) -> None:
    mean, prior_mean, a, b = _normals((4, 5), (4, 5), (4, 5), (5,))
    std, prior_std = a.exp(), b.exp()
    scale: dict[str, Any] = {kind: OF_STD[kind](std)}
    prior_scale = OF_STD[kind](prior_std)
    for prior, expected_prior in (
        ({}, Normal(0.0, 1.0)),
        ({"prior_mean": prior_mean}, Normal(prior_mean, 1.0)),
        ({f"prior_{kind}": prior_scale}, Normal(0.0, prior_std)),
        ({"prior_mean": prior_mean, f"prior_{kind}": prior_scale}, Normal(prior_mean, prior_std)),
        ({"prior_mean": 0.5, f"prior_{kind}": float(prior_scale[0])}, Normal(0.5, prior_std[0])),
    ):
        expected = kl_divergence(Normal(mean, std), expected_prior).sum(-1)
        torch.testing.assert_close(reference.normal_kl(mean, **scale, **prior), expected)


def test_kl_near_collapse_is_exact() -> None:
    log_var = torch.tensor([[1e-4, -3e-6, 2e-9]], dtype=torch.float64)
    with mpmath.workdps(50):
        exact = mpmath.fsum(mpmath.expm1(v) - v for v in map(mpmath.mpf, log_var[0].tolist())) / 2
    kl = reference.normal_kl(torch.zeros(1, 3, dtype=torch.float64), log_var)
    assert kl.item() == pytest.approx(float(exact), rel=1e-8)


@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_normal_log_prob_is_scipys(kind: str) -> None:
    mean, x, a = _normals((3, 4, 5), (4, 5), (5,))
    expected = stats.norm.logpdf(x.numpy(), mean.numpy(), a.exp().numpy()).sum(-1)
    scale: dict[str, Any] = {kind: OF_STD[kind](a.exp())}
    actual = reference.normal_log_prob(mean, x=x, **scale)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)


def test_bernoulli_log_prob_is_that_of_torch_distributions() -> None:
    logits, x = _normals((3, 4, 5), (4, 5))
    x = (x > 0).double()
    expected = Bernoulli(logits=logits).log_prob(x.expand(3, 4, 5)).sum(-1)
    for dtype in (torch.float64, torch.float32, torch.bool, torch.uint8):
        torch.testing.assert_close(reference.bernoulli_log_prob(logits, x.to(dtype)), expected)


def test_bernoulli_log_prob_of_any_x_is_linear() -> None:
    logits = torch.tensor([[-3.0, 0.5, 40.0]], dtype=torch.float64)
    x = torch.tensor([[-0.5, 0.25, 3.0]], dtype=torch.float64)
    expected = (x * logits - torch.logaddexp(torch.zeros_like(logits), logits)).sum(-1)
    torch.testing.assert_close(reference.bernoulli_log_prob(logits, x), expected)


@pytest.mark.parametrize("num_samples", [None, 3])
@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_samplers_move_and_scale_epsilon(kind: str, num_samples: int | None) -> None:
    mean, a, prior_mean, b = _normals((4, 5), (4, 5), (4, 5), (4, 5))
    std, prior_std = a.exp(), b.exp()
    (epsilon,) = _normals((4, 5) if num_samples is None else (num_samples, 4, 5))
    kwargs: dict[str, Any] = {kind: OF_STD[kind](std), "num_samples": num_samples, "epsilon": epsilon}
    prior: dict[str, Any] = {"prior_mean": prior_mean, f"prior_{kind}": OF_STD[kind](prior_std)}
    z = mean + std * epsilon
    torch.testing.assert_close(reference.normal_rsample(mean, **kwargs), z)

    kl = kl_divergence(Normal(mean, std), Normal(prior_mean, prior_std)).sum(-1)
    torch.testing.assert_close(reference.normal_rsample_kl(mean, **kwargs, **prior), (z, kl))

    log_ratio = (Normal(prior_mean, prior_std).log_prob(z) - Normal(mean, std).log_prob(z)).sum(-1)
    torch.testing.assert_close(reference.normal_rsample_log_ratio(mean, **kwargs, **prior), (z, log_ratio))
    log_ratio = (Normal(0.0, 1.0).log_prob(z) - Normal(mean, std).log_prob(z)).sum(-1)
    torch.testing.assert_close(reference.normal_rsample_log_ratio(mean, **kwargs), (z, log_ratio))


def test_log_ratio_is_of_the_rounded_z() -> None:
    mean, log_var = (tensor.bfloat16() for tensor in _normals((4, 50), (4, 50)))
    (epsilon,) = _normals((4, 50))
    z, log_ratio = reference.normal_rsample_log_ratio(mean, log_var, epsilon=epsilon.float())
    assert z.dtype == torch.bfloat16
    assert log_ratio.dtype == torch.float32
    q = Normal(mean.double(), (0.5 * log_var.double()).exp())
    expected = (Normal(0.0, 1.0).log_prob(z.double()) - q.log_prob(z.double())).sum(-1)
    torch.testing.assert_close(log_ratio, expected.float(), rtol=1e-5, atol=1e-4)


def test_log_ratio_gradient_is_pathwise() -> None:
    """d log q / d mean = 0 and d log q / d log_var = -1/2."""
    mean, log_var, epsilon = _normals((4, 5), (4, 5), (4, 5))
    mean.requires_grad_(), log_var.requires_grad_()
    z, log_ratio = reference.normal_rsample_log_ratio(mean, log_var, epsilon=epsilon)
    mean_grad, log_var_grad = torch.autograd.grad(log_ratio.sum(), (mean, log_var))
    torch.testing.assert_close(mean_grad, -z)
    torch.testing.assert_close(log_var_grad, 0.5 - 0.5 * z * (z - mean))


def test_events_are_summed_by_event_ndim() -> None:
    logits, x = _normals((2, 3, 4, 5), (3, 4, 5))
    assert reference.bernoulli_log_prob(logits, x).shape == (2, 3)
    assert reference.bernoulli_log_prob(logits, x, event_ndim=1).shape == (2, 3, 4)
    assert reference.bernoulli_log_prob(logits, x, event_ndim=0).shape == (2, 3, 4, 5)
    assert reference.normal_kl(x, 0.0, event_ndim=3).shape == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, x = (tensor.to(dtype) for tensor in _normals((4, 500), (4, 500)))
    log_prob = reference.bernoulli_log_prob(logits, x)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, reference.bernoulli_log_prob(logits.float(), x.float()))
    assert reference.normal_rsample(logits, 0.0).dtype == dtype


def test_noise_comes_from_the_generator() -> None:
    mean, log_var = _normals((4, 5), (4, 5))
    first, second = (
        reference.normal_rsample(mean, log_var, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0)
    )
    assert torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(reference.normal_rsample(mean, log_var), first)
    assert reference.normal_rsample(mean, log_var[0], 3).shape == (3, 4, 5)
    assert stats.kstest(reference.normal_rsample(torch.zeros(100_000), 0.0).numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("standard", STANDARDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_far_tails_are_finite(standard: Standard, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the ends of what torch.rand draws, too, of which 0 is one."""
    eps = torch.finfo(dtype).eps
    ends = torch.tensor([0.0, eps / 2, 1 - eps / 2], dtype=dtype)
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: ends)
    epsilon = reference.location_scale_rsample(torch.zeros(3, dtype=dtype), standard, scale=1.0)
    assert epsilon.isfinite().all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rng_state": torch.zeros(2, dtype=torch.int64)}, "explicit epsilon"),
        ({"first_row": 1}, "explicit epsilon"),
        ({"stream": 1}, "explicit epsilon"),
        ({"epsilon": torch.zeros(4, 5), "generator": torch.Generator()}, "generator and epsilon"),
        ({"epsilon": torch.zeros(3, 5)}, r"\(3, 5\); expected that of z, \(4, 5\)"),
        ({"epsilon": torch.zeros(4, 5), "num_samples": 2}, r"\(4, 5\); expected that of z, \(2, 4, 5\)"),
        ({"num_samples": 0}, "num_samples"),
    ],
)
@pytest.mark.parametrize("operator", ["normal_rsample", "normal_rsample_kl", "normal_rsample_log_ratio"])
def test_what_the_reference_cannot_draw_is_an_error(operator: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(reference, operator)(torch.zeros(4, 5), 0.0, **kwargs)


def test_reference_can_be_transformed() -> None:
    mean, log_var, epsilon = _normals((3, 4), (3, 4), (2, 3, 4))

    def total(mean: Tensor, log_var: Tensor) -> Tensor:
        z, log_ratio = reference.normal_rsample_log_ratio(mean, log_var, 2, epsilon=epsilon)
        return log_ratio.sum() + z.square().sum() + reference.normal_kl(mean, log_var).sum()

    inputs = (mean.requires_grad_(), log_var.requires_grad_())
    assert gradcheck(total, inputs, check_forward_ad=True)
    hessian = torch.func.hessian(total, (0, 1))(mean, log_var)
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(total, inputs))
    rows = torch.func.vmap(lambda mean, log_var: reference.normal_kl(mean[None], log_var[None])[0])(mean, log_var)
    torch.testing.assert_close(rows, reference.normal_kl(mean, log_var))


def test_resolve_scale_names_what_is_wrong() -> None:
    tensor = torch.ones(2)
    for kind in SCALE_KINDS:
        scale, resolved = resolve_scale(**{kind: tensor})
        assert scale is tensor
        assert resolved == kind
    assert resolve_scale(std=0.0) == (0.0, "std")
    with pytest.raises(ValueError, match="given as nothing; expected exactly one of log_var, log_std, std, var"):
        resolve_scale()
    with pytest.raises(ValueError, match="given as log_std and var; expected exactly one"):
        resolve_scale(log_std=tensor, var=1.0)
    with pytest.raises(TypeError, match="std is of type str; expected a tensor or a number"):
        resolve_scale(std="1")  # type: ignore[arg-type]


def test_resolve_prior_names_what_is_wrong() -> None:
    assert resolve_prior("std") is None
    assert resolve_prior("std", prior_std=2.0) == 2.0
    with pytest.raises(ValueError, match="given as prior_log_var; expected prior_std, as std is given"):
        resolve_prior("std", prior_log_var=0.0)
    with pytest.raises(ValueError, match="given as prior_std and prior_var; expected prior_std"):
        resolve_prior("std", prior_std=1.0, prior_var=1.0)


@pytest.mark.parametrize("name", ["normal_kl", "normal_rsample_kl", "normal_rsample_log_ratio"])
def test_a_prior_is_called_by_its_name(name: str) -> None:
    mean, operator = torch.zeros(2, 3), getattr(reference, name)
    with pytest.raises(ValueError, match=r"prior_std is -1\.0; expected 0 or more"):
        operator(mean, std=1.0, prior_std=-1.0)
    with pytest.raises(TypeError, match="prior_mean is of type str; expected a tensor or a number"):
        operator(mean, std=1.0, prior_mean="0")


def test_resolve_event_ndim_names_what_is_wrong() -> None:
    logits, x = torch.zeros(2, 3, 4), torch.zeros(3, 4)
    assert resolve_event_ndim(None, logits=logits, x=x) == 1
    assert resolve_event_ndim(2, logits=logits, x=x) == 2
    with pytest.raises(ValueError, match="x has 2 dims; expected at least event_ndim = 3"):
        resolve_event_ndim(3, logits=logits, x=x)
    with pytest.raises(ValueError, match="event_ndim is -1; expected 0 or more"):
        resolve_event_ndim(-1, logits=logits)
    with pytest.raises(TypeError, match="event_ndim is of type float; expected an int"):
        resolve_event_ndim(1.0, logits=logits)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x has no dims"):
        resolve_event_ndim(None, logits=logits, x=torch.tensor(1.0))
    with pytest.raises(TypeError, match="x is of type NoneType; expected a tensor"):
        resolve_event_ndim(None, logits=logits, x=None)


def test_log_2_pi() -> None:
    log_prob = reference.normal_log_prob(torch.zeros(1, 1, dtype=torch.float64), 0.0, torch.zeros(1, 1))
    assert log_prob.item() == pytest.approx(-math.log(math.sqrt(2 * math.pi)), rel=1e-15)
