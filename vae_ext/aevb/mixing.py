"""Whether chains mix: the split R-hat of Gelman et al. (2013, "Bayesian Data Analysis", section 11.4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vae_ext.aevb.hmc import Chains
from vae_ext.errors import UserError

# Outside of these a chain is said not to mix. R-hat of halves of 25 draws is noisy: 1.1, the customary limit for long
# chains, is exceeded by good ones.
LEAST_ACCEPTANCE = 0.2
GREATEST_R_HAT = 1.5
# Where fewer mix, it is not for the sake of single datapoints that they do not.
LEAST_SHARE = 0.5
NAMED_CHAINS = 5
REMEDY = "take a longer burn-in, or more leapfrog steps"


class Mixing(NamedTuple):
    """How well chains mix.

    Attributes:
        acceptance: the mean probability of acceptance, `[B]`.
        r_hat: `split_r_hat`, `[B]`; infinite also of a chain that is `stuck`.
    """

    acceptance: Tensor
    r_hat: Tensor

    @property
    def unmixed(self) -> Tensor:
        """Which do not, `[B]`."""
        return (self.acceptance < LEAST_ACCEPTANCE) | (self.r_hat > GREATEST_R_HAT)

    def complaint(self) -> str:
        """How many do not, and what to do; where there are any."""
        bad = self.unmixed
        acceptance, r_hat = self.acceptance[bad], self.r_hat[bad]
        named = ", ".join(str(chain) for chain in bad.nonzero().flatten()[:NAMED_CHAINS].tolist())
        return (
            f"{int(bad.sum()):,} of {len(bad):,} chains of HMC do not mix (such as {named}): their acceptance is"
            f" {acceptance.min():.2f} to {acceptance.max():.2f}, their split R-hat up to {r_hat.max():.3g}; expected"
            f" {LEAST_ACCEPTANCE} or more and at most {GREATEST_R_HAT}: {REMEDY}"
        )

    def gaps(self) -> str:
        """What is said where only the others have estimates."""
        return f"{self.complaint()}; their estimates are NaN"


def diagnose(chains: Chains) -> Mixing:
    return Mixing(chains.acceptance, torch.where(stuck(chains.samples), torch.inf, split_r_hat(chains.samples)))


def unmixed(chains: Chains) -> Tensor:
    """Which of the chains do not mix, `[B]`."""
    return diagnose(chains).unmixed


def require_most(mixing: Mixing, of: int | None = None) -> None:
    """Raises UserError, which says what to do, where so many chains do not mix that fewer than half of all can.

    `of` is how many there are to be in all, where others are still to come.
    """
    if mixing.unmixed.sum() > (1 - LEAST_SHARE) * (of or len(mixing.unmixed)):
        raise UserError(mixing.complaint())


def split_r_hat(samples: Tensor) -> Tensor:
    """The potential scale reduction of each chain by its two halves, `[N, B, J]` to `[B]`, the greatest over J:

        R = sqrt((n - 1)/n + B/(n W)),   W the mean variance within halves of n draws, B n times that of their means

    Infinite where a chain stays where it is for a whole half.
    """
    length = len(samples) // 2
    halves = samples[: 2 * length].unflatten(0, (2, length)).double()
    within = halves.var(1).mean(0)
    between = halves.mean(1).var(0)
    moved = (halves.diff(dim=1) != 0).any(1).all(0)
    ratio = torch.where(moved, between / within, torch.inf)
    return ((length - 1) / length + ratio).sqrt().amax(-1)


def stuck(samples: Tensor) -> Tensor:
    """Which chains, `[N, B, J]`, were in J places or fewer in their first half, `[B]`.

    These lie in a plane, so that no density can be fitted to them.
    """
    first = samples[: len(samples) // 2]
    moves = (first.diff(dim=0) != 0).any(-1).sum(0)
    return moves < first.shape[-1]
