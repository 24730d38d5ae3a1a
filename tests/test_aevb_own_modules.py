"""One's own modules in the trainer: those that draw noise of their own, and those that note what they see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.test_aevb_trainer import CPU
from vae_ext.aevb import (
    AutoEncoder,
    BernoulliMLP,
    GaussianMLP,
    TrainConfig,
    Trainer,
    explore,
    load_checkpoint,
    save_checkpoint,
)
from vae_ext.aevb.checkpoint import resume
from vae_ext.datasets import Dataset, load_dataset

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def make_model() -> AutoEncoder:
    torch.manual_seed(3)
    encoder = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), GaussianMLP(16, 16, 2))
    return AutoEncoder(encoder, BernoulliMLP(2, 16, 64), latent_dim=2)


def make_trainer(digits: Dataset, **changes: Any) -> Trainer:
    return Trainer(digits, TrainConfig(samples=2000, lr=0.01, **changes), CPU, make_model())


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_state(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_looking_changes_nothing(digits: Dataset) -> None:
    trainer = make_trainer(digits)
    trainer.step()
    before, noise = state_of(trainer.model), torch.get_rng_state()
    trainer.model.encoder[0].eval()  # type: ignore[index]
    assert trainer.held_out_bound() == trainer.held_out_bound()
    x = digits.decode(digits.test[:5])
    codes = explore.encode(trainer.model, digits, digits.test)
    torch.testing.assert_close(explore.encode(trainer.model, digits, digits.test[:5]).mean, codes.mean[:5])
    explore.reconstruct(trainer.model, x)
    explore.interpolate(trainer.model, x[:2], x[2:4], 3)
    explore.manifold(trainer.model, 2)
    assert_same_state(state_of(trainer.model), before)
    assert torch.equal(torch.get_rng_state(), noise)
    assert [module.training for module in trainer.model.encoder] == [False, True, True, True]  # type: ignore[attr-defined]


def test_a_resumed_trainer_drops_the_same(digits: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(digits)
    trainer.step()
    save_checkpoint(tmp_path / "checkpoint.pt", trainer)
    trainer.step()
    resumed = make_trainer(digits)
    path = tmp_path / "checkpoint.pt"
    resume(resumed, load_checkpoint(path, make_model()), path)
    resumed.step()
    assert_same_state(state_of(resumed.model), state_of(trainer.model))
