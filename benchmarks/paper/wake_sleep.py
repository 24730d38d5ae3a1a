"""The wake-sleep algorithm (Hinton et al. 1995), the baseline of figure 2, on the models of AEVB."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_ext import ops
from vae_ext.aevb import AutoEncoder, Trainer, explore
from vae_ext.aevb.minibatches import Minibatch


def wake_sleep(model: AutoEncoder, x: Tensor, rng_state: Tensor) -> Tensor:
    """The lower bound of each datapoint, `[B]` in nats, whose gradient is that of wake-sleep's two objectives instead:

        wake:   log p(x given z),    z ~ q(z given x),          in the generative parameters alone
        sleep:  log q(z' given x'),  z' ~ p(z), x' ~ p(x given z'),  in the recognition parameters alone

    Sleep climbs no bound on log p(x): it fits q to the model's own dreams, one for each datapoint.

    Args:
        x: `[B, D]`.
        rng_state: decides z and the dreams.
    """
    with torch.no_grad():
        posterior = model.encode(x)
        z, kl = ops.normal_rsample_kl(posterior.mean, **posterior.scale_keyword, rng_state=rng_state)
    wake = model.log_likelihood(z, x)

    dreams = explore.sample(model, len(x), torch.Generator().manual_seed(int(rng_state[0])))
    recognised = model.encode(dreams.x)
    sleep = ops.normal_log_prob(recognised.mean, x=dreams.z, **recognised.scale_keyword)
    return wake - kl + (sleep - sleep.detach())


class WakeSleepTrainer(Trainer):
    """A `Trainer` in all but the gradient, in one process on the CPU, where it draws its dreams."""

    def bound_of(self, minibatch: Minibatch) -> Tensor:
        return wake_sleep(self.model, minibatch.x, minibatch.rng_state)
