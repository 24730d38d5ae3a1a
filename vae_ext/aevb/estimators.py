"""Stochastic gradient variational Bayes estimators of the lower bound (section 2.3 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_ext import ops
from vae_ext.aevb.models import VAE


def sgvb_b(
    model: VAE,
    x: Tensor,
    num_samples: int = 1,
    *,
    generator: torch.Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
) -> Tensor:
    """The lower bound of each datapoint by estimator B (eq. 7), its KL term in closed form:

        L(x_i) = -KL(q(z given x_i) || p(z)) + 1/L sum_l log p(x_i given z_il),   z_il ~ q(z given x_i)

    Args:
        model: maps x to q(z given x) and z to the logits of p(x given z).
        x: `[B, D]` in [0, 1].
        num_samples: L.
        generator, rng_state, first_row: where the noise comes from, as in `vae_ext.normal_rsample_kl`.

    Returns:
        `[B]`, in nats, differentiable in the model's parameters.
    """
    mean, log_var = model.encoder(x)
    z, kl = ops.normal_rsample_kl(
        mean, log_var, num_samples, generator=generator, rng_state=rng_state, first_row=first_row
    )
    log_likelihood = ops.bernoulli_log_prob(model.decoder(z), x)
    return log_likelihood.mean(0) - kl


def minibatch_bound(bound: Tensor, dataset_size: int) -> Tensor:
    """The bound of the whole dataset from a minibatch of M of its N datapoints (eq. 8): N/M sum_i L(x_i).

    Args:
        bound: `[M]`, in nats, as `sgvb_b` returns it.
        dataset_size: N.
    """
    return bound.sum() * (dataset_size / bound.shape[0])
