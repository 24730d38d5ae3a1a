"""Matrix products in less than float32, and nothing else."""

from __future__ import annotations

import pytest
import torch

from tests.training import CPU, make_trainer
from vae_ext import ops
from vae_ext.aevb import TrainConfig
from vae_ext.aevb.precision import autocast, matrix_products
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")


def test_what_the_operators_are_given(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under bf16 what the networks make, the data as they are; the bound is float32 either way."""
    seen: dict[str, torch.dtype] = {}
    log_prob = ops.bernoulli_log_prob

    def watch(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        seen.update(logits=logits.dtype, x=x.dtype)
        return log_prob(logits, x)

    monkeypatch.setattr(ops, "bernoulli_log_prob", watch)
    for precision, expected in (("float32", torch.float32), ("medium", torch.float32), ("bf16", torch.bfloat16)):
        trainer = make_trainer(digits, precision=precision)
        bound = trainer.bound_of(trainer.minibatches.draw())
        assert seen == {"logits": expected, "x": torch.float32}
        assert bound.dtype == torch.float32
        trainer.step()
        for parameter in trainer.model.parameters():
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None
            assert parameter.grad.dtype == torch.float32


@pytest.mark.parametrize("precision", ["medium", "bf16"])
def test_it_learns_as_float32_does(digits: Dataset, precision: str) -> None:
    bounds = []
    for kind in ("float32", precision):
        trainer = make_trainer(digits, precision=kind)
        for _ in range(200):
            trainer.step()
        bounds.append(trainer.held_out_bound())
    assert bounds[1] == pytest.approx(bounds[0], abs=0.5)
    assert (bounds[1] != bounds[0]) or precision == "medium"


@pytest.mark.parametrize(("precision", "setting"), [("float32", "highest"), ("medium", "medium"), ("bf16", "highest")])
def test_the_setting_is_left_as_it_was(precision: str, setting: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with matrix_products(precision), autocast(precision, CPU):
            assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
            assert torch.get_float32_matmul_precision() == setting
        assert torch.get_float32_matmul_precision() == "high"
        assert not torch.is_autocast_enabled("cpu")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kind", ["cuda", "mkldnn"])
def test_a_setting_of_one_kind_of_device(kind: str) -> None:
    """After which torch cannot say what goes for all of them."""
    backend = getattr(torch.backends, kind).matmul
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    backend.fp32_precision = "tf32"
    try:
        for precision, setting in (("float32", "highest"), ("medium", "medium")):
            with matrix_products(precision), matrix_products("float32"):
                assert torch.get_float32_matmul_precision() == "highest"
            with matrix_products(precision):
                assert torch.get_float32_matmul_precision() == setting
            assert backend.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["float32", "medium", "bf16"])
def test_backward_and_evaluation_have_theirs_too(digits: Dataset, precision: str) -> None:
    """Under a setting of the user's own, which has no say in either."""
    trainer = make_trainer(digits, precision=precision)
    seen: list[str] = []
    trainer.model.encoder.register_forward_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    hidden = next(trainer.model.encoder.parameters())
    hidden.register_hook(lambda _: seen.append(f"backward {torch.get_float32_matmul_precision()}"))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "medium" else "medium")
    try:
        trainer.step()
        trainer.held_out_bound()
    finally:
        torch.set_float32_matmul_precision(before)
    setting = "medium" if precision == "medium" else "highest"
    assert seen == [setting, f"backward {setting}", "highest"]


def test_an_unknown_precision() -> None:
    with pytest.raises(UserError, match="precision is 'half': expected one of float32, medium, bf16"):
        TrainConfig(precision="half")
