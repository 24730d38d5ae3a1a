"""Full variational Bayes: against closed forms, quadrature and exact posteriors, and against MAP on few datapoints."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from scipy import integrate, stats
from torch import Generator, Tensor, nn
from torch.distributions import Normal, kl_divergence

from tests.commands import arrays_of, assert_one_sentence, invoke
from vae_ext import make_rng_state, normal_log_prob, normal_rsample
from vae_ext.aevb import (
    VAE,
    AutoEncoder,
    Bayesian,
    FullVBTrainer,
    Gaussian,
    GaussianLikelihood,
    TrainConfig,
    Trainer,
    VAEConfig,
    bayesian,
    full_vb_bound,
    predict,
    sgvb_b,
    weights_drawn,
)
from vae_ext.aevb.bayesian import bayesian_modules
from vae_ext.aevb.small_data import make_trainer
from vae_ext.datasets import Dataset

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def small_vae() -> VAE:
    return VAE(VAEConfig(64, 8, 2), seeded(1))


@pytest.fixture
def network() -> Bayesian:
    """Some module with a posterior that is no longer where it began."""
    torch.manual_seed(0)
    module = Bayesian(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)), prior_std=0.7)
    with torch.no_grad():
        module.log_var.copy_(torch.randn_like(module.log_var))
    return module


def test_the_kl_is_that_of_torch(network: Bayesian) -> None:
    q = Normal(network.mean.double(), (0.5 * network.log_var.double()).exp())
    expected = kl_divergence(q, Normal(0.0, 0.7)).sum()
    torch.testing.assert_close(network.kl().double(), expected, rtol=1e-6, atol=0)
    with weights_drawn(network, generator=seeded()) as kl:
        torch.testing.assert_close(kl.double(), expected, rtol=1e-6, atol=0)


def test_weights_are_one_row_of_the_samplers_noise(network: Bayesian) -> None:
    """The module computes with that row, cut up in the order of its parameters, and elsewhere with the mean."""
    x, state = torch.randn(5, 3, generator=seeded(1)), make_rng_state(seeded(2))
    theta = normal_rsample(network.mean, network.log_var, rng_state=state, stream=1)[0]

    def compute(theta: Tensor) -> Tensor:
        hidden = torch.tanh(x @ theta[:12].reshape(4, 3).T + theta[12:16])
        return hidden @ theta[16:].reshape(2, 4).T

    with weights_drawn(network, rng_state=state):
        drawn = network(x)
    torch.testing.assert_close(drawn, compute(theta))
    torch.testing.assert_close(network(x), compute(network.mean[0]))
    assert (drawn - network(x)).abs().max() > 0.01


def test_a_module_begins_as_what_it_was() -> None:
    """Any one: with buffers, with parameters used twice, with keyword arguments."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor, *, shift: float) -> Tensor:
            outputs: Tensor = self.norm(self.second(self.first(x)))
            return outputs + shift

    module, x = Odd(), torch.randn(6, 4, generator=seeded())
    expected = copy.deepcopy(module)(x, shift=2.0)
    wrapped = Bayesian(module, std=1e-6)
    assert wrapped.mean.shape == (1, 16 + 4 + 4 + 8)
    torch.testing.assert_close(wrapped(x, shift=2.0), expected)
    assert module.norm.num_batches_tracked == 1
    with weights_drawn(wrapped):
        torch.testing.assert_close(wrapped(x, shift=2.0), expected, rtol=1e-3, atol=1e-4)
    assert {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad} == {"mean", "log_var"}


def noise_of(module: Bayesian) -> Tensor:
    """Zeta, of theta = mu + sigma * zeta."""
    assert module._drawn is not None
    return ((module._drawn - module.mean) / (0.5 * module.log_var).exp())[0]


def test_modules_have_noise_of_their_own() -> None:
    model = bayesian(small_vae(), encoder=True)
    encoder, decoder = bayesian_modules(model)
    state = make_rng_state(seeded())
    with weights_drawn(model, rng_state=state) as kl:
        torch.testing.assert_close(kl, encoder.kl() + decoder.kl())
        first, second = (noise_of(module)[:500] for module in (encoder, decoder))
        noise_of_z = normal_rsample(torch.zeros(1, 500), std=1.0, rng_state=state)[0]
    for one, other in ((first, second), (first, noise_of_z), (second, noise_of_z)):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1].abs() < 0.15


class Encode(nn.Module):
    """q(z given x) = N(0.8 x, 0.3)."""

    def forward(self, x: Tensor) -> Gaussian:
        return Gaussian(0.8 * x, 0.3, "var")


class Decode(nn.Module):
    """p(x given z) = N(theta z, 0.5)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.9, dtype=torch.float64))

    def forward(self, z: Tensor) -> Gaussian:
        return Gaussian(self.theta * z, 0.5, "var")


X = 1.2 * torch.randn(12, 1, generator=seeded(5), dtype=torch.float64)


@pytest.fixture
def line() -> AutoEncoder:
    """One weight, whose bound, gradient and evidence are known."""
    return bayesian(AutoEncoder(Encode(), Decode(), GaussianLikelihood(), latent_dim=1), std=0.4, prior_std=1.5)


def exact_bound(mean: Tensor, log_var: Tensor, x: Tensor) -> Tensor:
    """L(phi; X) of `line`: theta and theta^2 have the expectations mu and mu^2 + sigma^2."""
    m, s, v = 0.8 * x, 0.3, 0.5
    squares = x.square() - 2 * x * mean * m + (mean.square() + log_var.exp()) * (m.square() + s)
    log_likelihood = -0.5 * (math.log(2 * math.pi * v) + squares / v)
    kl_z = 0.5 * (m.square() + s - 1 - math.log(s))
    ratio = log_var.exp() / 1.5**2
    kl_theta = 0.5 * (ratio + mean.square() / 1.5**2 - 1 - ratio.log())
    return (log_likelihood - kl_z).sum() - kl_theta.sum()


def evidence(x: Tensor) -> float:
    """log p(X) = log of the integral over theta of p(theta) prod_i N(x_i; 0, theta^2 + 0.5), by quadrature."""

    def density(theta: float) -> float:
        log_likelihood = stats.norm.logpdf(x.numpy(), 0, math.sqrt(theta**2 + 0.5)).sum()
        return float(np.exp(log_likelihood + stats.norm.logpdf(theta, 0, 1.5)))

    return math.log(integrate.quad(density, -15, 15, points=[0])[0])


def test_the_bound_and_its_gradient_are_unbiased(line: AutoEncoder) -> None:
    """Over draws of minibatches of 4 of the 12, of theta and of z; each mean within 4 of its standard errors."""
    (theta,) = bayesian_modules(line)
    generator, found = seeded(3), []
    for _ in range(2000):
        rows = torch.randint(12, (4,), generator=generator)
        bound = full_vb_bound(line, X[rows], 12, num_samples=2, generator=generator)
        found.append(torch.stack([bound, *(g[0, 0] for g in torch.autograd.grad(bound, [theta.mean, theta.log_var]))]))
    values = torch.stack(found).detach()
    exact = exact_bound(theta.mean, theta.log_var, X)
    expected = torch.stack([exact, *(g[0, 0] for g in torch.autograd.grad(exact, [theta.mean, theta.log_var]))])
    error = values.std(0) / len(values) ** 0.5
    assert ((values.mean(0) - expected.detach()).abs() < 4 * error).all()
    assert (error < 0.3).all()


def test_the_bound_is_below_the_evidence(line: AutoEncoder) -> None:
    """Wherever q is, and nearest where ascending the bound leads: to N(sum x m / v / precision, 1 / precision)."""
    (theta,) = bayesian_modules(line)
    precision = ((0.8 * X).square() + 0.3).sum() / 0.5 + 1 / 1.5**2
    highest = evidence(X)
    optimizer = torch.optim.Adam([theta.mean, theta.log_var], 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    begun = exact_bound(theta.mean, theta.log_var, X).item()
    generator = seeded(4)
    for _ in range(400):
        optimizer.zero_grad()
        (-full_vb_bound(line, X, 12, num_samples=4, generator=generator)).backward()
        optimizer.step()
        schedule.step()
    ended = exact_bound(theta.mean, theta.log_var, X).item()
    best = exact_bound((1.6 * X.square()).sum() / precision, -precision.log(), X).item()
    # Within one of Adam's first steps, in the mean and in log_var, where the curvatures are the precision and 1/2.
    reached = best - 0.5 * (precision.item() + 0.5) * 0.05**2
    assert begun + 0.3 < ended
    assert reached < ended <= best < highest
    for mean in (-1.0, 0.0, 0.7, 1.3):
        for log_var in (-5.0, -3.0, -1.0):
            q = torch.tensor([[mean]]).double(), torch.tensor([[log_var]]).double()
            assert exact_bound(*q, X) <= best


def test_bayesian_linear_regression_is_exact() -> None:
    """With orthogonal inputs the posterior is diagonal, so that q is it and the bound is the evidence."""
    inputs = torch.linalg.qr(torch.randn(20, 3, generator=seeded(1)).double())[0] * torch.tensor([1.0, 4.0, 9.0])
    targets = inputs @ torch.tensor([0.5, -1.0, 2.0]).double() + 0.6 * torch.randn(20, generator=seeded(2)).double()
    layer = Bayesian(nn.Linear(3, 1, bias=False).double(), prior_std=1.3)
    noise_var, generator = 0.6**2, seeded(3)

    def bound() -> Tensor:
        with weights_drawn(layer, generator=generator) as kl:
            return normal_log_prob(layer(inputs).T, x=targets.unsqueeze(0), var=noise_var)[0] - kl

    optimizer = torch.optim.Adam([layer.mean, layer.log_var], 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4000)
    for _ in range(4000):
        optimizer.zero_grad()
        (-bound()).backward()
        optimizer.step()
        schedule.step()

    precision = inputs.T @ inputs / noise_var + torch.eye(3) / 1.3**2
    mean = torch.linalg.solve(precision, inputs.T @ targets / noise_var)
    std = precision.diagonal().rsqrt()
    assert ((layer.mean[0] - mean).abs() < 0.2 * std).all()
    torch.testing.assert_close((0.5 * layer.log_var[0]).exp().detach(), std, rtol=0.05, atol=0)

    covariance = noise_var * torch.eye(20) + 1.3**2 * inputs @ inputs.T
    exact = stats.multivariate_normal.logpdf(targets.numpy(), np.zeros(20), covariance.numpy())
    with torch.no_grad():
        bounds = torch.stack([bound() for _ in range(2000)])
    assert abs(bounds.mean().item() - exact) < 0.02 + 4 * bounds.std().item() / 2000**0.5

    prediction = predict(layer, lambda: layer(inputs), draws=2000, generator=generator)
    torch.testing.assert_close(prediction.mean[:, 0], inputs @ mean, rtol=0, atol=0.1)
    spread = (inputs.square() @ std.square()).sqrt()
    torch.testing.assert_close(prediction.std[:, 0], spread, rtol=0.12, atol=0)


def test_a_step_ascends_the_bound_of_the_whole_dataset(digits: Dataset) -> None:
    """Its gradient is that of -`full_vb_bound` / N, and of the prior of what has no posterior: of the encoder."""
    few = replace(digits, train=digits.train[:70])
    trainer = FullVBTrainer(few, TrainConfig(hidden=8, batch_size=10, optimizer="sgd", lr=1.0), CPU)
    state, model = trainer.generator.get_state(), copy.deepcopy(trainer.model)
    trainer.step()
    trainer.generator.set_state(state)
    minibatch = trainer.minibatches.draw()
    bound = full_vb_bound(model, minibatch.x, 70, rng_state=minibatch.rng_state)
    (bound / 70).backward()
    for (name, old), new in zip(model.named_parameters(), trainer.model.parameters(), strict=True):
        step = torch.zeros_like(old) if old.grad is None else old.grad
        prior = -old / 70 if name.startswith("encoder.") else 0.0
        torch.testing.assert_close(new - old, step + prior, rtol=1e-3, atol=1e-6)
    assert trainer.read_tally().bound_sum / 10 == pytest.approx(bound.item() / 70, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "sgd"])
@pytest.mark.parametrize("encoder", [False, True])
def test_training_goes_on_to_the_same_bits(digits: Dataset, encoder: bool, optimizer: str) -> None:
    def make() -> FullVBTrainer:
        config = TrainConfig(hidden=8, seed=3, latent=2, optimizer=optimizer)
        return FullVBTrainer(digits, config, CPU, bayesian(VAE(VAEConfig(64, 8, 2), seeded()), encoder=encoder))

    one, other = make(), make()
    one.step()
    state = copy.deepcopy(one.state_dict())
    one.step()
    other.load_state_dict(state)
    other.step()
    for first, second in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(first, second)
    assert one.held_out_bound() == other.held_out_bound()


def test_the_held_out_bound_is_a_mean_over_weights(digits: Dataset) -> None:
    few = replace(digits, test=digits.test[:20])
    trainer = FullVBTrainer(few, TrainConfig(hidden=8), CPU)
    with torch.no_grad():
        for module in bayesian_modules(trainer.model):
            module.log_var.fill_(-2.0)
        x = few.decode(few.test)
        found = []
        for seed in range(300):
            with weights_drawn(trainer.model, generator=seeded(seed)):
                found.append(sgvb_b(trainer.model, x, generator=seeded(seed)).mean())
    bounds = torch.stack(found)
    assert abs(trainer.held_out_bound() - bounds.mean()) < 4 * bounds.std() / FullVBTrainer.WEIGHT_DRAWS**0.5
    assert abs(Trainer.held_out_bound(trainer) - bounds.mean()) > 2 * bounds.std() / FullVBTrainer.WEIGHT_DRAWS**0.5


def test_it_does_not_overfit_few_datapoints_as_map_does(digits: Dataset) -> None:
    """200 digits, a Gaussian decoder of one learned variance, the same start."""
    few = replace(digits, train=digits.train[:200])
    config = TrainConfig(
        hidden=32, latent=5, batch_size=50, optimizer="adam", lr=0.01, likelihood="gaussian", decoder_log_var="shared"
    )
    ended, best = {}, {}
    for method in ("map", "full_vb_decoder"):
        trainer = make_trainer(method, few, config, CPU)
        bounds = []
        while trainer.samples < 90_000:
            trainer.step()
            if trainer.samples % 15_000 == 0:
                bounds.append(trainer.held_out_bound())
        ended[method], best[method] = bounds[-1], max(bounds)
    assert ended["full_vb_decoder"] > ended["map"] + 10
    assert ended["full_vb_decoder"] > best["full_vb_decoder"] - 2
    # It has learned more than the mean digit and one variance about it.
    x, test = few.decode(few.train), few.decode(few.test)
    constant = Normal(x.mean(0), (x - x.mean(0)).square().mean().sqrt()).log_prob(test).sum(-1).mean()
    assert ended["full_vb_decoder"] > constant + 10


def test_noise_comes_from_one_source() -> None:
    model, x = bayesian(small_vae()), torch.rand(5, 64)
    both: dict[str, Any] = {"generator": seeded(), "rng_state": make_rng_state()}
    with pytest.raises(ValueError, match="generator and rng_state were both given"):
        full_vb_bound(model, x, 100, **both)
    with pytest.raises(ValueError, match="generator and rng_state were both given"), weights_drawn(model, **both):
        pass


def test_wrong_use_is_explained(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="Tanh has no parameters; expected a module with something to learn"):
        Bayesian(nn.Tanh())
    with pytest.raises(ValueError, match="prior_std is 0; expected a positive, finite number"):
        Bayesian(nn.Linear(2, 2), prior_std=0)
    with pytest.raises(TypeError, match=r"parameters of Sequential are of .*; expected one dtype"):
        Bayesian(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))
    for wrong in (
        lambda: full_vb_bound(small_vae(), torch.zeros(2, 64), 10),
        lambda: FullVBTrainer(digits, TrainConfig(), CPU, small_vae()),
        lambda: predict(small_vae(), lambda: torch.zeros(1)),
    ):
        with pytest.raises(ValueError, match="VAE has no Bayesian module; expected one"):
            wrong()


def test_the_command(tmp_path: Path) -> None:
    options = ("--sizes", "60,80", "--samples", 2500, "--hidden", 8, "--out", tmp_path)
    result = invoke("full-vb", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "full_vb.json").read_text())
    assert report["config"]["likelihood"] == "gaussian"
    assert [(curve["method"], curve["size"]) for curve in report["curves"]] == [
        (method, size) for size in (60, 80) for method in ("map", "full_vb_decoder", "full_vb_both")
    ]
    for curve in report["curves"]:
        samples = [record["samples"] for record in curve["records"]]
        assert samples == sorted(set(samples))
        assert samples[-1] == 2500
        assert f"held-out bound {curve['records'][-1]['test_bound']:.2f} nats at the end" in result.stdout
    arrays = arrays_of(tmp_path / "full_vb.npz")
    assert arrays["size"].tolist() == [60, 80]
    assert arrays["x"].shape == (16, 8, 8)
    assert arrays["mean"].shape == arrays["std"].shape == (2, 16, 8, 8)
    assert (arrays["std"] > 0).all()
    for name in ("full_vb.png", "full_vb_uncertainty.png"):
        assert imread(tmp_path / name)[..., :3].std() > 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sizes", "20"), "--sizes is 20: expected numbers from the 50 of a minibatch to the 1,500 training"),
        (("--sizes", "100,5000"), "--sizes is 100,5000: expected numbers from the 50"),
        (("--sizes", "few"), "--sizes is 'few': expected positive integers"),
        (("--likelihood", "poisson"), "--likelihood is 'poisson': expected one of bernoulli, gaussian"),
        (
            ("--sizes", "60", "--samples", "3000", "--lr", "1e6"),
            "of 60 datapoints was no longer finite after",
        ),
    ],
)
def test_wrong_use_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(invoke("full-vb", *options), message)
    assert not list(tmp_path.iterdir())
