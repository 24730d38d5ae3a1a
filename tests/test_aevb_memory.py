"""Too little memory is said before it is asked for."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import SMALL, assert_one_sentence, invoke
from tests.training import CPU, make_trainer
from vae_ext.aevb import VAE, FullVBTrainer, TrainConfig, Trainer, memory
from vae_ext.aevb.memory import available_bytes, training_bytes
from vae_ext.aevb.small_data import METHODS
from vae_ext.aevb.small_data import make_trainer as make_method_trainer
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("reads the memory of the machine")


@pytest.mark.parametrize(
    ("option", "value"), [("--hidden", 2**31 - 1), ("--batch-size", 1500), ("--latent", 2**31 - 1)]
)
def test_more_memory_than_there_is(tmp_path: Path, option: str, value: int) -> None:
    more = ("--draws", 10**8) if option == "--batch-size" else ()
    result = invoke("train", *SMALL, "--out", tmp_path, option, value, *more)
    assert_one_sentence(
        result, r"training would take at least [\d,.]+ GB of memory, but cpu has [\d,.]+ GB left: take a smaller"
    )


def test_the_estimate_is_what_is_certainly_allocated(digits: Dataset) -> None:
    """Counted from the trainer's own tensors; gradients, hidden units and logits come with the step."""
    config = TrainConfig(hidden=32, draws=3)
    trainer = make_trainer(digits, draws=3)
    trainer.step()
    parameters = list(trainer.model.parameters())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sums = [trainer.optimizer.state[parameter]["sum"] for parameter in parameters]
    logits = torch.empty(3, 100, 64)
    hidden = [torch.empty(100, 32), torch.empty(3, 100, 32)]
    tensors = [*parameters, *gradients, *sums, trainer.minibatches.draw().x, *hidden, logits, torch.empty_like(logits)]
    assert training_bytes(trainer.model, digits, config, CPU, 1) == sum(tensor.nbytes for tensor in tensors)


def test_what_is_not_trained_has_no_gradient(digits: Dataset) -> None:
    """Nor does Adam keep anything of it, such as the weights that a posterior stands for."""
    config = TrainConfig(hidden=32, optimizer="adam")
    trainer = FullVBTrainer(digits, config, CPU)
    trainer.step()
    parameters = list(trainer.model.parameters())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    assert 0 < len(gradients) < len(parameters)
    kept = [state[name] for state in trainer.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    logits = torch.empty(100, 64)
    tensors = [*parameters, *gradients, *kept, trainer.minibatches.draw().x, logits, torch.empty_like(logits)]
    assert training_bytes(trainer.model, digits, config, CPU, 1) == sum(tensor.nbytes for tensor in tensors)


def test_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    available = available_bytes(CPU)
    assert available is not None
    assert 1e6 < available < 1e15
    monkeypatch.setattr(memory, "_container_limit", lambda: 1000)
    assert available_bytes(CPU) == 1000
    monkeypatch.setattr(memory, "_meminfo_available", lambda: None)
    monkeypatch.setattr(memory, "_container_limit", lambda: None)
    assert available_bytes(CPU) is None


def test_what_torch_keeps_on_a_device_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    assert available_bytes(torch.device("cuda")) == 1300


def trainers_alive() -> int:
    return sum(type(one) is Trainer and hasattr(one, "model") for one in gc.get_objects())


def test_trials_of_step_sizes_have_the_memory_of_one_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where each is in a cycle, as a trainer and its CUDA graph are."""
    gc.collect()
    before = trainers_alive()
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10**12 if trainers_alive() <= before else 0)
    make = Trainer.__init__

    def in_a_cycle(trainer: Any, *args: Any, **keywords: Any) -> None:
        make(trainer, *args, **keywords)
        trainer.itself = trainer

    monkeypatch.setattr(Trainer, "__init__", in_a_cycle)
    result = invoke("train", *SMALL, "--lr", "auto", "--out", tmp_path)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_drawn_before_the_check(digits: Dataset, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def on_meta(model: VAE, generator: object) -> None:
        assert next(model.parameters()).is_meta

    monkeypatch.setattr(memory, "available_bytes", lambda device: 10**4)
    monkeypatch.setattr(VAE, "reset_parameters", on_meta)
    with pytest.raises(UserError, match=r"at least 0\.\d GB of memory, but cpu has 0\.0 GB left"):
        make_method_trainer(method, digits, TrainConfig(), CPU)


def test_nothing_is_allocated_before_the_check(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10**4)
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_: pytest.fail("a model was made"))
    with pytest.raises(UserError, match=r"at least 0\.\d GB of memory, but cpu has 0\.0 GB left"):
        make_trainer(digits)
