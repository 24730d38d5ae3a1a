"""Models: an encoder and a decoder trained together, of one's own modules or of the paper's networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vae_ext.aevb.families import Family, Gumbel, Laplace, Logistic, StudentT
from vae_ext.aevb.interface import as_gaussian
from vae_ext.aevb.likelihoods import LIKELIHOODS, Likelihood
from vae_ext.aevb.networks import BernoulliMLP, ConvDecoder, ConvEncoder, GaussianHead, GaussianMLP, picture_shape
from vae_ext.train_config import ConfigError, ModelChoices

# Of Student's t as a posterior: of heavier tails than the Gaussian, and finite variance.
DEGREES_OF_FREEDOM = 5.0
# Those that are not Gaussian, by location and log_scale. Nothing is to be validated: any number is one.
POSTERIORS: dict[str, Callable[[Tensor, Tensor], Family]] = {
    "laplace": lambda loc, log_scale: Laplace(loc, log_scale=log_scale),
    "logistic": lambda loc, log_scale: Logistic(loc, log_scale=log_scale),
    "gumbel": lambda loc, log_scale: Gumbel(loc, log_scale=log_scale),
    "student-t": lambda loc, log_scale: StudentT(DEGREES_OF_FREEDOM, loc, log_scale=log_scale, validate=False),
}


class AutoEncoder(nn.Module):
    """A recognition model q(z given x) and a generative model p(z) p(x given z), of any two modules; p(z) is N(0, I).

    Args:
        encoder: x, `[B, D]`, to a `Gaussian` over z, `[B, J]`, or the tuple (mean, log_var), or a `Family`.
        decoder: z, `[*S, B, J]`, to what `likelihood` reads: logits, or a Gaussian over x, `[*S, B, D]`.
        likelihood: of x given the decoder's output; Bernoulli when left out.
        latent_dim: J, to draw z from the prior.

    Raises:
        TypeError: `likelihood` is a string.
        ValueError: when used, z has not `latent_dim` values, those of the encoder included.

    Attributes:
        config: what the model can be built from again; None for one of one's own modules.

    Example::

        encoder = nn.Sequential(nn.Linear(784, 64), nn.Tanh(), GaussianMLP(64, 64, 5))
        model = AutoEncoder(encoder, BernoulliMLP(5, 500, 784), latent_dim=5)
        (-sgvb_b(model, x)).mean().backward()
    """

    config: VAEConfig | None = None

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood | None = None, *, latent_dim: int
    ) -> None:
        super().__init__()
        if isinstance(likelihood, (str, type)):
            raise TypeError(
                f"likelihood is {likelihood!r}; expected a Likelihood, such as BernoulliLikelihood() or"
                " GaussianLikelihood()"
            )
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood or LIKELIHOODS["bernoulli"]
        self.latent_dim = latent_dim

    # Any: whoever asks knows which, as a rule, and what is only a Gaussian's is then at hand.
    def encode(self, x: Tensor) -> Any:
        """q(z given x): `[B, D]` to a `Gaussian`, or to the `Family` that the encoder gives, over `[B, J]`."""
        output = self.encoder(x)
        posterior = output if isinstance(output, Family) else as_gaussian(output, "encoder")
        found = (posterior.shape if isinstance(posterior, Family) else posterior.mean.shape)[-1]
        if found != self.latent_dim:
            raise ValueError(f"the encoder gives {found} latent variables; expected latent_dim = {self.latent_dim}")
        return posterior

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x given z) in nats: z `[*S, B, J]` and x `[B, D]` to `[*S, B]`."""
        return self.likelihood.log_prob(self.decoder(self._latents(z)), x)

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x given z): `[*S, J]` to `[*S, D]`."""
        return self.likelihood.mean(self.decoder(self._latents(z)))

    def _latents(self, z: Tensor) -> Tensor:
        if z.shape[-1] != self.latent_dim:
            raise ValueError(f"z has shape {list(z.shape)}; expected {self.latent_dim} values each, latent_dim")
        return z


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """The modules of the model as in evaluation: what is computed leaves BatchNorm's averages alone and drops nothing.

    Afterwards each is in the mode that it was in.
    """
    modes = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class VAEConfig(ModelChoices):
    """The plain values that define a `VAE`: sizes, and the kinds of `ModelChoices`.

    Attributes:
        data_dim: D, values of a datapoint.
        hidden_dim: units of the hidden layer of the encoder, and of that of the decoder.
        latent_dim: J.
        event_shape: the shape of a datapoint before it was flattened to D; `[D]` when left out.

    Raises:
        ConfigError: a kind is unknown, or does not go with the shape.
    """

    data_dim: int
    hidden_dim: int = 500
    latent_dim: int = 2
    event_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        # The way for a frozen dataclass to normalise a field: JSON has lists for tuples.
        object.__setattr__(self, "event_shape", tuple(self.event_shape) or (self.data_dim,))
        if math.prod(self.event_shape) != self.data_dim:
            raise ConfigError("event_shape", f"is {list(self.event_shape)}: expected {self.data_dim} values")
        if self.network == "conv":
            try:
                picture_shape(self.event_shape)
            except ValueError as error:
                raise ConfigError("network", f"is conv: {error}") from error


class VAE(AutoEncoder):
    """The paper's model, or its convolutional sibling, as a config of plain values says it.

    Args:
        config: the sizes and kinds.
        generator: draws the initial parameters (on the CPU, so that every device starts from the same ones).
    """

    def __init__(self, config: VAEConfig, generator: Generator | None = None) -> None:
        encoder, decoder = _mlps(config) if config.network == "mlp" else _convolutions(config)
        super().__init__(encoder, decoder, LIKELIHOODS[config.likelihood], latent_dim=config.latent_dim)
        self.config: VAEConfig = config
        self.reset_parameters(generator)

    def encode(self, x: Tensor) -> Any:
        """q(z given x): `[B, D]` to a `Gaussian`, or to a `Family` of its location and scale, over `[B, J]`."""
        if x.shape[-1] != self.config.data_dim:
            raise ValueError(
                f"x has shape {list(x.shape)}; expected rows of {self.config.data_dim} values, the model's data_dim"
            )
        gaussian = as_gaussian(self.encoder(x), "encoder")
        if self.config.posterior == "gaussian":
            return gaussian
        assert isinstance(gaussian.scale, Tensor)
        return POSTERIORS[self.config.posterior](gaussian.mean, 0.5 * gaussian.scale)

    @torch.no_grad()
    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draws weights and biases.

        The paper says N(0, 0.01), and not whether 0.01 is the variance or the standard deviation: ``variance-0.01``
        and ``std-0.01``. ``fan-in`` is what later code of the authors does (nips14-ssl, 2014): weights from
        N(0, 1/fan-in), biases from N(0, 0.01^2).
        """
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                weight_std, bias_std = _initial_stds(module, self.config.init)
                module.weight.normal_(0.0, weight_std, generator=generator)
                assert module.bias is not None
                module.bias.normal_(0.0, bias_std, generator=generator)


def _mlps(config: VAEConfig) -> tuple[nn.Module, nn.Module]:
    encoder = GaussianMLP(config.data_dim, config.hidden_dim, config.latent_dim)
    sizes = config.latent_dim, config.hidden_dim, config.data_dim
    if config.likelihood == "bernoulli":
        return encoder, BernoulliMLP(*sizes)
    return encoder, GaussianMLP(*sizes, config.decoder_mean, config.decoder_log_var)


def _convolutions(config: VAEConfig) -> tuple[nn.Module, nn.Module]:
    encoder = ConvEncoder(config.event_shape, config.hidden_dim, config.latent_dim)
    head = None
    if config.likelihood == "gaussian":
        head = GaussianHead(config.data_dim, config.decoder_mean, config.decoder_log_var)
    return encoder, ConvDecoder(config.latent_dim, config.hidden_dim, config.event_shape, head)


def _initial_stds(module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, init: str) -> tuple[float, float]:
    if init == "variance-0.01":
        return 0.1, 0.1
    if init == "std-0.01":
        return 0.01, 0.01
    return _fan_in(module) ** -0.5, 0.01


def _fan_in(module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    """How many inputs an output sums."""
    if isinstance(module, nn.ConvTranspose2d):
        # Each input spreads over a kernel, and the strides set inputs apart.
        return module.in_channels * math.prod(module.kernel_size) / math.prod(module.stride)
    return module.weight[0].numel()
