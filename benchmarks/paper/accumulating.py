"""Adagrad as in the authors' own code, a detail that the paper does not tell."""

from __future__ import annotations

from benchmarks.paper.wake_sleep import WakeSleepTrainer
from vae_ext.aevb import Trainer

# "The first hundred or so" steps.
STEPS = 100


class AccumulatingTrainer(Trainer):
    """The first steps only accumulate squared gradients: they move no parameter. On the CPU.

    A CUDA graph would keep the step size that it was recorded with.
    """

    def step(self) -> None:
        waiting = self.samples < STEPS * self.config.batch_size
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0 if waiting else self.config.lr
        super().step()


class AccumulatingWakeSleepTrainer(AccumulatingTrainer, WakeSleepTrainer):
    """The same of wake-sleep."""
