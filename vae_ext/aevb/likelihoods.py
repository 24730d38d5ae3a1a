"""p(x given z): how the output of a decoder is read as a distribution over x."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from vae_ext import ops
from vae_ext.aevb.interface import GaussianLike, as_gaussian


class Likelihood(Protocol):
    """A distribution over x, all of whose parameters are in the decoder's output.

    Attributes:
        support: the least and the greatest value that it is of; `Trainer` refuses data beyond them.
    """

    @property
    def support(self) -> tuple[float, float]: ...

    def log_prob(self, output: Any, x: Tensor) -> Tensor:
        """The log-likelihood in nats, `[*S, B]`, of x `[B, *D]` under the decoder's output for z `[*S, B, *J]`."""

    def mean(self, output: Any) -> Tensor:
        """The expectation of x, `[*S, B, *D]`."""

    def sample(self, output: Any, generator: Generator | None = None) -> Tensor:
        """A draw of x for each z, `[*S, B, *D]`, from a generator of the CPU."""


class BernoulliLikelihood:
    """A Bernoulli for each value, x in [0, 1] (appendix C.1):

        log p(x given z) = sum_i [x_i log y_i + (1 - x_i) log(1 - y_i)],   y = sigmoid(logits)

    The decoder gives logits, `[*S, B, *D]`.
    """

    support = (0.0, 1.0)

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        return ops.bernoulli_log_prob(output, x)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def sample(self, output: Tensor, generator: Generator | None = None) -> Tensor:
        probability = torch.sigmoid(output)
        uniform = torch.rand(probability.shape, generator=generator, device="cpu")
        return (uniform.to(probability.device) < probability).to(probability.dtype)


class GaussianLikelihood:
    """A Gaussian of diagonal covariance (appendix C.2):

        log p(x given z) = log N(x; mu, sigma^2 I)

    The decoder gives a `Gaussian`, `[*S, B, *D]`, or its tuple.
    """

    support = (-math.inf, math.inf)

    def log_prob(self, output: GaussianLike, x: Tensor) -> Tensor:
        gaussian = as_gaussian(output, "decoder")
        return ops.normal_log_prob(gaussian.mean, x=x, **gaussian.scale_keyword)

    def mean(self, output: GaussianLike) -> Tensor:
        return as_gaussian(output, "decoder").mean

    def sample(self, output: GaussianLike, generator: Generator | None = None) -> Tensor:
        gaussian = as_gaussian(output, "decoder")
        state = ops.make_rng_state(generator, gaussian.mean.device)
        # A scale `[*E]` says which dims are the event; the mean alone may have several before it.
        scale_ndim = gaussian.scale.ndim if isinstance(gaussian.scale, Tensor) else 0
        event_ndim = scale_ndim if 0 < scale_ndim < gaussian.mean.ndim else None
        return ops.normal_rsample(gaussian.mean, **gaussian.scale_keyword, rng_state=state, event_ndim=event_ndim)


LIKELIHOODS: dict[str, Likelihood] = {"bernoulli": BernoulliLikelihood(), "gaussian": GaussianLikelihood()}
