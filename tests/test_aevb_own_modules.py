"""One's own modules in the trainer: those that draw noise of their own, and those that note what they see."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.commands import without_seconds
from tests.training import CPU, Crash, StopError, first_seen
from vae_ext.aevb import (
    AutoEncoder,
    BernoulliMLP,
    ConvDecoder,
    ConvEncoder,
    GaussianHead,
    GaussianLikelihood,
    GaussianMLP,
    RunDirectory,
    TrainConfig,
    Trainer,
    explore,
    load_checkpoint,
    resume,
    save_checkpoint,
    train,
)
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")


def make_model() -> AutoEncoder:
    torch.manual_seed(3)
    encoder = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), GaussianMLP(16, 16, 2))
    return AutoEncoder(encoder, BernoulliMLP(2, 16, 64), latent_dim=2)


def make_trainer(digits: Dataset, **changes: Any) -> Trainer:
    return Trainer(digits, TrainConfig(**{"samples": 2000, "lr": 0.01, **changes}), CPU, make_model())


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


def test_a_checkpoint_is_copied_into_the_model_that_is_trained(digits: Dataset, tmp_path: Path) -> None:
    """Its parameters are those which the optimizer holds, and so they move."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, make_trainer(digits))
    resumed = make_trainer(digits)
    resume(resumed, load_checkpoint(path, resumed.model), path)
    before = state_of(resumed.model)
    resumed.step()
    for name, parameter in resumed.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(("field", "value"), [("optimizer", "adam"), ("batch_size", 50), ("draws", 2)])
def test_a_resume_with_another_config(digits: Dataset, tmp_path: Path, field: str, value: Any) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, make_trainer(digits, **{field: value}))
    with pytest.raises(UserError, match=rf"was trained with {field} = {value}, but the trainer to resume has"):
        resume(make_trainer(digits), load_checkpoint(path, make_model()), path)


def test_a_bound_that_is_not_finite(digits: Dataset, tmp_path: Path) -> None:
    """The steps up to it are repeated to the bit, so the minibatch is found; BatchNorm spreads it to all rows."""
    data = replace(digits, train=digits.train.float(), test=digits.test.float())
    seen, _ = first_seen(make_trainer(data, samples=40_000), [7])
    trainer = make_trainer(data, samples=40_000)
    trainer.dataset.train[7] = math.nan
    with pytest.raises(UserError, match=rf"the KL divergence of .* \(training rows, at {seen:,} samples\)"):
        train(trainer, RunDirectory(tmp_path))


def test_data_that_the_likelihood_is_not_of(digits: Dataset) -> None:
    data = replace(digits, train=digits.train.float() - 1, test=digits.test.float())
    with pytest.raises(UserError, match=r"from -0\.0625 to 1, but BernoulliLikelihood is of values in \[0, 1\]"):
        make_trainer(data)


def test_a_run_goes_on(digits: Dataset, tmp_path: Path) -> None:
    alone = make_trainer(digits)
    train(alone, RunDirectory(tmp_path / "alone"))
    with pytest.raises(StopError):
        train(make_trainer(digits), RunDirectory(tmp_path / "run"), Crash(5))
    resumed, file = make_trainer(digits), tmp_path / "run" / "checkpoint.pt"
    saved = load_checkpoint(file, resumed.model)
    resume(resumed, saved, file)
    train(resumed, RunDirectory(tmp_path / "run", resumed=saved))
    assert_same_state(state_of(resumed.model), state_of(alone.model))
    assert without_seconds(tmp_path / "run") == without_seconds(tmp_path / "alone")


SIDES = (8, 8)
CONVOLUTIONS: dict[str, Callable[[], AutoEncoder]] = {
    "both": lambda: AutoEncoder(ConvEncoder(SIDES, 16, 3), ConvDecoder(3, 16, SIDES), latent_dim=3),
    "the encoder": lambda: AutoEncoder(ConvEncoder(SIDES, 16, 3), BernoulliMLP(3, 16, 64), latent_dim=3),
    "the decoder": lambda: AutoEncoder(GaussianMLP(64, 16, 3), ConvDecoder(3, 16, SIDES), latent_dim=3),
    "a Gaussian decoder": lambda: AutoEncoder(
        ConvEncoder(SIDES, 16, 3),
        ConvDecoder(3, 16, SIDES, GaussianHead(64, "sigmoid", "shared")),
        GaussianLikelihood(),
        latent_dim=3,
    ),
}


@pytest.mark.parametrize("convolutional", CONVOLUTIONS)
def test_convolutions_in_a_model_of_ones_own(digits: Dataset, tmp_path: Path, convolutional: str) -> None:
    torch.manual_seed(3)
    trainer = Trainer(digits, TrainConfig(optimizer="adam", lr=3e-3), CPU, CONVOLUTIONS[convolutional]())
    before = trainer.held_out_bound()
    for _ in range(60):
        trainer.step()
    assert trainer.held_out_bound() > before + 5

    save_checkpoint(tmp_path / "checkpoint.pt", trainer)
    loaded = load_checkpoint(tmp_path / "checkpoint.pt", CONVOLUTIONS[convolutional]()).model
    x, z = digits.decode(digits.test[:5]), torch.randn(2, 5, 3)
    assert loaded.encode(x).mean.shape == (5, 3)
    assert loaded.decode(z).shape == (2, 5, 64)
    assert torch.equal(loaded.log_likelihood(z, x), trainer.model.log_likelihood(z, x))


@pytest.mark.parametrize("event_shape", [(64,), (3, 8), (2, 2, 4, 4)])
def test_convolutions_of_what_is_no_picture(event_shape: tuple[int, ...]) -> None:
    for make in (lambda: ConvEncoder(event_shape, 16, 3), lambda: ConvDecoder(3, 16, event_shape)):
        with pytest.raises(ValueError, match="expected a picture"):
            make()
