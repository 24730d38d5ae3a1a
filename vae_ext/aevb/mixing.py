"""Whether chains mix: the split R-hat of Gelman et al. (2013, "Bayesian Data Analysis", section 11.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_ext.aevb.hmc import Chains
from vae_ext.errors import UserError

# Outside of these a chain is said not to mix. R-hat of halves of 25 draws is noisy: 1.1, the customary limit for long
# chains, is exceeded by good ones.
LEAST_ACCEPTANCE = 0.2
GREATEST_R_HAT = 1.5
# Of many short chains some look bad by chance.
SHARE_ALLOWED = 0.05
NAMED_CHAINS = 5
REMEDY = "take a longer burn-in, or more leapfrog steps"


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


def unmixed(chains: Chains) -> Tensor:
    """Which of the chains do not mix, `[B]`, by their acceptance and `split_r_hat`."""
    return (chains.acceptance < LEAST_ACCEPTANCE) | (split_r_hat(chains.samples) > GREATEST_R_HAT)


def require_mixing(chains: Chains) -> None:
    """Raises UserError where more than a few of the chains do not mix, which says what to do."""
    bad = unmixed(chains)
    if bad.sum() <= SHARE_ALLOWED * len(bad):
        return
    acceptance, r_hat = chains.acceptance[bad], split_r_hat(chains.samples[:, bad])
    raise UserError(
        f"{int(bad.sum()):,} of {len(bad):,} chains of HMC do not mix (such as {_named(bad)}): their acceptance is"
        f" {acceptance.min():.2f} to {acceptance.max():.2f}, their split R-hat up to {r_hat.max():.3g}; expected"
        f" {LEAST_ACCEPTANCE} or more and at most {GREATEST_R_HAT}: {REMEDY}"
    )


def stuck(chains: Chains) -> Tensor:
    """Which of the chains were in J places or fewer in their first half, `[B]`: these lie in a plane."""
    first = chains.samples[: len(chains.samples) // 2]
    moves = (first.diff(dim=0) != 0).any(-1).sum(0)
    return moves < first.shape[-1]


def require_moves(chains: Chains) -> None:
    """Raises UserError where even one chain is `stuck`: no density can be fitted to its first half."""
    bad = stuck(chains)
    if not bad.any():
        return
    raise UserError(
        f"{int(bad.sum()):,} of {len(bad):,} chains of HMC got stuck (such as {_named(bad)}): the first half of their"
        f" draws holds {chains.samples.shape[-1]} different z or fewer, to which no density can be fitted: {REMEDY}"
    )


def _named(bad: Tensor) -> str:
    return ", ".join(str(chain) for chain in bad.nonzero().flatten()[:NAMED_CHAINS].tolist())
