"""The estimators: against torch.distributions with the noise that the operators drew, and against exact answers."""

from __future__ import annotations

import copy
import math
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from tests.linear_gaussian import LinearGaussian, example, gradient_variances, scalar_example
from vae_ext import ops
from vae_ext.aevb import VAE, Gaussian, VAEConfig, minibatch_bound, score_function, sgvb_a, sgvb_b
from vae_ext.aevb.estimators import ESTIMATORS, Estimator
from vae_ext.aevb.interface import GaussianLike

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")

RNG_STATE = torch.tensor([12345, 678])
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())


def make_model() -> VAE:
    return VAE(VAEConfig(data_dim=20, hidden_dim=11, latent_dim=3), torch.Generator().manual_seed(1))


def make_x(rows: int = 7) -> Tensor:
    return torch.rand(rows, 20, generator=torch.Generator().manual_seed(2))


def bound_in_float64(model: VAE, x: Tensor, draws: int, estimator: Estimator) -> tuple[Tensor, VAE]:
    """The bound by torch.distributions, and the float64 copy of the model that it differentiates to."""
    mean, log_var = (half.detach() for half in model.encoder(x)[:2])
    z, _ = ops.normal_rsample_kl(mean, log_var, draws, rng_state=RNG_STATE)
    epsilon = (z.double() - mean.double()) / torch.exp(log_var.double() / 2)

    wide = copy.deepcopy(model).double()
    mean, log_var, _ = wide.encoder(x.double())
    posterior = Normal(mean, torch.exp(log_var / 2))
    z = posterior.mean + posterior.stddev * epsilon
    if estimator is score_function:
        z = z.detach()
    likelihood = Bernoulli(logits=wide.decoder(z), validate_args=False)
    log_likelihood = likelihood.log_prob(x.double().expand(draws, -1, -1)).sum(-1)
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    if estimator is sgvb_b:
        return log_likelihood.mean(0) - kl_divergence(posterior, prior).sum(-1), wide
    log_q = posterior.log_prob(z).sum(-1)
    f = log_likelihood + prior.log_prob(z).sum(-1) - log_q
    if estimator is score_function:
        # f grad log q, and not also the gradient of f's own -log q.
        f = f + log_q + f.detach() * log_q - (log_q + f * log_q).detach()
    return f.mean(0), wide


@each_estimator
@pytest.mark.parametrize("draws", [1, 3])
def test_the_bound_and_its_gradient(estimator: Estimator, draws: int) -> None:
    model, x = make_model(), make_x()
    bound = estimator(model, x, draws, rng_state=RNG_STATE)
    expected, wide = bound_in_float64(model, x, draws, estimator)
    assert bound.shape == (7,)
    torch.testing.assert_close(bound.double(), expected, rtol=1e-5, atol=1e-5)

    weights = torch.arange(1.0, 8.0)
    bound.backward(weights)
    expected.backward(weights.double())
    for (name, ours), theirs in zip(model.named_parameters(), wide.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-3, msg=name)


@each_estimator
def test_first_row_makes_the_bound_independent_of_the_split(estimator: Estimator) -> None:
    model, x = make_model(), make_x()
    whole = estimator(model, x, 2, rng_state=RNG_STATE)
    parts = [estimator(model, x[:4], 2, rng_state=RNG_STATE)]
    parts.append(estimator(model, x[4:], 2, rng_state=RNG_STATE, first_row=4))
    # Matrix products of other heights may round otherwise; other noise would differ by whole nats.
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4)


def test_the_exact_gradients_are_those_of_the_exact_bound() -> None:
    model, x = example()
    model = model.rows(1)
    gradients = torch.autograd.grad(model.bound(x).sum(), list(model.parameters().values()))
    for (name, exact), gradient in zip(model.gradients(x).items(), gradients, strict=True):
        torch.testing.assert_close(exact, gradient, msg=name)


def estimate(estimator: Estimator, model: LinearGaussian, x: Tensor, draws: int, count: int) -> dict[str, Tensor]:
    """`count` independent estimates of the bound and of each gradient, `[count, ...]`."""
    rows = model.rows(count)
    bound = estimator(rows, x.expand(count, -1), draws, rng_state=RNG_STATE)
    gradients = torch.autograd.grad(bound.sum(), list(rows.parameters().values()))
    return {"bound": bound.detach(), **dict(zip(rows.parameters(), gradients, strict=True))}


@each_estimator
@pytest.mark.parametrize("draws", [1, 4])
def test_unbiased_on_a_linear_gaussian_model(estimator: Estimator, draws: int) -> None:
    """The mean of many estimates is within three standard errors of the exact bound and gradients, all elements."""
    model, x = example()
    count = 100_000
    exact = {"bound": model.bound(x), **model.gradients(x)}
    for name, estimates in estimate(estimator, model, x, draws, count).items():
        error = estimates.mean(0) - exact[name][0]
        standard_error = estimates.std(0) / math.sqrt(count)
        assert (error.abs() <= 3 * standard_error).all(), (name, error / standard_error)
        assert standard_error.max() < 0.1, name


@pytest.mark.parametrize("draws", [1, 5])
def test_the_variance_of_the_gradients_is_as_computed(draws: int) -> None:
    """The score function's is larger by the factor that theory says, and all fall as 1/L."""
    model, x = scalar_example()
    expected = gradient_variances(model, x)
    measured = {}
    for name, estimator in ESTIMATORS.items():
        gradients = estimate(estimator, model, x, draws, count=200_000)["m"]
        squares = (gradients - gradients.mean()).square()
        measured[name] = squares.mean().item()
        standard_error = squares.std().item() / math.sqrt(len(squares))
        assert abs(measured[name] - expected[name] / draws) < 3 * standard_error, name
        assert standard_error < 0.02 * measured[name], name
    factor = measured["score_function"] / measured["sgvb_b"]
    assert factor == pytest.approx(expected["score_function"] / expected["sgvb_b"], rel=0.05)
    assert factor > 2


def test_score_function_and_estimator_a_have_one_value() -> None:
    model, x = make_model(), make_x()
    ours, theirs = (one(model, x, 3, rng_state=RNG_STATE) for one in (score_function, sgvb_a))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-5)


def test_the_score_function_needs_no_gradient_in_z() -> None:
    """A likelihood that is a step function of z still trains the encoder."""

    class Steps:
        mean = torch.zeros(6, 2, requires_grad=True)

        def encode(self, x: Tensor) -> Gaussian:
            return Gaussian(self.mean, 0.0)

        def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
            return (z > 0).double().sum(-1).float()

    model = Steps()
    score_function(model, torch.zeros(6, 1), 10_000, rng_state=RNG_STATE).sum().backward()
    assert model.mean.grad is not None
    # d/dm P(z > 0) at 0 is the density there; f also has log p - log q, zero here but for its gradient -m = 0.
    torch.testing.assert_close(model.mean.grad, torch.full((6, 2), 1 / math.sqrt(2 * math.pi)), rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", ["log_var", "log_std", "std", "var"])
@each_estimator
def test_an_encoder_may_give_any_parameterisation(estimator: Estimator, kind: str) -> None:
    model, x = make_model(), make_x()
    expected = estimator(model, x, 2, rng_state=RNG_STATE)

    class Other:
        def encode(self, x: Tensor) -> GaussianLike:
            mean, log_var, _ = model.encode(x)
            assert isinstance(log_var, Tensor)
            scales = {"log_var": log_var, "log_std": log_var / 2, "std": (log_var / 2).exp(), "var": log_var.exp()}
            return (mean, log_var) if kind == "log_var" else (mean, scales[kind], kind)  # type: ignore[return-value]

        def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
            return model.log_likelihood(z, x)

    torch.testing.assert_close(estimator(Other(), x, 2, rng_state=RNG_STATE), expected, rtol=1e-5, atol=1e-4)


@each_estimator
def test_an_encoder_that_returns_no_gaussian(estimator: Estimator) -> None:
    class Halves:
        def encode(self, x: Tensor) -> GaussianLike:
            return torch.zeros(2, 6)  # type: ignore[return-value]

        def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
            return z.sum(-1)

    with pytest.raises(TypeError, match=r"the encoder returned Tensor; expected \(mean, log_var\), or"):
        estimator(Halves(), make_x(2))


def test_the_minibatch_estimator_is_unbiased() -> None:
    bound = torch.tensor([-1.0, -10.0, 4.0, 0.5, -3.0], dtype=torch.float64)
    estimates = [minibatch_bound(bound[list(rows)], dataset_size=5) for rows in combinations(range(5), 2)]
    torch.testing.assert_close(torch.stack(estimates).mean(), bound.sum())
    torch.testing.assert_close(estimates[0], (bound[0] + bound[1]) * 5 / 2)
