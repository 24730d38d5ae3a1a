"""Monte Carlo EM (appendix E), the baseline of figure 3 that has no recognition model, on the models of AEVB."""

from __future__ import annotations

import math
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
# So many datapoints at once stay in the caches.
CHUNK = 1000


class MonteCarloEMTrainer(Trainer):
    """A `Trainer` in all but the step, which is one of EM, on all N datapoints, in one process on the CPU:

        E:  z_i ~ p(z given x_i),  by one transition of HMC from where the chain of datapoint i was last
        M:  `UPDATES` gradient steps on sum_i log p(x_i given z_i) + log p(theta)

    Each leapfrog step and each update evaluates every datapoint, and counts it as a training sample seen.

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

    @property
    def samples_per_step(self) -> int:
        return (LEAPFROG_STEPS + UPDATES) * self.dataset_size

    def step(self) -> None:
        chunks = [slice(first, first + CHUNK) for first in range(0, self.dataset_size, CHUNK)]
        self._adapt(sum(self._move_chains(rows) for rows in chunks) / self.dataset_size)
        for _ in range(UPDATES):
            self.optimizer.zero_grad()
            for rows in chunks:
                x = self.dataset.decode(self.dataset.train[rows])
                (-self.model.log_likelihood(self.z[rows], x).sum() / self.dataset_size).backward()
            self.optimizer.step()
        self.samples += self.samples_per_step

    def _move_chains(self, rows: slice) -> float:
        """A transition of the chain of each of these datapoints; returns the sum of their acceptances."""
        log_p = log_joint(self.model, self.dataset.decode(self.dataset.train[rows]))
        chains = hmc(
            log_p,
            self.z[rows],
            num_samples=1,
            burn_in=0,
            leapfrog_steps=LEAPFROG_STEPS,
            step_size=self.step_size,
            generator=self.generator,
        )
        self.z[rows] = chains.samples[0]
        with torch.no_grad():
            # As many times as the datapoint counts.
            self.bound_sum += (LEAPFROG_STEPS + UPDATES) * log_p(self.z[rows]).sum(dtype=torch.float64)
        return chains.acceptance.sum().item()

    def _adapt(self, acceptance: float) -> None:
        self.step_size *= math.exp(ADAPTATION_RATE * (acceptance - TARGET_ACCEPTANCE))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "z": self.z, "step_size": self.step_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.z.copy_(state["z"])
        self.step_size.copy_(state["step_size"])
