"""Families as posteriors through estimator A: against exact bounds, and from the command line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Gamma as TorchGamma
from torch.distributions import kl_divergence

from tests.commands import arrays_of, assert_one_sentence, invoke
from tests.linear_gaussian import LOG_2_PI, LinearGaussian, example
from vae_ext.aevb import VAE, VAEConfig, families, load_checkpoint, score_function, sgvb_a, sgvb_b
from vae_ext.aevb.estimators import ESTIMATORS, Estimator
from vae_ext.aevb.families import Family
from vae_ext.aevb.models import POSTERIORS
from vae_ext.train_config import ConfigError, TrainConfig

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")

RNG_STATE = torch.tensor([12345, 678])
ROWS = 20_000


class Located(LinearGaussian):
    """The linear-Gaussian model with a posterior of another family, of location m and log_scale v."""

    posterior: str

    @staticmethod
    def of(posterior: str, **values: Tensor) -> Located:
        model = Located(**values)
        model.posterior = posterior
        return model

    def encode(self, x: Tensor) -> Any:
        return POSTERIORS[self.posterior](self.m, self.v)

    def exact_bound(self, x: Tensor) -> Tensor:
        """The expected squared error is that at the mean, and the variance that W spreads."""
        q = self.encode(x)
        mean = torch.einsum("bdj,bj->bd", self.weight, q.mean) + self.bias
        squares = (x - mean).square().sum(-1) + (q.variance * self.weight.square().sum(1)).sum(-1)
        log_likelihood = -0.5 * (x.shape[-1] * (LOG_2_PI + self.t[:, 0]) + squares / self.t[:, 0].exp())
        prior = -0.5 * (LOG_2_PI + q.variance + q.mean.square())
        bound: Tensor = log_likelihood + (prior + q.entropy).sum(-1)
        return bound


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_estimator_a_is_the_bound_and_its_gradient(posterior: str) -> None:
    """In expectation: within what so many rows, each with its own noise and parameters, allow."""
    model, x = example()
    one = {name: value.clone().requires_grad_() for name, value in model.parameters().items()}
    bound = Located.of(posterior, **one).exact_bound(x)
    expected = torch.autograd.grad(bound.sum(), list(one.values()))

    many = model.rows(ROWS).parameters()
    estimates = sgvb_a(Located.of(posterior, **many), x.expand(ROWS, -1), 2, rng_state=RNG_STATE)
    gradients = torch.autograd.grad(estimates.sum(), list(many.values()))
    for estimate, wanted in zip((estimates.detach(), *gradients), (bound.detach(), *expected), strict=True):
        standard_error = estimate.std(0) / math.sqrt(ROWS)
        assert ((estimate.mean(0) - wanted[0]).abs() < 4.5 * standard_error + 1e-12).all()


class GammaModel:
    """z and its prior are gammas, x is nothing."""

    prior: Family = families.Gamma(torch.tensor([2.0, 0.7]), torch.tensor([1.0, 0.5]))

    def __init__(self, concentration: Tensor, rate: Tensor) -> None:
        self.concentration, self.rate = concentration, rate

    def encode(self, x: Tensor) -> Family:
        return families.Gamma(self.concentration, self.rate)

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        return z.new_zeros(z.shape[:-1])


def test_a_prior_of_ones_own() -> None:
    """The bound is then minus the divergence of two gammas."""
    concentration = torch.tensor([[3.0, 1.4]]).double()
    rate = torch.tensor([[0.8, 2.0]]).double()
    own, leaves = (
        (concentration.clone().requires_grad_(), rate.clone().requires_grad_()),
        (
            concentration.expand(ROWS, 2).clone().requires_grad_(),
            rate.expand(ROWS, 2).clone().requires_grad_(),
        ),
    )
    prior = TorchGamma(torch.tensor([2.0, 0.7]).double(), torch.tensor([1.0, 0.5]).double())
    exact = -kl_divergence(TorchGamma(*own), prior).sum(-1)
    estimates = sgvb_a(GammaModel(*leaves), torch.zeros(ROWS, 1), 1, rng_state=RNG_STATE)
    pairs = zip(
        (estimates.detach(), *torch.autograd.grad(estimates.sum(), leaves)),
        (exact.detach(), *torch.autograd.grad(exact.sum(), own)),
        strict=True,
    )
    for estimate, wanted in pairs:
        standard_error = estimate.std(0) / math.sqrt(ROWS)
        assert ((estimate.mean(0) - wanted[0]).abs() < 4.5 * standard_error + 2e-3).all()


LINE, HALF_LINE = families.Normal(torch.zeros(2), 1.0), families.Gamma(torch.ones(2), 1.0)
UNIT, SHARES = families.Beta(torch.ones(2), 1.0), families.Dirichlet(torch.ones(1, 2))


def interval(low: float, high: float, device: str = "cpu") -> Family:
    return families.Uniform(torch.full((2,), float(low), device=device), high, validate=False)


@pytest.mark.parametrize(
    ("prior", "posterior", "covers"),
    [
        (LINE, HALF_LINE, True),
        (LINE, interval(0, 10), True),
        (HALF_LINE, LINE, False),
        (HALF_LINE, UNIT, True),
        (UNIT, HALF_LINE, False),
        (HALF_LINE, interval(-0.5, 1), False),
        (HALF_LINE, families.Pareto(torch.ones(2), 1.0), True),
        (interval(0, 1), interval(0, 10), False),
        (interval(0, 10), interval(0, 1), True),
        (interval(0, 1), UNIT, True),
        (SHARES, SHARES, True),
        (LINE, SHARES, False),
        (SHARES, UNIT, False),
        # Of another device, here one that has no values, the numbers alone are compared.
        (interval(0, 1, "meta"), interval(0, 10, "meta"), True),
        (interval(0, 1, "meta"), LINE, False),
        (interval(0, 1, "meta"), HALF_LINE, False),
        (HALF_LINE, interval(0, 1, "meta"), True),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.device}" if isinstance(value, Family) else str(value),
)
def test_a_prior_is_positive_where_the_posterior_is(prior: Family, posterior: Family, covers: bool) -> None:
    assert prior.covers(posterior) is covers


def test_a_posterior_of_the_half_line_under_the_standard_normal() -> None:
    concentration, rate = torch.tensor([3.0, 1.4]).double(), torch.tensor([2.0, 1.1]).double()
    model: Any = GammaModel(concentration.expand(ROWS, 2), rate.expand(ROWS, 2))
    model.prior = None
    estimates = sgvb_a(model, torch.zeros(ROWS, 1), rng_state=RNG_STATE)
    q = TorchGamma(concentration, rate)
    exact = (q.entropy() - 0.5 * (LOG_2_PI + q.variance + q.mean.square())).sum()
    assert abs(estimates.mean() - exact) < 4.5 * estimates.std() / math.sqrt(ROWS)


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
def test_a_prior_of_ones_own_under_a_gaussian_posterior_is_refused(estimator: Estimator) -> None:
    model, x = example()
    assert estimator(model, x).isfinite().all()
    model.prior = families.Laplace(torch.zeros(2), 1.0)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"a prior of its own, Laplace; expected p\(z\) to be N\(0, I\)"):
        estimator(model, x)


def test_what_does_not_go_together_is_said_in_a_sentence() -> None:
    model: Any = GammaModel(torch.ones(4, 2), torch.ones(4, 2))
    x = torch.zeros(4, 1)
    model.prior = families.Beta(torch.ones(2), 1.0)
    with pytest.raises(ValueError, match=r"Gamma is on \(0, inf\) and the prior Beta on \(0, 1\)"):
        sgvb_a(model, x)
    for estimator in (sgvb_b, score_function):
        with pytest.raises(TypeError, match=r"encoder returned Gamma; expected a Gaussian, .* estimator sgvb_a"):
            estimator(model, x)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_vae_of_each_posterior(posterior: str) -> None:
    config = VAEConfig(data_dim=20, hidden_dim=11, latent_dim=3, posterior=posterior)
    model = VAE(config, torch.Generator().manual_seed(1))
    gaussian = VAE(replace(config, posterior="gaussian"), torch.Generator().manual_seed(1))
    x = torch.rand(7, 20, generator=torch.Generator().manual_seed(2))
    q, of_gaussian = model.encode(x), gaussian.encode(x)
    loc = q.mean - q.standard_mean * q.scale if hasattr(q, "standard_mean") else q.mean
    torch.testing.assert_close(loc, of_gaussian.mean)
    torch.testing.assert_close(q.scale, (0.5 * of_gaussian.scale).exp())
    bound = sgvb_a(model, x, 3, rng_state=RNG_STATE)
    assert bound.shape == (7,)
    bound.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_configs() -> None:
    with pytest.raises(ConfigError, match="estimator is sgvb_b: expected sgvb_a, as the posterior is laplace"):
        TrainConfig(posterior="laplace")
    with pytest.raises(ConfigError, match="posterior is 'cauchy': expected one of gaussian, laplace"):
        TrainConfig(posterior="cauchy", estimator="sgvb_a")


@pytest.fixture(scope="module", params=["laplace", "student-t"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    kind = ("--posterior", request.param, "--estimator", "sgvb_a", "--latent", 3)
    result = invoke("train", "--samples", 1000, "--hidden", 16, *kind, "--out", out)
    assert result.exit_code == 0, result.output
    return out


class TestCommands:
    @pytest.mark.parametrize(
        "command",
        ["sample", "encode", "reconstruct", "interpolate", "manifold", "evaluate", "marginal", "denoise"],
    )
    def test_work(self, run: Path, command: str) -> None:
        result = invoke(command, run)
        assert result.exit_code == 0, result.output

    def test_codes_are_the_posteriors(self, run: Path, tmp_path: Path) -> None:
        assert invoke("encode", run, "--out", tmp_path).exit_code == 0
        codes = arrays_of(tmp_path / "codes.npz")
        mean, std, kl = (torch.from_numpy(codes[name]) for name in ("mean", "std", "kl"))
        expected = 0.5 * (math.log(2 * math.pi) + std.square() + mean.square())
        config = load_checkpoint(run / "checkpoint.pt").config
        if config.posterior == "laplace":
            entropy = 1 + math.log(2) + (std / math.sqrt(2)).log()
            torch.testing.assert_close(kl, expected - entropy, rtol=1e-4, atol=1e-5)
        assert (kl > 0).all()

    def test_the_run_goes_on(self, run: Path) -> None:
        result = invoke("train", "--resume", run)
        assert result.exit_code == 0, result.output

    def test_variances_are_refused(self, run: Path) -> None:
        assert_one_sentence(invoke("gradient-variance", run), "posterior, which only SGVB A can estimate")


def test_another_estimator_is_refused(tmp_path: Path) -> None:
    result = invoke("train", "--posterior", "laplace", "--out", tmp_path / "run")
    assert_one_sentence(result, "--estimator is sgvb_b: expected sgvb_a, as the posterior is laplace")
    assert not (tmp_path / "run").exists()


def test_checkpoints_from_before_have_a_gaussian_posterior(tmp_path: Path) -> None:
    assert invoke("train", "--samples", 500, "--hidden", 8, "--out", tmp_path).exit_code == 0
    checkpoint = tmp_path / "checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True)
    for name in ("train_config", "model_config"):
        assert state[name].pop("posterior") == "gaussian"
    torch.save(state, checkpoint)
    assert load_checkpoint(checkpoint).config.posterior == "gaussian"
