"""The models: that they are what appendix C says, train, and are rebuilt from plain values."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Laplace, Normal

from vae_ext.aevb import (
    VAE,
    AutoEncoder,
    GaussianHead,
    GaussianLikelihood,
    GaussianMLP,
    TrainConfig,
    Trainer,
    VAEConfig,
    explore,
    families,
    load_checkpoint,
    save_checkpoint,
    sgvb_b,
)
from vae_ext.aevb.compatibility import model_config_for
from vae_ext.aevb.interface import as_gaussian
from vae_ext.datasets import Dataset, load_dataset
from vae_ext.errors import UserError
from vae_ext.train_config import ConfigError

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")

CPU = torch.device("cpu")
KINDS: list[dict[str, Any]] = [
    {},
    {"likelihood": "gaussian"},
    {"likelihood": "gaussian", "decoder_mean": "linear"},
    {"likelihood": "gaussian", "decoder_log_var": "elements"},
    {"likelihood": "gaussian", "decoder_log_var": "shared"},
    {"likelihood": "gaussian", "decoder_log_var": -3.0},
    {"network": "conv"},
    {"network": "conv", "likelihood": "gaussian"},
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())) or "bernoulli")


def make_vae(**kind: Any) -> VAE:
    return VAE(VAEConfig(64, 16, 3, (8, 8), **kind), torch.Generator().manual_seed(1))


def make_z(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def test_the_bernoulli_mlp_is_that_of_appendix_c() -> None:
    model, z, x = make_vae(), make_z(5, 3), torch.rand(5, 64).round()
    first, second = model.decoder.hidden, model.decoder.output
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    y = torch.sigmoid(torch.tanh(z @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    torch.testing.assert_close(model.decode(z), y)
    torch.testing.assert_close(model.log_likelihood(z, x), Bernoulli(y).log_prob(x).sum(-1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("mean", ["sigmoid", "linear"])
def test_the_gaussian_mlp_is_that_of_appendix_c(mean: str) -> None:
    model, z, x = make_vae(likelihood="gaussian", decoder_mean=mean), make_z(5, 3), torch.rand(5, 64)
    hidden = torch.tanh(model.decoder.hidden(z))  # type: ignore[operator]
    mu, log_var = model.decoder.output(hidden).chunk(2, dim=-1)  # type: ignore[operator]
    mu = torch.sigmoid(mu) if mean == "sigmoid" else mu
    torch.testing.assert_close(model.decode(z), mu)
    expected = Normal(mu, (0.5 * log_var).exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(model.log_likelihood(z, x), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("log_var", "outputs", "learned"), [("network", 8, 0), ("elements", 4, 4), ("shared", 4, 1)])
def test_where_the_scale_of_a_gaussian_comes_from(log_var: str, outputs: int, learned: int) -> None:
    head = GaussianHead(4, log_var=log_var)
    assert (head.num_outputs, sum(parameter.numel() for parameter in head.parameters())) == (outputs, learned)
    mean, scale, kind = head(torch.arange(2.0 * outputs).reshape(2, outputs))
    assert (kind, mean.tolist()[0]) == ("log_var", [0, 1, 2, 3])
    assert scale.tolist() == {"network": [[4, 5, 6, 7], [12, 13, 14, 15]], "elements": [0] * 4, "shared": 0}[log_var]


def test_a_fixed_scale() -> None:
    assert GaussianHead(4, log_var=-2)(torch.zeros(1, 4)).scale == -2.0


@pytest.mark.parametrize(
    ("arguments", "message"), [({"mean": "tanh"}, "mean is 'tanh'"), ({"log_var": "x"}, "log_var")]
)
def test_a_head_of_an_unknown_kind(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianHead(4, **arguments)


@each_kind
def test_every_kind_learns(kind: dict[str, Any], digits: Dataset) -> None:
    config = TrainConfig(samples=1, hidden=16, latent=3, optimizer="adam", lr=3e-3, **kind)
    trainer = Trainer(digits, config, CPU)
    before = trainer.held_out_bound()
    for _ in range(60):
        trainer.step()
    assert trainer.held_out_bound() > before + 5
    parameters = dict(trainer.model.named_parameters())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in parameters.values())


@each_kind
def test_samples_have_the_mean_of_the_likelihood(kind: dict[str, Any]) -> None:
    model, generator = make_vae(**kind), torch.Generator().manual_seed(3)
    with torch.no_grad():
        output = model.decoder(make_z(1, 3).expand(20_000, 3))
        x, mean = model.likelihood.sample(output, generator), model.likelihood.mean(output)
    error = (x.mean(0) - mean[0]) / (x.std(0) / math.sqrt(len(x)))
    assert error.abs().max() < 4.5
    assert x.std(0).min() > 0.1


@each_kind
def test_a_checkpoint_rebuilds_every_kind(kind: dict[str, Any], digits: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(digits, TrainConfig(hidden=16, latent=3, **kind), CPU)
    save_checkpoint(tmp_path / "checkpoint.pt", trainer)
    loaded = load_checkpoint(tmp_path / "checkpoint.pt").model
    assert loaded.config == trainer.model.config
    x, z = digits.decode(digits.test[:5]), make_z(2, 5, 3)
    assert torch.equal(loaded.log_likelihood(z, x), trainer.model.log_likelihood(z, x))


@pytest.mark.parametrize("event_shape", [(28, 28), (28, 20), (7, 9, 3), (4, 5, 1)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_convolutions_take_pictures_of_any_size(event_shape: tuple[int, ...], likelihood: str) -> None:
    config = VAEConfig(math.prod(event_shape), 8, 2, event_shape, network="conv", likelihood=likelihood)
    model, x = VAE(config), torch.rand(3, math.prod(event_shape))
    assert model.encode(x).mean.shape == (3, 2)
    assert model.decode(make_z(4, 3, 2)).shape == (4, 3, x.shape[1])
    assert sgvb_b(model, x, 2).shape == (3,)


def test_convolutions_see_height_width_and_channels_as_they_are_stored() -> None:
    """A change of one corner pixel, of one channel, reaches only the features near that corner."""
    model = VAE(VAEConfig(8 * 12 * 3, 8, 2, (8, 12, 3), network="conv"), torch.Generator().manual_seed(0))
    x = torch.zeros(2, 8, 12, 3)
    x[1, 0, 11, 2] = 1
    pictures = x.flatten(1).unflatten(1, model.encoder.picture).permute(0, 3, 1, 2)
    features = model.encoder.convolutions[0](pictures)  # type: ignore[operator, index]
    changed = (features[1] - features[0]).abs().sum(0) > 0
    assert changed.nonzero().tolist() == [[0, 5]]


@pytest.mark.parametrize(("init", "weight_std"), [("fan-in", None), ("variance-0.01", 0.1), ("std-0.01", 0.01)])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_initial_parameters_have_the_stated_spread(init: str, weight_std: float | None, network: str) -> None:
    config = VAEConfig(400, 500, 50, (20, 20), init=init, network=network)
    model = VAE(config, torch.Generator().manual_seed(0))
    for layer in model.modules():
        if not isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            continue
        fan_in = layer.weight[0].numel()
        if isinstance(layer, nn.ConvTranspose2d):
            fan_in = layer.in_channels * 4  # kernels of 4 x 4, which overlap at strides of 2
        assert layer.weight.std().item() == pytest.approx(weight_std or fan_in**-0.5, rel=0.15)
        assert layer.bias is not None
        if layer.bias.numel() > 100:
            assert layer.bias.std().item() == pytest.approx(weight_std or 0.01, rel=0.25)


def test_the_mlps_spread_is_exact_for_large_layers() -> None:
    model = VAE(VAEConfig(400, 500, 50), torch.Generator().manual_seed(0))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5, rel=0.03)


class Standardised(nn.Module):
    """An encoder of one's own, which gives a standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, str]:
        mean, raw = self.layers(x).chunk(2, dim=-1)
        return mean, nn.functional.softplus(raw), "std"


class LaplacePosterior(Standardised):
    """The same of another family."""

    def forward(self, x: Tensor) -> Any:
        return families.Laplace(super().forward(x)[0], 1.0)


class LaplaceLikelihood:
    """A likelihood of one's own."""

    support = (-math.inf, math.inf)

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        log_prob: Tensor = Laplace(output, 0.2).log_prob(x)
        return log_prob.sum(-1)

    def mean(self, output: Tensor) -> Tensor:
        return output

    def sample(self, output: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return output


@pytest.mark.parametrize(
    ("decoder", "likelihood"),
    [
        (lambda: nn.Linear(2, 64), None),
        (lambda: GaussianMLP(2, 10, 64, mean="sigmoid"), GaussianLikelihood()),
        (lambda: nn.Linear(2, 64), LaplaceLikelihood()),
    ],
    ids=["bernoulli", "gaussian", "laplace"],
)
def test_modules_of_ones_own(decoder: Any, likelihood: Any, digits: Dataset, tmp_path: Path) -> None:
    """They train, are saved as weights, and are loaded into the same modules."""

    def make_model() -> AutoEncoder:
        torch.manual_seed(0)
        return AutoEncoder(Standardised(), decoder(), likelihood, latent_dim=2)

    config = TrainConfig(optimizer="adam", lr=1e-2)
    trainer = Trainer(digits, config, CPU, model=make_model())
    before = trainer.held_out_bound()
    for _ in range(40):
        trainer.step()
    assert trainer.held_out_bound() > before + 5

    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, trainer)
    with pytest.raises(UserError, match=r"checkpoint\.pt is of modules of one's own: give load_checkpoint a model"):
        load_checkpoint(path)
    loaded = load_checkpoint(path, make_model()).model
    x = digits.decode(digits.test[:3])
    assert torch.equal(loaded.encode(x).mean, trainer.model.encode(x).mean)
    with pytest.raises(UserError, match=r"is of another model"):
        load_checkpoint(path, AutoEncoder(nn.Linear(64, 4), decoder(), likelihood, latent_dim=2))


def test_a_decoder_that_returns_no_gaussian() -> None:
    model = AutoEncoder(Standardised(), nn.Linear(2, 64), GaussianLikelihood(), latent_dim=2)
    with pytest.raises(TypeError, match=r"the decoder returned Tensor; expected \(mean, log_var\), or"):
        sgvb_b(model, torch.rand(3, 64))


def test_another_number_of_latents_than_the_encoder_gives() -> None:
    """Also of a family."""
    for encoder in (Standardised(), LaplacePosterior()):
        model = AutoEncoder(encoder, nn.Linear(2, 64), latent_dim=3)
        with pytest.raises(ValueError, match=r"the encoder gives 2 latent variables; expected latent_dim = 3"):
            model.encode(torch.rand(5, 64))


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_rows_of_another_width_than_a_model_is_of(network: str) -> None:
    model = VAE(VAEConfig(64, event_shape=(8, 8), network=network))
    with pytest.raises(ValueError, match=r"x has shape \[5, 63\]; expected rows of 64 values, the model's"):
        model.encode(torch.rand(5, 63))
    with pytest.raises(ValueError, match=r"x has shape \[5, 8, 8\]; expected rows of 64 values"):
        explore.reconstruct(model, torch.rand(5, 8, 8))
    z, message = torch.rand(1, 5, 3), r"z has shape \[1, 5, 3\]; expected 2 values each, latent_dim"
    with pytest.raises(ValueError, match=message):
        model.decode(z)
    with pytest.raises(ValueError, match=message):
        model.log_likelihood(z, torch.rand(5, 64))


def test_an_unknown_kind_of_scale() -> None:
    with pytest.raises(ValueError, match="the encoder's kind is 'sd'; expected one of log_var, log_std, std, var"):
        as_gaussian((torch.zeros(2), torch.ones(2), "sd"), "encoder")  # type: ignore[arg-type]


@pytest.mark.parametrize("likelihood", ["poisson", GaussianLikelihood])
def test_a_likelihood_by_a_name(likelihood: object) -> None:
    """Or by its class, with nothing called."""
    with pytest.raises(TypeError, match=rf"likelihood is {likelihood!r}; expected a Likelihood, such as Bern"):
        AutoEncoder(Standardised(), nn.Linear(2, 64), likelihood, latent_dim=2)  # type: ignore[arg-type]


def dataset_of(low: float, high: float) -> Dataset:
    rows = torch.linspace(low, high, 60).reshape(15, 4)
    return Dataset("mine", rows[:10], rows[10:], 1, (4,))


@pytest.mark.parametrize(
    ("choices", "low", "high", "message"),
    [
        ({}, 0, 1, None),
        ({}, -0.5, 1, r"mine holds values from -0.5 to 1, but a Bernoulli likelihood is of values in \[0, 1\]"),
        ({}, 0, 1.25, r"from 0 to 1.25, but a Bernoulli .*: rescale them, or train a model with a Gaussian"),
        ({"likelihood": "gaussian"}, 0, 1, None),
        ({"likelihood": "gaussian"}, 0, 3, r"the mean of the Gaussian decoder is a sigmoid.* with a linear mean"),
        ({"likelihood": "gaussian", "decoder_mean": "linear"}, -7, 3, None),
    ],
)
def test_a_likelihood_on_data_outside_its_range(
    choices: dict[str, str], low: float, high: float, message: str | None
) -> None:
    data, config = dataset_of(low, high), TrainConfig(batch_size=5, **choices)  # type: ignore[arg-type]
    if message is None:
        assert Trainer(data, config, CPU).model.config == model_config_for(data, config)
        return
    with pytest.raises(UserError, match=message):
        Trainer(data, config, CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "transformer"}, "network is 'transformer': expected one of mlp, conv"),
        ({"likelihood": "poisson"}, "likelihood is 'poisson'"),
        ({"decoder_mean": "tanh"}, "decoder_mean is 'tanh'"),
        ({"decoder_log_var": "free"}, "decoder_log_var is 'free': expected a number from -80 to 80 or one of network"),
        ({"decoder_log_var": math.nan}, "decoder_log_var is nan"),
        ({"init": "xavier"}, "init is 'xavier'"),
        ({"estimator": "iwae"}, "estimator is 'iwae'"),
    ],
)
def test_unknown_kinds(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**change)
    if "estimator" not in change:
        with pytest.raises(ConfigError, match=message):
            VAEConfig(64, **change)


@pytest.mark.parametrize("event_shape", [(64,), (2, 32), (2, 2, 2, 8)])
def test_convolutions_of_what_is_no_picture(event_shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"network is conv: a datapoint has shape .*; expected a picture"):
        VAEConfig(64, event_shape=event_shape, network="conv")


def test_a_shape_of_other_values_than_a_datapoint_has() -> None:
    with pytest.raises(ConfigError, match=r"event_shape is \[8, 9\]: expected 64 values"):
        VAEConfig(64, event_shape=(8, 9))


def test_a_config_survives_as_plain_values() -> None:
    config = VAEConfig(64, event_shape=(8, 8), likelihood="gaussian", decoder_log_var=-1.5)
    assert VAEConfig(**asdict(config) | {"event_shape": [8, 8]}) == config
    assert VAEConfig(64).event_shape == (64,)


def test_a_sample_for_each_of_several_z_with_a_scale_of_the_event() -> None:
    """`[S, B, D]` with a log_var `[D]`, as `GaussianHead` gives for ``elements``."""
    mean, log_var = torch.zeros(3, 500, 4), torch.tensor([0.0, 1.0, -1.0, -20.0])
    x = GaussianLikelihood().sample((mean, log_var), torch.Generator().manual_seed(0))
    assert x.shape == mean.shape
    torch.testing.assert_close(x.flatten(0, 1).std(0), (0.5 * log_var).exp(), rtol=0.1, atol=0)


@pytest.mark.parametrize("log_var", ["network", "elements", "shared", -1.0])
def test_a_learned_log_var_under_bf16(log_var: str | float) -> None:
    data = load_dataset("digits")
    config = TrainConfig(hidden=8, precision="bf16", likelihood="gaussian", decoder_log_var=log_var)
    trainer = Trainer(data, config, CPU)
    trainer.step()
    assert math.isfinite(trainer.read_tally().bound_sum)
