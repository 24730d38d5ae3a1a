"""The step size chosen as the paper does: by the training bound over the first iterations (section 5)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from vae_ext.aevb.distributed import Team
from vae_ext.aevb.trainer import Tally, Trainer
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.train_config import TrainConfig

# Adagrad's are the paper's.
STEP_SIZES = {"adagrad": (0.01, 0.02, 0.1), "adam": (3e-4, 1e-3, 3e-3), "sgd": (1e-3, 3e-3, 1e-2)}
LEAST_TRIAL_STEPS, MOST_TRIAL_STEPS = 20, 500
# A trial is as long as a 50th of the run, within those limits.
SHARE_OF_RUN = 50


def try_step_sizes(
    dataset: Dataset,
    config: TrainConfig,
    device: torch.device,
    team: Team | None = None,
    *,
    trainer_type: type[Trainer] = Trainer,
) -> dict[float, float]:
    """The mean training bound in the second half of a short trial with each of `STEP_SIZES`, in nats.

    The trials start from the same parameters and see the same minibatches and noise; `config.lr` has no say.
    """
    return {
        lr: _trial_bound(trainer_type(dataset, replace(config, lr=lr), device, team=team))
        for lr in STEP_SIZES[config.optimizer]
    }


def best_step_size(bounds: dict[float, float]) -> float:
    """The one of the highest finite bound.

    Raises:
        UserError: no bound is finite.
    """
    finite = {lr: bound for lr, bound in bounds.items() if math.isfinite(bound)}
    if not finite:
        tried = ", ".join(f"{lr:g}" for lr in bounds)
        raise UserError(f"the bound did not stay finite with any step size of {tried}: give a smaller one yourself")
    return max(finite, key=finite.__getitem__)


def _trial_bound(trainer: Trainer) -> float:
    """The mean bound in the second half of a trial."""
    steps = trainer.config.samples // trainer.samples_per_step // SHARE_OF_RUN
    half = min(max(steps, LEAST_TRIAL_STEPS), MOST_TRIAL_STEPS) // 2
    for _ in range(half):
        trainer.step()
    # The bounds of the first steps can be so low that nothing else shows in a sum with them.
    trainer.bound_sum.zero_()
    begun = Tally(trainer.samples)
    for _ in range(half):
        trainer.step()
    return trainer.read_tally().mean_bound_since(begun)
