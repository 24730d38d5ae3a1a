"""What is done with a model, against what the model itself says, and the experiment on gradients against exact ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vae_ext.aevb import VAE, AutoEncoder, Gaussian, GaussianLikelihood, VAEConfig, explore
from vae_ext.aevb.families import Gamma, Laplace
from vae_ext.aevb.gradient_variance import Plan, Setting, measure
from vae_ext.datasets import Dataset

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")


def make_vae(latent_dim: int = 3) -> VAE:
    return VAE(VAEConfig(64, 16, latent_dim, (8, 8)), torch.Generator().manual_seed(1))


def test_no_more_is_held_at_once_than_a_batch(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what comes is what comes of everything at once."""
    model, x = make_vae(2), digits.decode(digits.test[:20])
    rows: list[int] = []
    for network in (model.encoder, model.decoder):
        network.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[:-1].numel()))

    def looks() -> list[Tensor]:
        interpolations = explore.interpolate(model, x[:10], x[10:], 3)
        return [explore.reconstruct(model, x).mean, interpolations.mean, explore.manifold(model, 5).mean]

    at_once = looks()
    assert max(rows) > 6
    rows.clear()
    monkeypatch.setattr(explore, "BATCH", 6)
    for ours, theirs in zip(looks(), at_once, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert max(rows) == 6


def test_samples_are_of_the_prior() -> None:
    model = make_vae()
    samples = explore.sample(model, 20_000, torch.Generator().manual_seed(0))
    assert samples.z.shape == (20_000, 3)
    assert samples.z.mean(0).abs().max() < 0.03
    assert (samples.z.std(0) - 1).abs().max() < 0.03
    torch.testing.assert_close(samples.mean, model.decode(samples.z).detach())
    assert set(samples.x.unique().tolist()) == {0.0, 1.0}
    assert (samples.x - samples.mean).mean().abs() < 0.002
    assert torch.equal(
        explore.sample(model, 5, torch.Generator().manual_seed(4)).x[:3],
        explore.sample(model, 5, torch.Generator().manual_seed(4)).x[:3],
    )


@pytest.mark.parametrize("shape", [(), (1,), (3,)], ids=str)
def test_samples_are_of_a_prior_of_ones_own(shape: tuple[int, ...]) -> None:
    model = make_vae()
    model.prior = Gamma(torch.full(shape, 2.0), 4.0)  # type: ignore[assignment]
    z = explore.sample(model, 20_000, torch.Generator().manual_seed(0)).z
    assert z.shape == (20_000, 3)
    assert (z.mean(0) - 0.5).abs().max() < 0.015
    assert (z.var(0) - 0.125).abs().max() < 0.01
    assert z.T.corrcoef().fill_diagonal_(0).abs().max() < 0.03


def test_what_needs_the_standard_prior_says_so(digits: Dataset) -> None:
    model = make_vae()
    model.prior = Laplace(torch.zeros(3), 1.0)  # type: ignore[assignment]
    for look in (lambda: explore.manifold(model, 4), lambda: explore.encode(model, digits, digits.test[:3])):
        with pytest.raises(ValueError, match="prior of its own, Laplace"):
            look()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_samples_are_decoded_in_batches(monkeypatch: pytest.MonkeyPatch, likelihood: str) -> None:
    config = VAEConfig(64, 16, 2, likelihood=likelihood)
    model = VAE(config, torch.Generator().manual_seed(1))
    monkeypatch.setattr(explore, "BATCH", 7)
    largest = 0

    def watch(_: nn.Module, inputs: tuple[Tensor]) -> None:
        nonlocal largest
        largest = max(largest, len(inputs[0]))

    model.decoder.register_forward_pre_hook(watch)
    samples = explore.sample(model, 20, torch.Generator().manual_seed(0))
    assert largest == 7
    assert samples.z.shape == (20, 2)
    assert samples.mean.shape == samples.x.shape == (20, 64)
    torch.testing.assert_close(samples.mean, model.decode(samples.z).detach())


@pytest.mark.parametrize("batch", [7, 1000])
def test_codes_are_those_of_the_encoder(digits: Dataset, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(explore, "BATCH", batch)
    model, rows = make_vae(), digits.test[:20]
    codes = explore.encode(model, digits, rows)
    mean, log_var, _ = model.encoder(digits.decode(rows))
    posterior = Normal(mean.detach(), (0.5 * log_var.detach()).exp())
    torch.testing.assert_close(codes.mean, posterior.mean)
    torch.testing.assert_close(codes.std, posterior.stddev)
    torch.testing.assert_close(codes.kl, kl_divergence(posterior, Normal(0.0, 1.0)), rtol=1e-4, atol=1e-6)


def test_codes_of_a_fixed_scale(digits: Dataset) -> None:
    model = AutoEncoder(Shift(0.5, 0.5), nn.Linear(1, 64), latent_dim=1)
    codes = explore.encode(model, digits, digits.test[:4])
    assert torch.equal(codes.std, torch.full((4, 1), 0.5))
    assert codes.kl.shape == (4, 1)


def test_the_most_informative_latents() -> None:
    kl = torch.tensor([[0.1, 3.0, 0.0, 2.0], [0.1, 0.0, 0.0, 2.0]])
    assert explore.most_informative(explore.Codes(kl, kl, kl), 2) == [1, 3]


def test_reconstructions_go_through_the_mean(digits: Dataset) -> None:
    model, x = make_vae(), digits.decode(digits.test[:4])
    result = explore.reconstruct(model, x)
    assert torch.equal(result.x, x)
    assert torch.equal(result.mean, model.decode(model.encode(x).mean))


def test_interpolations_are_even_and_include_both_ends(digits: Dataset) -> None:
    model, x = make_vae(), digits.decode(digits.test[:6])
    result = explore.interpolate(model, x[:3], x[3:], steps=5)
    ends = model.encode(x).mean.detach()
    torch.testing.assert_close(result.z[:, 0], ends[:3])
    torch.testing.assert_close(result.z[:, -1], ends[3:])
    torch.testing.assert_close(result.z.diff(dim=1), ((ends[3:] - ends[:3]) / 4).unsqueeze(1).expand(3, 4, 3))
    torch.testing.assert_close(result.mean, model.decode(result.z).detach())
    assert torch.equal(result.second, x[3:])


def test_the_manifold_is_even_in_probability() -> None:
    model = make_vae()
    result = explore.manifold(model, 4, (2, 0))
    quantiles = torch.tensor([0.125, 0.375, 0.625, 0.875])
    torch.testing.assert_close(Normal(0.0, 1.0).cdf(result.coordinates), quantiles)
    # Latent 2 to the right, latent 0 upwards, which is backwards in rows.
    torch.testing.assert_close(result.z[1, :, 2], result.coordinates)
    torch.testing.assert_close(result.z[:, 1, 0], result.coordinates.flip(0))
    assert not result.z[..., 1].any()
    torch.testing.assert_close(result.mean, model.decode(result.z).detach())


class Shift(nn.Module):
    """An encoder whose mean is one parameter, whatever x, and whose deviation is fixed."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))
        self.std = std

    def forward(self, x: Tensor) -> Gaussian:
        return Gaussian(self.mean.expand(len(x), 1), self.std, "std")


class Scale(nn.Module):
    """A decoder x = w z + noise of variance 1/2."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, z: Tensor) -> Gaussian:
        return Gaussian(self.weight * z, 0.5, "var")


@pytest.mark.parametrize(("draws", "batch_size"), [(1, 1), (4, 1), (1, 6)])
def test_the_measured_variance_is_the_exact_one(draws: int, batch_size: int) -> None:
    """Estimator B's gradient in the mean m is w (x - w z) / var - m: linear in x and in epsilon."""
    weight, std, var = 1.5, 0.8, 0.5
    x = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0)) * 2
    data = Dataset("line", x, x[:10], 1, (1,))
    model = AutoEncoder(Shift(3.0, std), Scale(weight), GaussianLikelihood(), latent_dim=1)
    (measured,) = measure(model, data, [Setting("sgvb_b", draws, batch_size)], repeats=1500)
    noise = (weight**2 * std / var) ** 2 / (draws * batch_size)
    total = noise + (weight / var) ** 2 * x.var().item() / batch_size
    assert abs(measured.encoder.total - total) < 4 * measured.encoder.standard_error
    assert measured.encoder.standard_error < 0.06 * total
    assert measured.encoder.noise == pytest.approx(noise, rel=0.15)
    gradient = weight * (x.mean().item() - weight * 3.0) / var - 3.0
    assert measured.encoder.squared_norm == pytest.approx(gradient**2, rel=0.2)
    assert measured.decoder.total > measured.decoder.noise > 0


def test_a_plan_varies_one_thing_at_a_time() -> None:
    plan = Plan(draws=(4, 1), batch_sizes=(5, 500, 50))
    points = {(setting.draws, setting.batch_size) for setting in plan.settings()}
    assert points == {(1, 50), (4, 50), (1, 5), (1, 500)}
    assert len(plan.settings()) == 3 * len(points)


def test_measuring_leaves_the_model_as_it_is(digits: Dataset) -> None:
    model = make_vae()
    before = [parameter.clone() for parameter in model.parameters()]
    first = list(measure(model, digits, [Setting("score_function", 1, 3)] * 2, repeats=2))
    assert first[0] == first[1]
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, parameter)
        assert parameter.grad is None
