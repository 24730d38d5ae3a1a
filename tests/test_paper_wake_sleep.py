"""The baseline of the paper's figure 2, against the two objectives of wake-sleep written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from benchmarks.paper.wake_sleep import WakeSleepTrainer, wake_sleep
from vae_ext import ops
from vae_ext.aevb import VAE, AutoEncoder, GaussianLikelihood, TrainConfig, VAEConfig, explore, sgvb_b
from vae_ext.datasets import Dataset, load_dataset

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture
def state() -> Tensor:
    return ops.make_rng_state(torch.Generator().manual_seed(3))


def small_model(likelihood: str) -> VAE:
    config = VAEConfig(data_dim=6, hidden_dim=8, latent_dim=2, likelihood=likelihood)
    return VAE(config, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_value_is_the_bound(likelihood: str, state: Tensor) -> None:
    model, x = small_model(likelihood), torch.rand(5, 6, generator=torch.Generator().manual_seed(2))
    expected = sgvb_b(model, x, rng_state=state)
    torch.testing.assert_close(wake_sleep(model, x, state), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_each_half_of_the_model_has_the_gradient_of_its_own_objective(likelihood: str, state: Tensor) -> None:
    model, x = small_model(likelihood), torch.rand(5, 6, generator=torch.Generator().manual_seed(2))
    wake_sleep(model, x, state).sum().backward()

    posterior = model.encode(x)
    z = ops.normal_rsample(posterior.mean, posterior.scale, rng_state=state).detach()
    dreams = explore.sample(model, 5, torch.Generator().manual_seed(int(state[0])))
    recognised = model.encode(dreams.x)
    wake = model.log_likelihood(z, x).sum()
    sleep = Normal(recognised.mean, (0.5 * torch.as_tensor(recognised.scale)).exp()).log_prob(dreams.z).sum()
    for part, objective in ((model.decoder, wake), (model.encoder, sleep)):
        parameters = list(part.parameters())
        for parameter, expected in zip(parameters, torch.autograd.grad(objective, parameters), strict=True):
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-4)


class OnePerRow(nn.Module):
    """q(z given x) = N(slope x, exp(log_var)), the parameters apart for each row, so that gradients are, too."""

    def __init__(self, rows: int, slope: float, log_var: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((rows, 1), slope))
        self.log_var = nn.Parameter(torch.full((rows, 1), log_var))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.slope * x, self.log_var


class Line(nn.Module):
    """p(x given z) = N(2 z, 1)."""

    def forward(self, z: Tensor) -> Any:
        return 2 * z, torch.zeros_like(z)


@pytest.mark.parametrize(("slope", "variance", "settled"), [(0.4, 0.2, True), (0.5, 0.2, False), (0.4, 0.3, False)])
def test_sleep_settles_at_the_posterior(slope: float, variance: float, settled: bool, state: Tensor) -> None:
    """With p(z) = N(0, 1) and p(x given z) = N(2 z, 1), p(z given x) is N(2 x / 5, 1 / 5)."""
    rows = 20_000
    encoder = OnePerRow(rows, slope, float(torch.tensor(variance).log()))
    model = AutoEncoder(encoder, Line(), GaussianLikelihood(), latent_dim=1)
    wake_sleep(model, torch.zeros(rows, 1), state).sum().backward()
    within = []
    for parameter in (encoder.slope, encoder.log_var):
        assert parameter.grad is not None
        gradient = parameter.grad.double()
        within.append(gradient.mean().abs() <= 4 * gradient.std() / rows**0.5)
    assert all(within) == settled


def test_it_resumes_to_the_bit(digits: Dataset) -> None:
    config = TrainConfig(samples=2000, hidden=16)
    whole, stopped, resumed = (WakeSleepTrainer(digits, config, CPU) for _ in range(3))
    for _ in range(6):
        whole.step()
    for _ in range(3):
        stopped.step()
    resumed.load_state_dict(stopped.state_dict())
    for _ in range(3):
        resumed.step()
    assert resumed.read_tally() == whole.read_tally()
    for expected, parameter in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_it_learns(digits: Dataset) -> None:
    trainer = WakeSleepTrainer(digits, TrainConfig(hidden=32, lr=0.01), CPU)
    before = trainer.held_out_bound()
    for _ in range(200):
        trainer.step()
    assert trainer.held_out_bound() > before + 5
