"""The marginal likelihood log p(x) of each datapoint, by importance sampling and by the estimator of appendix D.

`model` is any `vae_ext.aevb.interface.Model`, and x, `[B, *D]`, whatever it takes. Both are computed without gradients
and in evaluation mode, with float32 matrix products, and summed in float64, in log space.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vae_ext import ops
from vae_ext.aevb.estimators import rsample_log_ratio
from vae_ext.aevb.families.family import WHOLE_LINE
from vae_ext.aevb.hmc import Chains, LogDensity, hmc
from vae_ext.aevb.interface import Model, log_prior, own_prior, require_finite
from vae_ext.aevb.kernel_density import KernelDensity
from vae_ext.aevb.mixing import Mixing, diagnose, require_most
from vae_ext.aevb.models import evaluating
from vae_ext.aevb.precision import matrix_products
from vae_ext.arguments import resolve_integer
from vae_ext.errors import UserError

# "This is useful if the dimensionality of the sampled space is low (less than 5 dimensions)", appendix D.
MOST_LATENTS = 5
LEAST_HMC_SAMPLES = 20
# Of the weights along a chain, whose neighbours are not independent of each other: means of batches are, about.
BATCHES = 5
# Pairs of a draw and a kernel that are held at once.
PAIRS = 2**22
# Of where chains begin, that many are looked at at once, and one is chosen by this stream of their `rng_state`.
MOST_CANDIDATES, CHOICE = 20_000, 1


class MarginalEstimate(NamedTuple):
    """log p(x) of B datapoints.

    Attributes:
        log_marginal: in nats, `[B]`, float64.
        standard_error: of each, over draws of z, in nats, `[B]`.
        effective_sample_size: (sum of the weights)^2 / sum of their squares, `[B]`: far fewer than there were draws
            means that a few of them decide.
    """

    log_marginal: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor


@torch.no_grad()
@matrix_products("float32")
def importance_log_marginal(
    model: Model,
    x: Tensor,
    num_samples: int = 5000,
    *,
    chunk: int = 50,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
) -> MarginalEstimate:
    """log p(x) by importance sampling, with q(z given x) to draw from:

        log p(x_i) = log 1/K sum_k w_ik,   w_ik = p(x_i, z_ik) / q(z_ik given x_i),   z_ik ~ q(z given x_i)

    Too low in expectation, by about half the squared standard error, which is sqrt((K / ESS - 1) / (K - 1)) by the
    delta method.

    Args:
        num_samples: K, 2 or more.
        chunk: how many draws of each datapoint are held at once. It has a say in which they are.
        generator, rng_state, first_row: where the noise comes from, as for `vae_ext.normal_rsample`.

    Errors are the operators'; and ValueError where x is not finite.
    """
    num_samples, chunk = resolve_integer("num_samples", num_samples, 2), resolve_integer("chunk", chunk, 1)
    require_finite("x", x)
    state = ops.resolve_rng_state(generator, rng_state, x.device)
    with evaluating(model):
        posterior = model.encode(x)
        log_sum = log_sum_squares = torch.tensor(-torch.inf, dtype=torch.float64, device=x.device)
        for stream, start in enumerate(range(0, num_samples, chunk)):
            count = min(chunk, num_samples - start)
            z, log_ratio = rsample_log_ratio(
                model, posterior, count, rng_state=state, first_row=first_row, stream=stream
            )
            log_weights = (model.log_likelihood(z, x) + log_ratio).double()
            log_sum = torch.logaddexp(log_sum, log_weights.logsumexp(0))
            log_sum_squares = torch.logaddexp(log_sum_squares, (2 * log_weights).logsumexp(0))
    effective = (2 * log_sum - log_sum_squares).exp()
    # At least 0, where all weights are equal but for their rounding.
    variance = (num_samples / effective - 1).clamp(min=0) / (num_samples - 1)
    return MarginalEstimate(log_sum - math.log(num_samples), variance.sqrt(), effective)


def hmc_log_marginal(
    model: Model,
    x: Tensor,
    num_samples: int = 200,
    *,
    burn_in: int = 100,
    leapfrog_steps: int = 4,
    target_acceptance: float = 0.9,
    generator: Generator | None = None,
) -> MarginalEstimate:
    """log p(x) by appendix D, from draws of p(z given x) by HMC, through a density fitted to the first half of them:

        1/p(x_i) = E_p(z given x_i)[q_i(z) / p(x_i, z)],   so   log p(x_i) = -log 1/L sum_l q_i(z_il) / p(x_i, z_il)

    over the other half. Too high in expectation, by about half the squared standard error and, where a chain misses a
    part of the posterior, by what it misses. The standard error of a datapoint is of the means of `BATCHES` batches
    along its chain: uncertain itself, and with short chains too small, by a factor of about two in trials. The
    arguments are those of `posterior_chains`.

    Where a chain does not mix, as `vae_ext.aevb.mixing` has it, all that is estimated is NaN, and a UserWarning says of
    how many and what to do.

    Raises:
        UserError: there are more than `MOST_LATENTS` latent variables, or fewer than half of the chains mix.
        ValueError: an argument is out of range, x is not finite, or the model's prior is not on the whole line.
    """
    estimate, mixing = estimate_by_hmc(
        model,
        x,
        num_samples,
        burn_in=burn_in,
        leapfrog_steps=leapfrog_steps,
        target_acceptance=target_acceptance,
        generator=generator,
    )
    require_most(mixing)
    if mixing.unmixed.any():
        warnings.warn(mixing.gaps(), stacklevel=2)
    return estimate


def estimate_by_hmc(
    model: Model,
    x: Tensor,
    num_samples: int,
    *,
    burn_in: int,
    leapfrog_steps: int,
    target_acceptance: float = 0.9,
    generator: Generator | None = None,
) -> tuple[MarginalEstimate, Mixing]:
    """`hmc_log_marginal` without its word on how the chains mix, which is returned instead, however few do."""
    chains = posterior_chains(
        model,
        x,
        num_samples,
        burn_in=burn_in,
        leapfrog_steps=leapfrog_steps,
        target_acceptance=target_acceptance,
        generator=generator,
    )
    mixing = diagnose(chains)
    estimate = marginal_of_chains(model, x, chains)
    return MarginalEstimate(*(each.masked_fill(mixing.unmixed, torch.nan) for each in estimate)), mixing


@matrix_products("float32")
def posterior_chains(
    model: Model,
    x: Tensor,
    num_samples: int,
    *,
    burn_in: int,
    leapfrog_steps: int,
    target_acceptance: float = 0.9,
    candidates: int = 1,
    generator: Generator | None = None,
) -> Chains:
    """Draws of p(z given x_i) by HMC, a chain for each datapoint.

    A chain begins at a draw of q(z given x_i): at one of several, chosen with probability proportional to its weight
    p(x_i, z) / q(z given x_i) (sampling importance resampling, Rubin 1987). Chains do not find the way to a far mode of
    the posterior, so where q says little about z many candidates are needed.

    Args:
        num_samples: of each datapoint, `LEAST_HMC_SAMPLES` or more.
        candidates: of where to begin.
        burn_in, leapfrog_steps, target_acceptance: as for `vae_ext.aevb.hmc.hmc`.
        generator: of the device of the model.
    """
    num_samples = resolve_integer("num_samples", num_samples, LEAST_HMC_SAMPLES)
    candidates = resolve_integer("candidates", candidates, 1)
    require_finite("x", x)
    _check_support(model)
    with evaluating(model):
        with torch.no_grad():
            state = ops.make_rng_state(generator, x.device)
            z, _ = rsample_log_ratio(model, model.encode(x[:1]), 1, rng_state=state)
        _check_latents(z[0])
        group = max(1, MOST_CANDIDATES // candidates)
        parts = range(0, len(x), group)
        initial = torch.cat(
            [importance_resample(model, x[first : first + group], candidates, state, first) for first in parts]
        )
        return hmc(
            log_joint(model, x),
            initial,
            num_samples=num_samples,
            burn_in=burn_in,
            leapfrog_steps=leapfrog_steps,
            target_acceptance=target_acceptance,
            generator=generator,
        )


@torch.no_grad()
def importance_resample(model: Model, x: Tensor, candidates: int, rng_state: Tensor, first_row: int = 0) -> Tensor:
    """One of so many draws of q(z given x) for each datapoint, `[B, J]`, by its weight p(x, z) / q(z given x).

    `rng_state` and `first_row` are as for `vae_ext.normal_rsample`.
    """
    z, log_ratio = rsample_log_ratio(model, model.encode(x), candidates, rng_state=rng_state, first_row=first_row)
    log_weights = model.log_likelihood(z, x) + log_ratio
    noise = ops.normal_rsample(
        torch.zeros_like(log_weights.mT), std=1.0, rng_state=rng_state, first_row=first_row, stream=CHOICE
    )
    # The greatest of log weights with noise of the Gumbel distribution added is each with the probability wanted.
    gumbel = -(-torch.special.log_ndtr(noise)).log()
    chosen = (log_weights.mT + gumbel).argmax(1)
    return z[chosen, torch.arange(len(chosen), device=z.device)]


@torch.no_grad()
@matrix_products("float32")
def marginal_of_chains(model: Model, x: Tensor, chains: Chains) -> MarginalEstimate:
    """The estimate of `hmc_log_marginal` from chains `[N, B, J]` that were drawn, however well they mix."""
    half = len(chains.samples) // 2
    with evaluating(model):
        log_p = torch.stack([log_joint(model, x)(z) for z in chains.samples[half:]]).double()
    group = max(1, PAIRS // half**2)
    log_q = [KernelDensity(samples[:half]).log_prob(samples[half:]) for samples in chains.samples.split(group, dim=1)]
    return _harmonic_mean(torch.cat(log_q, dim=1) - log_p)


def log_joint(model: Model, x: Tensor) -> LogDensity:
    """log p(x_i, z) as a function of z `[B, J]`, `[B]`, in nats: the density of z given x_i, up to p(x_i)."""

    def log_density(z: Tensor) -> Tensor:
        return model.log_likelihood(z.unsqueeze(0), x).squeeze(0) + log_prior(model, z, z.ndim - 1)

    return log_density


def _harmonic_mean(log_weights: Tensor) -> MarginalEstimate:
    """-log of the mean weight, `[L, B]` along chains."""
    length, log_sum = len(log_weights), log_weights.logsumexp(0)
    log_mean = log_sum - math.log(length)
    relative = (log_weights - log_mean).exp()
    means = torch.stack([batch.mean(0) for batch in relative.tensor_split(BATCHES)])
    effective = (2 * log_sum - (2 * log_weights).logsumexp(0)).exp()
    return MarginalEstimate(-log_mean, means.std(0) / math.sqrt(BATCHES), effective)


def _check_support(model: Model) -> None:
    prior = own_prior(model)
    if prior is not None and prior.support != WHOLE_LINE:
        raise ValueError(
            f"the model's prior {type(prior).__name__} is on {prior.support}; expected one on {WHOLE_LINE}, where"
            " chains of HMC move: estimate by importance sampling instead (importance_log_marginal)"
        )


def _check_latents(z: Tensor) -> None:
    if z.ndim != 2:
        raise ValueError(f"z has shape {list(z.shape)}; expected [B, J] for HMC")
    if z.shape[1] > MOST_LATENTS:
        raise UserError(
            f"the model has {z.shape[1]} latent variables, and a density fitted to draws of HMC is good for"
            f" {MOST_LATENTS} at most: estimate by importance sampling instead (importance_log_marginal)"
        )
