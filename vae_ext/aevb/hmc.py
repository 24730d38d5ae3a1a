"""Hamiltonian Monte Carlo (Neal 2011, "MCMC using Hamiltonian dynamics"), many chains at once, one for each datapoint.

A chain draws from a density known up to a factor, such as p(z given x_i), which is p(x_i, z) up to p(x_i).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor

from vae_ext import ops
from vae_ext.arguments import resolve_integer
from vae_ext.errors import UserError

# z `[B, J]` to the logarithm of an unnormalised density of each row, `[B]`, in which no row has a say in another's.
LogDensity: TypeAlias = Callable[[Tensor], Tensor]

# A trajectory of one length would come back to where it began where that is a period of the density: each is that much
# longer or shorter (Neal 2011, section 4.2).
JITTER = 0.2
# The streams of one transition's `rng_state`.
MOMENTUM, CHOICES = 0, 1


class Chains(NamedTuple):
    """What B chains drew.

    Attributes:
        samples: `[N, B, J]`.
        acceptance: the mean probability of acceptance over these, `[B]`.
        step_size: of each chain, `[B]`, as the burn-in left it.
    """

    samples: Tensor
    acceptance: Tensor
    step_size: Tensor


class State(NamedTuple):
    """Where the chains are: z `[B, J]`, and the log density `[B]` and its gradient `[B, J]` there."""

    z: Tensor
    log_density: Tensor
    gradient: Tensor


def hmc(
    log_density: LogDensity,
    initial: Tensor,
    *,
    num_samples: int,
    burn_in: int,
    leapfrog_steps: int,
    target_acceptance: float = 0.9,
    step_size: float | Tensor = 0.1,
    generator: Generator | None = None,
) -> Chains:
    """Runs B chains from `initial`, `[B, J]`, float32 or float64, for `burn_in` transitions and then for N.

    During the burn-in the step size of each chain is adapted to `target_acceptance` by `DualAveraging`; the samples are
    drawn with what it has become. A proposal whose energy is not finite is rejected.

    Args:
        log_density: z `[B, J]` to `[B]` in nats, up to a constant, differentiable; called under `enable_grad`.
        num_samples: N.
        burn_in: transitions whose samples are not kept; with 0 the step size stays as it is given.
        leapfrog_steps: of each transition.
        step_size: to begin with, one for all or `[B]`.
        generator: of the device of `initial`; what it draws decides the chains.

    Raises:
        UserError: `log_density` is not finite at `initial`.
        ValueError: an argument is out of range, or `log_density` returns another shape.
        TypeError: `initial` is no tensor of float32 or float64.
    """
    num_samples = resolve_integer("num_samples", num_samples, 1)
    burn_in = resolve_integer("burn_in", burn_in, 0)
    leapfrog_steps = resolve_integer("leapfrog_steps", leapfrog_steps, 1)
    if not 0 < target_acceptance < 1:
        raise ValueError(f"target_acceptance is {target_acceptance}; expected a probability between 0 and 1")
    sizes = _step_sizes(step_size, initial)
    state = _begin(log_density, initial)

    adaptation = DualAveraging(sizes, target_acceptance)
    for _ in range(burn_in):
        state, acceptance = transition(log_density, state, adaptation.step_size, leapfrog_steps, generator)
        adaptation.update(acceptance)
    sizes = adaptation.averaged_step_size

    samples = initial.new_empty(num_samples, *initial.shape)
    acceptance_sum = torch.zeros_like(sizes)
    for sample in samples:
        state, acceptance = transition(log_density, state, sizes, leapfrog_steps, generator)
        sample.copy_(state.z)
        acceptance_sum += acceptance
    return Chains(samples, acceptance_sum / num_samples, sizes)


def transition(
    log_density: LogDensity, state: State, step_size: Tensor, leapfrog_steps: int, generator: Generator | None
) -> tuple[State, Tensor]:
    """One transition of every chain; returns where they are then and the probability `[B]` that each moved with.

    accept (z', r') with probability min(1, exp(H(z, r) - H(z', r'))),   H = r^2 / 2 - log density,   r ~ N(0, I)
    """
    rng_state = ops.make_rng_state(generator, state.z.device)
    momentum = ops.normal_rsample(torch.zeros_like(state.z), std=1.0, rng_state=rng_state, stream=MOMENTUM)
    jitter, log_uniform = _choices(state, rng_state)
    proposal, end = leapfrog(log_density, state, momentum, (step_size * jitter).unsqueeze(1), leapfrog_steps)

    log_ratio = _minus_energy(proposal, end) - _minus_energy(state, momentum)
    acceptance = torch.where(log_ratio.isfinite(), log_ratio.clamp(max=0.0).exp(), 0.0)
    accepted = log_uniform < acceptance.log()
    chosen = (
        torch.where(accepted.view(-1, *[1] * (new.ndim - 1)), new, old)
        for new, old in zip(proposal, state, strict=True)
    )
    return State(*chosen), acceptance


def leapfrog(
    log_density: LogDensity, state: State, momentum: Tensor, step_size: Tensor, steps: int
) -> tuple[State, Tensor]:
    """Follows Hamilton's equations by the leapfrog method; the way back is the same with the momentum reversed.

    r <- r + s/2 grad log density(z),   z <- z + s r,   r <- r + s/2 grad log density(z)
    """
    for _ in range(steps):
        momentum = momentum + 0.5 * step_size * state.gradient
        state = evaluate(log_density, state.z + step_size * momentum)
        momentum = momentum + 0.5 * step_size * state.gradient
    return state, momentum


def evaluate(log_density: LogDensity, z: Tensor) -> State:
    """The log density of each chain and its gradient at z, which nothing else has a gradient of."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        value = log_density(z)
        if value.shape != z.shape[:1]:
            raise ValueError(f"log_density returned shape {list(value.shape)}; expected {[len(z)]}, one for each chain")
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return State(z.detach(), value.detach(), gradient)


class DualAveraging:
    """Step sizes, one for each chain, by Hoffman and Gelman (2014, "The No-U-Turn Sampler", section 3.2):

        log s_t+1 = mu - sqrt(t) / gamma * H_t,   H_t = (1 - 1/(t + t0)) H_t-1 + (target - acceptance_t) / (t + t0)

    with their mu = log(10 s_1), gamma = 0.05, t0 = 10. What remains is the average of log s_t with weights t^-0.75.

    Attributes:
        step_size: for the next transition, `[B]`.
        averaged_step_size: for when the adaptation is over, `[B]`.
    """

    GAMMA, T0, KAPPA = 0.05, 10, 0.75

    def __init__(self, step_size: Tensor, target_acceptance: float) -> None:
        self.step_size = self.averaged_step_size = step_size
        self.target_acceptance = target_acceptance
        self._mu = (10 * step_size).log()
        self._shortfall = torch.zeros_like(step_size)
        self._updates = 0

    def update(self, acceptance: Tensor) -> None:
        """Takes note of the probabilities of acceptance of a transition with `step_size`, `[B]`."""
        self._updates += 1
        t = self._updates
        self._shortfall = torch.lerp(self._shortfall, self.target_acceptance - acceptance, 1 / (t + self.T0))
        self.step_size = (self._mu - math.sqrt(t) / self.GAMMA * self._shortfall).exp()
        weight = t**-self.KAPPA
        self.averaged_step_size = torch.lerp(self.averaged_step_size.log(), self.step_size.log(), weight).exp()


def _begin(log_density: LogDensity, initial: Tensor) -> State:
    state = evaluate(log_density, initial)
    bad = ~(state.log_density.isfinite() & state.gradient.isfinite().all(1))
    if bad.any():
        chains = ", ".join(str(chain) for chain in bad.nonzero().flatten()[:5].tolist())
        raise UserError(
            f"the log density or its gradient is not finite at the initial z of {int(bad.sum())} of {len(bad)} chains"
            f" (such as {chains}): begin where it is, such as at a draw of the prior"
        )
    return state


def _step_sizes(step_size: float | Tensor, initial: Tensor) -> Tensor:
    if not isinstance(initial, Tensor) or initial.dtype not in (torch.float32, torch.float64):
        found = initial.dtype if isinstance(initial, Tensor) else type(initial).__name__
        raise TypeError(f"initial is of {found}; expected a tensor of float32 or float64")
    if initial.ndim != 2:
        raise ValueError(f"initial has shape {list(initial.shape)}; expected [B, J], a row for each chain")
    sizes = torch.as_tensor(step_size, dtype=initial.dtype, device=initial.device)
    if sizes.shape not in ((), initial.shape[:1]):
        raise ValueError(f"step_size has shape {list(sizes.shape)}; expected a number, or {[len(initial)]}")
    if not ((sizes > 0) & sizes.isfinite()).all():
        raise ValueError(f"step_size is {step_size}; expected positive, finite numbers")
    return sizes.expand(len(initial))


def _choices(state: State, rng_state: Tensor) -> tuple[Tensor, Tensor]:
    """For each chain a factor of the step size, and the logarithm of a uniform number, to accept by; `[B]` both."""
    normal = ops.normal_rsample(state.z.new_zeros(len(state.z), 2), std=1.0, rng_state=rng_state, stream=CHOICES)
    jitter = 1 + JITTER * (2 * torch.special.ndtr(normal[:, 0]) - 1)
    return jitter, torch.special.log_ndtr(normal[:, 1])


def _minus_energy(state: State, momentum: Tensor) -> Tensor:
    return state.log_density - 0.5 * momentum.square().sum(1)
