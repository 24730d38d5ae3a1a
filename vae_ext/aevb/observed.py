"""Inference on the observed: the z, and so the x, behind an observation y of each datapoint.

    p(z given y) is proportional to p(z) p(y given z)

The encoder knows whole datapoints, so it only says where to start, from a crude guess of x. A `Method` goes on from
there to draws of p(z given y).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Generator, Tensor

from vae_ext import ops
from vae_ext.aevb.families import Family
from vae_ext.aevb.hmc import hmc
from vae_ext.aevb.interface import Gaussian, log_standard_prior, require_finite, require_standard_prior
from vae_ext.aevb.models import AutoEncoder, evaluating
from vae_ext.aevb.observations import BitFlips, BlockMeans, GaussianNoise, Observation, Visible

BATCH = 100

# z `[*S, B, J]` to log p(y given z), `[*S, B]`.
LogLikelihood: TypeAlias = Callable[[Tensor], Tensor]


class Inferred(NamedTuple):
    """What an observation tells of datapoints.

    Attributes:
        guess: the crude x that the encoder was given, `[B, D]`.
        baseline: the mean of p(x given z) at the encoder's mean of the guess, `[B, D]`, as `explore.reconstruct`.
        z: draws of p(z given y), `[S, B, J]`.
        mean, std: of the mean of p(x given z) over these, `[B, D]`: what is inferred, and how much z leaves open.
            Where y tells x for certain it stands in the mean and in the baseline, and the std is 0.
    """

    guess: Tensor
    baseline: Tensor
    z: Tensor
    mean: Tensor
    std: Tensor


class Method(Protocol):
    """A way to draw from p(z given y)."""

    def posterior(
        self, log_likelihood: LogLikelihood, start: Gaussian, num_samples: int, generator: Generator | None
    ) -> Tensor:
        """S draws, `[S, B, J]`; `start` is a Gaussian over z, `[B, J]`, to begin with."""


@dataclass(frozen=True)
class Gradient:
    """The best Gaussian, found by ascending the bound in its own mean and log_var for each y:

        log p(y) >= E_q[log p(y given z)] - KL(q(z) || p(z)),   q(z) = N(mean, diag(exp(log_var)))

    Adam, whose step size falls to zero along a cosine.

    Attributes:
        steps: how many.
        draws: of z for each estimate of the bound (L).
        learning_rate: the first step size.
    """

    steps: int = 200
    draws: int = 4
    learning_rate: float = 0.1

    def posterior(
        self, log_likelihood: LogLikelihood, start: Gaussian, num_samples: int, generator: Generator | None
    ) -> Tensor:
        q = self.fit(log_likelihood, start, generator)
        return ops.normal_rsample(q.mean, num_samples=num_samples, **q.scale_keyword, generator=generator)

    @torch.enable_grad()
    def fit(self, log_likelihood: LogLikelihood, start: Gaussian, generator: Generator | None = None) -> Gaussian:
        """q, `[B, J]`."""
        mean = start.mean.detach().clone().requires_grad_()
        log_var = (2 * start.std.log()).detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([mean, log_var], self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        for _ in range(self.steps):
            z, kl = ops.normal_rsample_kl(mean, log_var, self.draws, generator=generator)
            bound = log_likelihood(z).mean(0) - kl
            # Not backward: the model's parameters want no gradient here.
            mean.grad, log_var.grad = torch.autograd.grad(-bound.sum(), [mean, log_var])
            optimizer.step()
            schedule.step()
        return Gaussian(mean.detach(), log_var.detach())


@dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo, a chain for each y: any shape of posterior, though not from one far mode to another.

    Attributes:
        burn_in: transitions before the first draw that is kept.
        leapfrog_steps: of each transition.
    """

    burn_in: int = 100
    leapfrog_steps: int = 10

    def posterior(
        self, log_likelihood: LogLikelihood, start: Gaussian, num_samples: int, generator: Generator | None
    ) -> Tensor:
        def log_joint(z: Tensor) -> Tensor:
            return log_likelihood(z) + log_standard_prior(z, 1)

        chains = hmc(
            log_joint,
            start.mean.detach(),
            num_samples=num_samples,
            burn_in=self.burn_in,
            leapfrog_steps=self.leapfrog_steps,
            generator=generator,
        )
        return chains.samples


METHODS: dict[str, Method] = {"gradient": Gradient(), "hmc": HMC()}


def infer(
    model: AutoEncoder,
    observation: Observation,
    y: Tensor,
    method: Method | None = None,
    *,
    num_samples: int = 200,
    generator: Generator | None = None,
) -> Inferred:
    """What `y`, `[B, D']`, tells of the datapoints behind it.

    Args:
        model: computes as in evaluation, and is left as it is.
        observation: how y came from x.
        method: `Gradient()` when left out.
        num_samples: S.
        generator: of the device of y.

    Raises:
        ValueError: the shapes of y, of the observation and of the model's datapoints do not go together, y is not
            finite where it tells of x, or the model has another prior than N(0, I).
        TypeError: the observation is of another kind of likelihood.
    """
    if y.ndim != 2:
        raise ValueError(f"y has shape {list(y.shape)}; expected [B, D'], a row for each datapoint")
    require_standard_prior(model)
    # Not of y itself: where it is hidden, it may be anything. A guess is clamped, but NaN stays NaN.
    require_finite("y", observation.guess(model.likelihood, torch.where(y.isfinite(), y, torch.nan)))
    method = method or Gradient()
    with torch.no_grad(), evaluating(model):
        parts = [_infer(model, observation, part, method, num_samples, generator) for part in y.split(BATCH)]
    return Inferred(*(torch.cat(column, dim=-2) for column in zip(*parts, strict=True)))


def denoise(
    model: AutoEncoder,
    y: Tensor,
    noise: GaussianNoise | BitFlips,
    method: Method | None = None,
    *,
    num_samples: int = 200,
    generator: Generator | None = None,
) -> Inferred:
    """The datapoints behind noisy ones, `[B, D]`; `BitFlips` is also `SaltAndPepper`. The rest is as for `infer`."""
    return infer(model, noise, y, method, num_samples=num_samples, generator=generator)


def inpaint(
    model: AutoEncoder,
    x: Tensor,
    mask: Tensor,
    method: Method | None = None,
    *,
    fill: float | Tensor = 0.0,
    num_samples: int = 200,
    generator: Generator | None = None,
) -> Inferred:
    """The values of x, `[B, D]`, where `mask` is False, as `Visible` explains it and `fill`; else as `infer`."""
    return infer(model, Visible(mask, fill), x, method, num_samples=num_samples, generator=generator)


def upscale(
    model: AutoEncoder,
    y: Tensor,
    event_shape: Sequence[int],
    factor: int,
    method: Method | None = None,
    *,
    std: float = 0.05,
    num_samples: int = 200,
    generator: Generator | None = None,
) -> Inferred:
    """Pictures of `event_shape` from ones `factor` times smaller, a row each. `BlockMeans` explains the arguments."""
    return infer(model, BlockMeans(event_shape, factor, std), y, method, num_samples=num_samples, generator=generator)


def _infer(
    model: AutoEncoder,
    observation: Observation,
    y: Tensor,
    method: Method,
    num_samples: int,
    generator: Generator | None,
) -> Inferred:
    guess = observation.guess(model.likelihood, y)
    expected = model.decode(y.new_zeros(1, model.latent_dim)).shape[1:]
    if guess.shape[1:] != expected:
        raise ValueError(
            f"y tells of datapoints of shape {list(guess.shape[1:])}; expected {list(expected)}, the model's"
        )
    posterior = model.encode(guess)
    start = Gaussian(posterior.mean, posterior.variance, "var") if isinstance(posterior, Family) else posterior

    def log_likelihood(z: Tensor) -> Tensor:
        return observation.log_prob(model.likelihood, model.decoder(z), y)

    z = method.posterior(log_likelihood, start, num_samples, generator)
    x = observation.complete(y, model.decode(z))
    baseline = observation.complete(y, model.decode(start.mean))
    return Inferred(guess, baseline, z, x.mean(0), x.std(0, correction=0))
