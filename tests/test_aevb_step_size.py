"""`--lr auto`: the best of the paper's step sizes, on training data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.commands import assert_one_sentence, invoke
from tests.training import CPU
from vae_ext.aevb import TrainConfig, Trainer, load_checkpoint
from vae_ext.aevb.minibatches import Minibatch
from vae_ext.aevb.step_size import STEP_SIZES, best_step_size, try_step_sizes
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.train_config import OPTIMIZERS

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")

CONFIG = TrainConfig(samples=100_000, hidden=32)


def test_there_are_step_sizes_for_every_optimizer() -> None:
    assert set(STEP_SIZES) == set(OPTIMIZERS)
    assert STEP_SIZES["adagrad"] == (0.01, 0.02, 0.1)


def test_a_trial_is_what_the_run_itself_would_do_first(digits: Dataset) -> None:
    """A 50th of 1000 steps; the bound is that of the ten later ones."""
    bounds = try_step_sizes(digits, CONFIG, CPU)
    assert list(bounds) == [0.01, 0.02, 0.1]
    for lr, bound in bounds.items():
        trainer = Trainer(digits, replace(CONFIG, lr=lr), CPU)
        sums = []
        for _ in range(20):
            trainer.step()
            sums.append(trainer.read_tally().bound_sum)
        assert bound == pytest.approx((sums[19] - sums[9]) / 1000)


class PlungingTrainer(Trainer):
    """Its first bound is lower than float64 can add the others to."""

    def bound_of(self, minibatch: Minibatch) -> torch.Tensor:
        plunge = 1e30 if self.samples == 0 else 0.0
        return super().bound_of(minibatch) - plunge


def test_a_plunge_in_the_first_steps_is_left_behind(digits: Dataset) -> None:
    bounds = try_step_sizes(digits, CONFIG, CPU, trainer_type=PlungingTrainer)
    assert bounds == try_step_sizes(digits, CONFIG, CPU)


def test_held_out_data_have_no_say(digits: Dataset) -> None:
    other = replace(digits, test=torch.zeros_like(digits.test))
    assert try_step_sizes(digits, CONFIG, CPU) == try_step_sizes(other, CONFIG, CPU)


def test_the_best_is_the_highest_finite_bound() -> None:
    assert best_step_size({0.01: -150.0, 0.02: -140.5, 0.1: math.nan}) == 0.02
    assert best_step_size({0.01: -150.0, 0.02: math.inf, 0.1: -math.inf}) == 0.01
    with pytest.raises(UserError, match=r"did not stay finite with any step size of 0\.01, 0\.1: give a smaller one"):
        best_step_size({0.01: math.nan, 0.1: -math.inf})


def test_the_command_says_what_it_tried_and_trains_with_the_best(digits: Dataset, tmp_path: Path) -> None:
    result = invoke("train", "--samples", 3000, "--hidden", 16, "--lr", "auto", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    best = best_step_size(try_step_sizes(digits, TrainConfig(samples=3000, hidden=16), CPU))
    assert f"Step size {best:g}, by the training bound of short trials (0.01: " in result.output
    assert load_checkpoint(tmp_path / "checkpoint.pt").config.lr == best
    assert_one_sentence(invoke("train", "--resume", tmp_path, "--lr", "5.0"), "--lr is 5.0, but the run in")
