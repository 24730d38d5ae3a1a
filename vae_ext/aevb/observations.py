"""What is seen of a datapoint x, y, and how likely that is given z.

An `Observation` says how y comes from x, p(y given x). With the model's p(x given z) that makes

    log p(y given z) = log integral p(y given x) p(x given z) dx

Shapes: x `[B, D]`, y `[B, D']`, the decoder's output for z `[*S, B, *J]`, log-likelihoods `[*S, B]`, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from vae_ext import ops
from vae_ext.aevb.interface import Gaussian, as_gaussian
from vae_ext.aevb.likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from vae_ext.aevb.networks import picture_shape


class Observation(Protocol):
    """How datapoints are seen."""

    def observe(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """A draw of y given x, with a generator of the CPU."""

    def log_prob(self, likelihood: Likelihood, output: Any, y: Tensor) -> Tensor:
        """log p(y given z), from the decoder's output for z."""

    def guess(self, likelihood: Likelihood, y: Tensor) -> Tensor:
        """A crude x, `[B, D]`, that the encoder can take. Raises ValueError where y has not the shape of a y."""

    def complete(self, y: Tensor, x: Tensor) -> Tensor:
        """An inferred x, `[*S, B, D]`, with what y tells for certain in its place."""


class Visible:
    """Some values of x as they are, and nothing of the others:

        log p(y given z) = sum over the visible d of log p(x_d given z)

    y is `[B, D]`; what it holds where nothing is visible makes no difference.

    Args:
        mask: `[D]`, or of the shape of a datapoint, bool: True where a value is visible, in all datapoints alike.
        fill: what the encoder is told of the rest: one number, or one for each value, `[D]`, such as the mean of the
            training data.

    Raises:
        TypeError: the mask is not bool.
        ValueError: nothing is visible.
    """

    def __init__(self, mask: Tensor, fill: float | Tensor = 0.0) -> None:
        if mask.dtype != torch.bool:
            raise TypeError(f"mask is {mask.dtype}; expected torch.bool, True where a value is visible")
        self.mask = mask.flatten()
        if not self.mask.any():
            raise ValueError("mask is False everywhere; expected it to leave a value visible")
        self.fill = fill
        self._columns = self.mask.nonzero().squeeze(1)

    def observe(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        return torch.where(self.mask, x, 0.0)

    def log_prob(self, likelihood: Likelihood, output: Any, y: Tensor) -> Tensor:
        if isinstance(output, tuple):
            gaussian = as_gaussian(output, "decoder")
            output = Gaussian(self._visible(gaussian.mean), self._visible(gaussian.scale), gaussian.kind)
        else:
            output = self._visible(output)
        return likelihood.log_prob(output, self._visible(y))

    def guess(self, likelihood: Likelihood, y: Tensor) -> Tensor:
        if y.shape[-1] != len(self.mask):
            raise ValueError(f"mask has {len(self.mask)} values; expected {y.shape[-1]}, one for each of a datapoint")
        return torch.where(self.mask, y, self.fill)

    def complete(self, y: Tensor, x: Tensor) -> Tensor:
        return torch.where(self.mask, y, x)

    def _visible(self, values: Any) -> Any:
        """The visible columns of a tensor that has columns; a shared scale has none."""
        return values[..., self._columns] if isinstance(values, Tensor) and values.ndim else values


class GaussianNoise:
    """Every value with a Gaussian error, y = x + std n:

        log p(y given z) = log N(y; E[x given z], v + std^2)

    where v is the variance of a Gaussian decoder. Of any other decoder, x is taken to be the mean itself and v to be 0:
    the grey levels that a Bernoulli decoder is trained on do not vary as bits do.

    Args:
        std: one number for all values.

    Raises:
        ValueError: `std` is not positive and finite.
    """

    def __init__(self, std: float) -> None:
        self.std = _positive("std", std)

    def observe(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        return x + self.std * torch.randn(x.shape, generator=generator, device="cpu").to(x)

    def log_prob(self, likelihood: Likelihood, output: Any, y: Tensor) -> Tensor:
        mean, var = _moments(likelihood, output)
        return ops.normal_log_prob(mean, x=y, var=var + self.std**2)

    def guess(self, likelihood: Likelihood, y: Tensor) -> Tensor:
        return y.clamp(*likelihood.support)

    def complete(self, y: Tensor, x: Tensor) -> Tensor:
        return x


class BitFlips:
    """Every value, 0 or 1, turned into the other with a probability:

        p(y_d = 1 given z) = e + (1 - 2 e) p(x_d = 1 given z),   e the probability that y_d is not x_d

    For a Bernoulli decoder only. Grey levels are taken as it takes them: each is the chance of a 1.

    Args:
        probability: between 0 and 1/2, both excluded.

    Raises:
        ValueError: `probability` is something else.
    """

    def __init__(self, probability: float) -> None:
        if not 0 < probability < 0.5:
            raise ValueError(f"probability is {probability}; expected one between 0 and 1/2")
        self.probability = probability

    @property
    def error(self) -> float:
        """e."""
        return self.probability

    def observe(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        flipped = torch.rand(x.shape, generator=generator, device="cpu").to(x) < self.probability
        return torch.where(flipped, 1 - x, x)

    def log_prob(self, likelihood: Likelihood, output: Any, y: Tensor) -> Tensor:
        if not isinstance(likelihood, BernoulliLikelihood):
            raise TypeError(
                f"the decoder has {type(likelihood).__name__}; expected BernoulliLikelihood, whose values can be"
                f" flipped: take GaussianNoise"
            )
        log_error = torch.full_like(output, math.log(self.error))
        log_kept = math.log1p(-2 * self.error)
        one, zero = (torch.logaddexp(log_error, log_kept + logsigmoid(logits)) for logits in (output, -output))
        return ops.bernoulli_log_prob(one - zero, y)

    def guess(self, likelihood: Likelihood, y: Tensor) -> Tensor:
        return y

    def complete(self, y: Tensor, x: Tensor) -> Tensor:
        return x


class SaltAndPepper(BitFlips):
    """Every value replaced with a probability, by 0 or 1, whichever with equal chance: flipped with half of it.

    Args:
        probability: between 0 and 1, both excluded.
    """

    def __init__(self, probability: float) -> None:
        if not 0 < probability < 1:
            raise ValueError(f"probability is {probability}; expected one between 0 and 1")
        self.probability = probability

    @property
    def error(self) -> float:
        return self.probability / 2

    def observe(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        replaced, ones = (torch.rand(x.shape, generator=generator, device="cpu").to(x) for _ in range(2))
        return torch.where(replaced < self.probability, (ones < 0.5).to(x), x)


class BlockMeans:
    """A picture of lower resolution: y is the mean of x over each block of `factor` x `factor` pixels.

        log p(y given z) = log N(y; A E[x given z], A v / factor^2 + std^2),   A the mean over each block

    v as for `GaussianNoise`.

    Args:
        event_shape: `[H, W]` or `[H, W, C]` of the D values of x; y has `[H / factor, W / factor, C]`, as one row.
        factor: a divisor of H and of W.
        std: of an error that y is believed to have; the smaller, the more the model has to bend to it.

    Attributes:
        observed_shape: of one y before it was flattened: `[H / factor, W / factor]`, and C where x has it.

    Raises:
        ValueError: x is no picture, `factor` is no divisor, or `std` is not positive and finite.
    """

    def __init__(self, event_shape: Sequence[int], factor: int, std: float = 0.05) -> None:
        height, width, self.channels = picture_shape(event_shape)
        if factor < 2 or height % factor or width % factor:
            raise ValueError(f"factor is {factor}; expected 2 or more, a divisor of both sides of {height} x {width}")
        self.factor = factor
        self.std = _positive("std", std)
        self.rows, self.columns = height // factor, width // factor
        self.observed_shape = (self.rows, self.columns, *event_shape[2:])

    def observe(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        return self._means(x)

    def log_prob(self, likelihood: Likelihood, output: Any, y: Tensor) -> Tensor:
        mean, var = _moments(likelihood, output)
        return ops.normal_log_prob(self._means(mean), x=y, var=self._means(var) / self.factor**2 + self.std**2)

    def guess(self, likelihood: Likelihood, y: Tensor) -> Tensor:
        expected = self.rows * self.columns * self.channels
        if y.shape[-1] != expected:
            raise ValueError(f"y has {y.shape[-1]} values a datapoint; expected {expected}, {self.observed_shape}")
        blocks = y.unflatten(-1, (self.rows, 1, self.columns, 1, self.channels))
        pixels = blocks.expand(-1, -1, self.factor, -1, self.factor, -1)
        x: Tensor = pixels.flatten(1).clamp(*likelihood.support)
        return x

    def complete(self, y: Tensor, x: Tensor) -> Tensor:
        return x

    def _means(self, x: Tensor) -> Tensor:
        blocks = x.unflatten(-1, (self.rows, self.factor, self.columns, self.factor, self.channels))
        means: Tensor = blocks.mean((-4, -2)).flatten(-3)
        return means


def _moments(likelihood: Likelihood, output: Any) -> tuple[Tensor, Tensor]:
    """E[x given z] and v, as `GaussianNoise` explains it, `[*S, B, D]` both."""
    mean = likelihood.mean(output)
    if not isinstance(likelihood, GaussianLikelihood):
        return mean, torch.zeros_like(mean)
    return mean, as_gaussian(output, "decoder").std.square().to(mean.dtype)


def _positive(name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value}; expected a positive, finite number")
    return value
