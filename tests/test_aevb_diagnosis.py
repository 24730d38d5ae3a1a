"""What a run says when its bound is no longer finite: the term, the datapoints, and what is kept."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import NoDisplay, first_seen, make_trainer
from vae_ext.aevb import AutoEncoder, BernoulliMLP, GaussianMLP, TrainConfig, Trainer, load_checkpoint, run
from vae_ext.aevb.run import train
from vae_ext.aevb.run_directory import RunDirectory
from vae_ext.aevb.trainer import Tally
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")


def message_of(trainer: Trainer, folder: Path, display: NoDisplay | None = None) -> str:
    with pytest.raises(UserError) as caught:
        train(trainer, RunDirectory(folder), display or NoDisplay())
    return str(caught.value)


def poisoned_trainer(digits: Dataset, rows: list[int], value: float, **changes: Any) -> Trainer:
    """A trainer some of whose training rows get a value that it would have refused."""
    data = replace(digits, train=digits.train.float(), test=digits.test.float())
    trainer = make_trainer(data, **{"samples": 40_000, **changes})
    trainer.dataset.train[rows, 3] = value
    return trainer


def test_rows_whose_likelihood_is_not_finite(digits: Dataset, tmp_path: Path) -> None:
    """The encoder is blind to the value, so that only the likelihood sees it."""
    rows = [11, 700, 1400]
    trainer = poisoned_trainer(digits, rows, math.inf)
    seen, found = first_seen(make_trainer(digits, samples=40_000), rows)

    def blind(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        x = inputs[0].clone()
        x[:, 3] = 0
        return (x,)

    trainer.model.encoder.register_forward_pre_hook(blind)
    message = message_of(trainer, tmp_path)
    listed = ", ".join(map(str, found))
    assert f"the likelihood of {listed} (training rows, at {seen:,} samples); the checkpoint of" in message
    assert "KL" not in message


def test_rows_whose_divergence_is_not_finite(digits: Dataset, tmp_path: Path) -> None:
    rows = list(range(0, 1500, 3))
    seen, found = first_seen(make_trainer(digits, samples=40_000), rows)
    message = message_of(poisoned_trainer(digits, rows, math.nan), tmp_path)
    listed = ", ".join(map(str, found[:8]))
    assert f"the KL divergence of {listed} and {len(found) - 8} more (training rows, at {seen:,} samples)" in message
    assert "likelihood" not in message


def test_held_out_rows(digits: Dataset, tmp_path: Path) -> None:
    trainer = poisoned_trainer(digits, [], math.nan)
    trainer.held_out[[5, 90], 3] = math.nan
    assert "the KL divergence of 5, 90 (held-out rows)" in message_of(trainer, tmp_path)


def with_batch_norm(digits: Dataset) -> Trainer:
    """A trainer of modules that in training must see more than one datapoint at once."""
    encoder = torch.nn.Sequential(torch.nn.BatchNorm1d(64, affine=False), GaussianMLP(64, 16, 2))
    model = AutoEncoder(encoder, BernoulliMLP(2, 16, 64), latent_dim=2)
    data = replace(digits, train=digits.train.float(), test=digits.test.float())
    return Trainer(data, TrainConfig(samples=40_000), torch.device("cpu"), model)


def test_one_held_out_row_under_batch_norm(digits: Dataset, tmp_path: Path) -> None:
    trainer = with_batch_norm(digits)
    trainer.held_out[5, 3] = math.nan
    assert "the KL divergence of 5 (held-out rows)" in message_of(trainer, tmp_path)


def test_one_training_row_under_batch_norm(digits: Dataset, tmp_path: Path) -> None:
    """Which the others of its minibatch do not suffer from: only the likelihood sees its value."""
    trainer = with_batch_norm(digits)
    trainer.model.encoder.register_forward_pre_hook(lambda _, inputs: (inputs[0].nan_to_num(posinf=0.0),))
    trainer.dataset.train[11, 3] = math.inf
    assert re.search(r"the likelihood of 11 \(training rows, at", message_of(trainer, tmp_path))


def test_a_step_that_is_far_too_long(digits: Dataset, tmp_path: Path) -> None:
    message = message_of(make_trainer(digits, optimizer="sgd", lr=1e30), tmp_path)
    assert re.search(
        r"after 100 samples: the KL divergence of 0, 1, 2, 3, 4, 5, 6, 7 and 289 more \(held-out rows\);"
        r" the checkpoint of 0 samples is kept: take a smaller step size",
        message,
    )
    assert load_checkpoint(tmp_path / "checkpoint.pt").samples == 0


def test_a_gradient_that_is_not_finite(digits: Dataset, tmp_path: Path) -> None:
    """The bounds of that minibatch are, so the parameter is named that the update ruined."""
    trainer = make_trainer(digits)
    name, parameter = list(trainer.model.named_parameters())[-1]
    parameter.register_hook(lambda gradient: gradient * math.nan)
    message = message_of(trainer, tmp_path)
    assert f"the update before left {name} so, while the bounds it came from were finite" in message


def test_what_training_did_not_do(digits: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(digits, samples=40_000)

    class Vandal(NoDisplay):
        @torch.no_grad()
        def recorded(self, record: object) -> None:
            if trainer.samples > 5000:
                next(trainer.model.parameters()).fill_(math.nan)

    assert "did not happen again from the checkpoint" in message_of(trainer, tmp_path, Vandal())


def test_it_is_noticed_when_it_is_next_shown(digits: Dataset, tmp_path: Path) -> None:
    """Not only at the next record, which may be hours away."""

    class Watch(NoDisplay):
        interval = 0.0

        def shown(self, tally: Tally) -> None:
            assert math.isfinite(tally.bound_sum)

    trainer = poisoned_trainer(digits, list(range(1500)), math.nan, samples=10**7)
    assert "after 100 samples" in message_of(trainer, tmp_path, Watch())


def test_the_last_good_checkpoint_is_kept(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a checkpoint is due after every step."""
    monkeypatch.setattr(run, "CHECKPOINT_INTERVAL", 0.0)
    rows = [11, 700, 1400]
    seen, _ = first_seen(make_trainer(digits, samples=40_000), rows)
    message = message_of(poisoned_trainer(digits, rows, math.nan), tmp_path)
    assert f"the checkpoint of {seen:,} samples is kept" in message
    kept = load_checkpoint(tmp_path / "checkpoint.pt")
    assert kept.samples == seen
    assert all(parameter.isfinite().all() for parameter in kept.model.parameters())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(line["train_bound"]) and line["samples"] <= seen for line in lines)
