"""Estimates of log p(x), against a model of which it is known, and against each other."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde, multivariate_normal
from torch import Generator, Tensor, nn

from tests.linear_gaussian import LinearGaussian, recognised_example
from vae_ext import ops
from vae_ext.aevb import VAE, AutoEncoder, BernoulliMLP, GaussianMLP, TrainConfig, Trainer, VAEConfig
from vae_ext.aevb.families import Gamma, Laplace
from vae_ext.aevb.interface import Gaussian
from vae_ext.aevb.kernel_density import BANDWIDTHS, KernelDensity
from vae_ext.aevb.marginal import (
    MarginalEstimate,
    hmc_log_marginal,
    importance_log_marginal,
    importance_resample,
    log_joint,
    marginal_of_chains,
    posterior_chains,
)
from vae_ext.aevb.mixing import unmixed
from vae_ext.datasets import load_dataset
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def z_scores(estimate: MarginalEstimate, exact: Tensor) -> Tensor:
    return (estimate.log_marginal - exact) / estimate.standard_error


def assert_mean_agrees(error: Tensor, *standard_errors: Tensor) -> None:
    """Within 3 standard errors."""
    total = sum((error.square().sum() for error in standard_errors), torch.zeros(())).sqrt() / len(error)
    assert error.mean().abs() < 3 * total


def test_importance_sampling_of_a_linear_gaussian_model() -> None:
    model, x = recognised_example(rows=200, data_dim=6, latent_dim=3)
    exact = model.log_marginal(x)
    estimate = importance_log_marginal(model, x, 1000, generator=seeded())
    assert_mean_agrees(estimate.log_marginal - exact, estimate.standard_error)
    assert 0.8 < z_scores(estimate, exact).std() < 1.2
    assert estimate.standard_error.median() < 0.05


class LaplacePosterior(LinearGaussian):
    """The same model, with a recognition model of heavier tails and the same variance."""

    def encode(self, x: Tensor) -> Any:
        return Laplace(self.m, (0.5 * self.v).exp() / math.sqrt(2))


def test_a_posterior_of_another_family_is_drawn_from_as_well() -> None:
    gaussian, x = recognised_example(rows=200, data_dim=6, latent_dim=3)
    model = LaplacePosterior(**gaussian.parameters())
    exact = gaussian.log_marginal(x)
    estimate = importance_log_marginal(model, x, 1000, generator=seeded())
    assert_mean_agrees(estimate.log_marginal - exact, estimate.standard_error)
    by_hmc = hmc_log_marginal(model, x, 400, generator=seeded())
    assert_mean_agrees(by_hmc.log_marginal - exact, by_hmc.standard_error)


def test_importance_sampling_is_its_formula() -> None:
    """Draw by draw, in chunks that do not divide K, and with weights that no exponential holds."""
    model, x = recognised_example(rows=4, data_dim=6, latent_dim=3)
    x = x + torch.tensor([0.0, 1.0, 100.0, 1e4]).unsqueeze(1)
    state = ops.make_rng_state(seeded(), "cpu")
    estimate = importance_log_marginal(model, x, 25, chunk=10, rng_state=state, first_row=3)
    drawn = []
    for stream, count in enumerate((10, 10, 5)):
        z, log_ratio = ops.normal_rsample_log_ratio(
            model.m, model.v, count, rng_state=state, first_row=3, stream=stream
        )
        drawn.append(model.log_likelihood(z, x) + log_ratio)
    log_weights = torch.cat(drawn)
    assert log_weights[:, 3].max() < -1e6
    weights = (log_weights - log_weights.amax(0)).exp()
    expected = weights.mean(0).log() + log_weights.amax(0)
    torch.testing.assert_close(estimate.log_marginal, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        estimate.effective_sample_size, weights.sum(0).square() / weights.square().sum(0), rtol=1e-8, atol=0
    )
    standard_error = weights.std(0) / math.sqrt(25) / weights.mean(0)
    torch.testing.assert_close(estimate.standard_error, standard_error, rtol=1e-6, atol=1e-12)


def test_where_q_is_the_posterior_every_weight_is_p_of_x() -> None:
    """The prior is the posterior where z has no say in x."""
    zeros = torch.zeros(5, 2, dtype=torch.float64)
    weight, t = torch.zeros(5, 3, 2, dtype=torch.float64), torch.zeros(5, 1, dtype=torch.float64)
    x = torch.randn(5, 3, generator=seeded(), dtype=torch.float64)
    model = LinearGaussian(m=zeros, v=zeros, weight=weight, bias=torch.zeros_like(x), t=t)
    estimate = importance_log_marginal(model, x, 100)
    torch.testing.assert_close(estimate.log_marginal, model.log_marginal(x))
    torch.testing.assert_close(estimate.effective_sample_size, torch.full((5,), 100.0, dtype=torch.float64))
    assert (estimate.standard_error < 1e-6).all()


@pytest.mark.parametrize("latent_dim", [1, 3, 5])
def test_hmc_of_a_linear_gaussian_model(latent_dim: int) -> None:
    model, x = recognised_example(rows=200, data_dim=8, latent_dim=latent_dim)
    exact = model.log_marginal(x)
    estimate = hmc_log_marginal(model, x, 400, generator=seeded())
    assert_mean_agrees(estimate.log_marginal - exact, estimate.standard_error)
    # Of five batches: t with four degrees of freedom, whose deviation is 1.41.
    assert 0.9 < z_scores(estimate, exact).std() < 2.0
    assert estimate.standard_error.median() < 0.2


def trained_vae() -> tuple[VAE, Tensor]:
    data = load_dataset("digits")
    trainer = Trainer(data, TrainConfig(hidden=64, latent=3), torch.device("cpu"))
    for _ in range(500):
        trainer.step()
    assert isinstance(trainer.model, VAE)
    return trainer.model, data.decode(data.test[:40])


def test_both_agree_on_a_trained_model() -> None:
    model, x = trained_vae()
    importance = importance_log_marginal(model, x, 2000, generator=seeded())
    # So many that what the logarithm of a mean is off by, half the squared standard error, does not matter.
    by_hmc = hmc_log_marginal(model, x, 1000, generator=seeded())
    difference = by_hmc.log_marginal - importance.log_marginal
    assert_mean_agrees(difference, importance.standard_error, by_hmc.standard_error)
    assert importance.standard_error.mean() < 0.2
    assert by_hmc.standard_error.mean() < 0.2


def test_the_kernel_density_is_scipys() -> None:
    """Of different shapes and sizes, at the bandwidth that leaving one out finds best."""
    draws = torch.randn(30, 4, 2, generator=seeded()) * torch.tensor([[1.0, 0.01], [1, 1], [50, 3], [1e-3, 1]])
    draws[..., 1] += draws[..., 0]
    draws[15:, 3] += 100
    z = draws[:7] + 0.01
    density = KernelDensity(draws)
    found = density.log_prob(z)
    for chain, bandwidth in enumerate(density.bandwidth.tolist()):
        mine = draws[:, chain].double().numpy().T
        expected = gaussian_kde(mine, bandwidth).logpdf(z[:, chain].double().numpy().T)
        np.testing.assert_allclose(found[:, chain].numpy(), expected, rtol=1e-8, atol=1e-8)
        assert bandwidth == pytest.approx(max(BANDWIDTHS, key=lambda h: left_out_log_likelihood(mine.T, h)))
    assert density.bandwidth.unique().numel() > 1


def left_out_log_likelihood(draws: np.ndarray, bandwidth: float) -> float:
    covariance = bandwidth**2 * np.cov(draws.T)
    total = 0.0
    for index, draw in enumerate(draws):
        others = np.delete(draws, index, axis=0)
        total += np.log(np.mean([multivariate_normal(other, covariance).pdf(draw) for other in others]))
    return total


def test_the_log_joint_is_likelihood_and_prior() -> None:
    model, x = recognised_example(rows=3, data_dim=4, latent_dim=2)
    z = torch.randn(3, 2, generator=seeded(), dtype=torch.float64)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(log_joint(model, x)(z), model.log_likelihood(z.unsqueeze(0), x)[0] + prior)


def test_resampled_candidates_are_draws_of_the_posterior() -> None:
    """With the prior for q, and in two parts of the batch."""
    model, x = recognised_example(rows=400, data_dim=4, latent_dim=2)
    prior = LinearGaussian(**{**model.parameters(), "m": torch.zeros_like(model.m), "v": torch.zeros_like(model.v)})
    state = ops.make_rng_state(seeded(), "cpu")
    z = importance_resample(prior, x, 3000, state)
    precision = torch.eye(2) + model.weight.mT @ model.weight / model.t.exp().unsqueeze(2)
    mean = torch.linalg.solve(precision, model.weight.mT @ (x - model.bias).unsqueeze(2)) / model.t.exp().unsqueeze(2)
    standard = (torch.linalg.cholesky(precision).mT @ (z.unsqueeze(2) - mean)).squeeze(2)
    for moment in (standard, standard.square() - 1, standard.prod(1, keepdim=True)):
        assert (moment.mean(0).abs() < 4 * moment.std(0) / math.sqrt(len(moment))).all()

    half = LinearGaussian(**{name: value[200:] for name, value in prior.parameters().items()})
    assert torch.equal(importance_resample(half, x[200:], 3000, state, first_row=200), z[200:])


def test_the_model_is_as_in_evaluation_and_keeps_its_mode_and_gradients() -> None:
    encoder = nn.Sequential(nn.Dropout(0.5), GaussianMLP(6, 8, 2))
    model = AutoEncoder(encoder, nn.Sequential(nn.Dropout(0.5), BernoulliMLP(2, 8, 6)), latent_dim=2)
    x = torch.rand(5, 6, generator=seeded())
    found = importance_log_marginal(model, x, 50, generator=seeded()), hmc_log_marginal(model, x, generator=seeded())
    assert encoder.training
    model.eval()
    again = importance_log_marginal(model, x, 50, generator=seeded()), hmc_log_marginal(model, x, generator=seeded())
    for one, other in zip(found, again, strict=True):
        assert all(map(torch.equal, one, other))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_too_many_latent_variables() -> None:
    model = VAE(VAEConfig(data_dim=6, hidden_dim=8, latent_dim=6))
    message = (
        "the model has 6 latent variables, and a density fitted to draws of HMC is good for 5 at most: estimate by"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        hmc_log_marginal(model, torch.rand(2, 6))


def test_a_prior_that_chains_would_leave() -> None:
    model = VAE(VAEConfig(data_dim=6, hidden_dim=8, latent_dim=2))
    object.__setattr__(model, "prior", Gamma(1.0, 1.0))
    with pytest.raises(ValueError, match=r"the model's prior Gamma is on \(0, inf\); expected one on the whole line"):
        hmc_log_marginal(model, torch.rand(2, 6))


def test_chains_that_do_not_mix() -> None:
    """Where x leaves next to nothing of z open, a first step size of 0.1 is far too long."""
    model, x = recognised_example(rows=20, data_dim=8, latent_dim=3)
    narrow = LinearGaussian(**{**model.parameters(), "t": model.t - 14})
    with pytest.raises(UserError, match=r"20 of 20 chains of HMC do not mix .* take a longer burn-in"):
        hmc_log_marginal(narrow, x, burn_in=0)
    chains = posterior_chains(narrow, x, 20, burn_in=0, leapfrog_steps=4)
    assert marginal_of_chains(narrow, x, chains).log_marginal.isnan().all()
    assert not unmixed(posterior_chains(narrow, x, 200, burn_in=300, leapfrog_steps=8, generator=seeded())).any()


def test_where_some_chains_do_not_mix_the_others_have_their_estimates() -> None:
    """Chain 5 never moves."""
    model, x = recognised_example(rows=40, data_dim=8, latent_dim=3)
    t = model.t.clone()
    t[5] -= 20
    one_narrow = LinearGaussian(**{**model.parameters(), "t": t})
    exact = one_narrow.log_marginal(x)
    with pytest.warns(UserWarning, match=r"1 of 40 chains .* \(such as 5\): .*; their estimates are NaN"):
        estimate = hmc_log_marginal(one_narrow, x, 200, burn_in=0, generator=seeded())
    for each in estimate:
        assert each.isnan().nonzero().tolist() == [[5]]
    assert_mean_agrees(*(torch.cat([each[:5], each[6:]]) for each in (estimate.log_marginal - exact, estimate[1])))
    assert hmc_log_marginal(one_narrow, x, 50, burn_in=300, generator=seeded()).log_marginal.isfinite().all()


class CountedRows(GaussianMLP):
    """An encoder that counts the datapoints it is given."""

    rows = 0

    def forward(self, x: Tensor) -> Gaussian:
        self.rows += len(x)
        return super().forward(x)


def test_chains_begin_after_one_look_at_the_data() -> None:
    """And one at a datapoint, for the number of latents."""
    encoder = CountedRows(6, 8, 2)
    model = AutoEncoder(encoder, BernoulliMLP(2, 8, 6), latent_dim=2)
    posterior_chains(model, torch.rand(30, 6, generator=seeded()), 20, burn_in=0, leapfrog_steps=1)
    assert encoder.rows == 31


def test_errors() -> None:
    model, x = recognised_example(rows=2, data_dim=4, latent_dim=2)
    with pytest.raises(ValueError, match="num_samples is 1; expected 2 or more"):
        importance_log_marginal(model, x, 1)
    with pytest.raises(ValueError, match="chunk is 0; expected 1 or more"):
        importance_log_marginal(model, x, 10, chunk=0)
    with pytest.raises(ValueError, match="generator and rng_state were both given"):
        importance_log_marginal(model, x, 10, generator=seeded(), rng_state=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="num_samples is 10; expected 20 or more"):
        hmc_log_marginal(model, x, 10)

    model.prior = torch.distributions.Laplace(0.0, 1.0)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"the model's prior is of type Laplace; expected a family of vae_ext\.aevb"):
        log_joint(model, x)(x.new_zeros(2, 2))

    class Pictures:
        def encode(self, x: Tensor) -> Gaussian:
            return Gaussian(torch.zeros(2, 3, 3), 0.0)

        def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
            return z.sum((-1, -2))

    with pytest.raises(ValueError, match=r"z has shape \[2, 3, 3\]; expected \[B, J\]"):
        hmc_log_marginal(Pictures(), x)


def test_one_datapoint_without_its_batch() -> None:
    model, x = recognised_example(rows=8, data_dim=4, latent_dim=2)
    for estimate in (importance_log_marginal, hmc_log_marginal):
        with pytest.raises(ValueError, match=r"x has shape \[4\]; expected \[B, \.\.\.\], a row for each datapoint"):
            estimate(model, x[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_datapoints_that_are_not_finite(bad: float) -> None:
    model, x = recognised_example(rows=8, data_dim=4, latent_dim=2)
    x[[2, 5], 1] = bad
    message = r"x is not finite in 2 of 8 datapoints \(such as 2\); expected finite values"
    with pytest.raises(ValueError, match=message):
        importance_log_marginal(model, x, 10)
    with pytest.raises(ValueError, match=message):
        hmc_log_marginal(model, x)
