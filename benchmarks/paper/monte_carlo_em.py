"""Monte Carlo EM (appendix E), the baseline of figure 3 that has no recognition model, on the models of AEVB."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_ext.aevb import Trainer
from vae_ext.aevb.hmc import hmc
from vae_ext.aevb.marginal import log_joint

# Appendix E.
LEAPFROG_STEPS = 10
TARGET_ACCEPTANCE = 0.9
UPDATES = 5
# The logarithm of the step size moves by so much of what the acceptance is off by.
ADAPTATION_RATE = 0.05


class MonteCarloEMTrainer(Trainer):
    """A `Trainer` in all but the step, which is of two parts, in one process on the CPU:

        E:  z_i ~ p(z given x_i),  by one transition of HMC from where the chain of datapoint i was last
        M:  `UPDATES` gradient steps on N/M sum_i log p(x_i given z_i) + log p(theta)

    Its tally is of log p(x_i, z_i). The encoder stays as it was initialised, so the held-out bound of a record says
    little about the decoder.

    Attributes:
        z: where the chain of each training datapoint is, `[N, J]`, a draw of the prior to begin with.
        step_size: of all chains, tuned to `TARGET_ACCEPTANCE`.
    """

    z: Tensor
    step_size: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.z = torch.randn(self.dataset_size, self.config.latent, generator=self.generator)
        self.step_size = torch.tensor(0.1)

    def step(self) -> None:
        minibatch = self.minibatches.draw()
        log_p = log_joint(self.model, minibatch.x)
        chains = hmc(
            log_p,
            self.z[minibatch.rows],
            num_samples=1,
            burn_in=0,
            leapfrog_steps=LEAPFROG_STEPS,
            step_size=self.step_size,
            generator=self.generator,
        )
        z = chains.samples[0]
        # Of a datapoint that was drawn twice one of the two stays.
        self.z[minibatch.rows] = z
        self._adapt(chains.acceptance)
        with torch.no_grad():
            self.bound_sum += log_p(z).sum(dtype=torch.float64)
        for _ in range(UPDATES):
            self.optimizer.zero_grad()
            (-self.model.log_likelihood(z, minibatch.x)).mean().backward()
            self.optimizer.step()
        self.samples += self.config.batch_size

    def _adapt(self, acceptance: Tensor) -> None:
        self.step_size *= (ADAPTATION_RATE * (acceptance.mean() - TARGET_ACCEPTANCE)).exp()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "z": self.z, "step_size": self.step_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.z.copy_(state["z"])
        self.step_size.copy_(state["step_size"])
