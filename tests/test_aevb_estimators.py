"""The estimators against torch.distributions in float64, with the noise that the operators drew."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from vae_ext import ops
from vae_ext.aevb import VAE, VAEConfig, minibatch_bound, sgvb_b

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")

RNG_STATE = torch.tensor([12345, 678])


def make_model() -> VAE:
    return VAE(VAEConfig(data_dim=20, hidden_dim=11, latent_dim=3), torch.Generator().manual_seed(1))


def make_x(rows: int = 7) -> Tensor:
    return torch.rand(rows, 20, generator=torch.Generator().manual_seed(2))


def bound_in_float64(model: VAE, x: Tensor, draws: int) -> tuple[Tensor, VAE]:
    """The bound by torch.distributions, and the float64 copy of the model that it differentiates to."""
    mean, log_var = (half.detach() for half in model.encoder(x))
    z, _ = ops.normal_rsample_kl(mean, log_var, draws, rng_state=RNG_STATE)
    epsilon = (z.double() - mean.double()) / torch.exp(log_var.double() / 2)

    wide = copy.deepcopy(model).double()
    mean, log_var = wide.encoder(x.double())
    posterior = Normal(mean, torch.exp(log_var / 2))
    z = posterior.mean + posterior.stddev * epsilon
    likelihood = Bernoulli(logits=wide.decoder(z), validate_args=False)
    log_likelihood = likelihood.log_prob(x.double().expand(draws, -1, -1)).sum(-1)
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return log_likelihood.mean(0) - kl_divergence(posterior, prior).sum(-1), wide


@pytest.mark.parametrize("draws", [1, 3])
def test_sgvb_b_and_its_gradient(draws: int) -> None:
    model, x = make_model(), make_x()
    bound = sgvb_b(model, x, draws, rng_state=RNG_STATE)
    expected, wide = bound_in_float64(model, x, draws)
    assert bound.shape == (7,)
    torch.testing.assert_close(bound.double(), expected, rtol=1e-5, atol=1e-5)

    weights = torch.arange(1.0, 8.0)
    bound.backward(weights)
    expected.backward(weights.double())
    for (name, ours), theirs in zip(model.named_parameters(), wide.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_first_row_makes_the_bound_independent_of_the_split() -> None:
    model, x = make_model(), make_x()
    whole = sgvb_b(model, x, 2, rng_state=RNG_STATE)
    parts = [sgvb_b(model, x[:4], 2, rng_state=RNG_STATE)]
    parts.append(sgvb_b(model, x[4:], 2, rng_state=RNG_STATE, first_row=4))
    # Matrix products of other heights may round otherwise; other noise would differ by whole nats.
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4)


def test_the_minibatch_estimator_is_unbiased() -> None:
    bound = torch.tensor([-1.0, -10.0, 4.0, 0.5, -3.0], dtype=torch.float64)
    estimates = [minibatch_bound(bound[list(rows)], dataset_size=5) for rows in combinations(range(5), 2)]
    torch.testing.assert_close(torch.stack(estimates).mean(), bound.sum())
    torch.testing.assert_close(estimates[0], (bound[0] + bound[1]) * 5 / 2)


def test_initial_parameters_have_the_stated_spread() -> None:
    model = VAE(VAEConfig(data_dim=400, hidden_dim=500, latent_dim=50), torch.Generator().manual_seed(0))
    for layer in (model.encoder.hidden, model.encoder.output, model.decoder.hidden, model.decoder.output):
        assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5, rel=0.03)
        assert layer.bias.std().item() == pytest.approx(0.01, rel=0.25)
    assert model.encoder.output.out_features == 2 * 50
