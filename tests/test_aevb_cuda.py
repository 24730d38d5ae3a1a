"""The trainer on a CUDA device: a step recorded in a graph is the step that is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vae_ext import _native
from vae_ext.aevb import (
    AutoEncoder,
    BernoulliMLP,
    Gaussian,
    GaussianMLP,
    TrainConfig,
    Trainer,
    load_checkpoint,
    resume,
    save_checkpoint,
)
from vae_ext.aevb.graphed import WARM_UP_STEPS
from vae_ext.datasets import Dataset
from vae_ext.train_config import OPTIMIZERS

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or _native.load().build_info()["cuda"] is None,
    reason="needs a CUDA device, and vae_ext built for it",
)

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _made_on_the_cpu() -> Iterator[None]:
    """Models are drawn there, and moved: also where the tests' own tensors are made on the device."""
    with torch.device("cpu"):
        yield


def make_trainer(digits: Dataset, *, cuda_graph: bool = True, **changes: Any) -> Trainer:
    config = TrainConfig(**{"hidden": 32, "lr": 1e-3, "binarise": True, **changes})
    return Trainer(digits, config, CUDA, cuda_graph=cuda_graph)


def take_steps(trainer: Trainer, count: int) -> None:
    for _ in range(count):
        trainer.step()


def assert_same_parameters(ours: Trainer, theirs: Trainer) -> None:
    for (name, a), b in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_graph_takes_the_steps_that_it_recorded(digits: Dataset, optimizer: str, precision: str) -> None:
    trainers = [
        make_trainer(digits, cuda_graph=cuda_graph, optimizer=optimizer, precision=precision)
        for cuda_graph in (True, False)
    ]
    for trainer in trainers:
        take_steps(trainer, 10)
    assert_same_parameters(*trainers)
    assert trainers[0].read_tally().bound_sum == pytest.approx(trainers[1].read_tally().bound_sum, rel=1e-6)


@pytest.mark.parametrize("steps", [0, WARM_UP_STEPS - 1, WARM_UP_STEPS, WARM_UP_STEPS + 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_trainer_takes_the_same_steps(digits: Dataset, tmp_path: Path, optimizer: str, steps: int) -> None:
    """Saved before, during and after the warm-up."""
    path = tmp_path / "checkpoint.pt"
    trainer, resumed = (make_trainer(digits, optimizer=optimizer) for _ in range(2))
    take_steps(trainer, steps)
    save_checkpoint(path, trainer)
    take_steps(resumed, WARM_UP_STEPS + 2)
    resume(resumed, load_checkpoint(path), path)
    for one in (trainer, resumed):
        take_steps(one, WARM_UP_STEPS + 3)
    assert_same_parameters(resumed, trainer)


def test_each_replay_draws_afresh(digits: Dataset) -> None:
    """With so small a step, bounds differ by their minibatches and noise alone."""
    trainer = make_trainer(digits, lr=1e-12)
    sums = []
    for _ in range(WARM_UP_STEPS + 6):
        trainer.step()
        sums.append(trainer.read_tally().bound_sum)
    bounds = [later - earlier for earlier, later in itertools.pairwise(sums)]
    assert len(set(bounds)) == len(bounds)


class Hesitant(nn.Module):
    """Looks at a value on the device, which a graph cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = GaussianMLP(64, 16, 2)

    def forward(self, x: Tensor) -> Gaussian:
        assert x.sum().item() > 0
        gaussian: Gaussian = self.mlp(x)
        return gaussian


def test_modules_that_cannot_be_recorded(digits: Dataset) -> None:
    model = AutoEncoder(Hesitant(), BernoulliMLP(2, 16, 64), latent_dim=2)
    trainer = Trainer(digits, TrainConfig(), CUDA, model, cuda_graph=False)
    before = trainer.held_out_bound()
    take_steps(trainer, 50)
    assert trainer.held_out_bound() > before
