"""The trainer: that it learns, does what Algorithm 1 says, and loses nothing it saved."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Normal
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training import CPU, NoDisplay, make_trainer
from vae_ext.aevb import (
    FullVBTrainer,
    TrainConfig,
    Trainer,
    datapoint_bounds,
    load_checkpoint,
    minibatch_bound,
    resume,
    run,
    save_checkpoint,
    sgvb_b,
)
from vae_ext.aevb.run import record_points, train
from vae_ext.aevb.run_directory import RunDirectory
from vae_ext.aevb.trainer import OPTIMIZERS, Tally, has_fused
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")


def test_it_learns_more_than_any_model_without_latents(digits: Dataset) -> None:
    trainer = make_trainer(digits, hidden=200, latent=5)
    for _ in range(500):
        trainer.step()

    train_x, test_x = digits.decode(digits.train).double(), digits.decode(digits.test).double()
    # The best of prod_j Bernoulli(p_j), and the entropy, which not even a perfect model is above.
    pixel = train_x.mean(0).clamp(1e-3, 1 - 1e-3)
    floor = (torch.xlogy(test_x, pixel) + torch.xlogy(1 - test_x, 1 - pixel)).sum(-1).mean().item()
    ceiling = (torch.xlogy(test_x, test_x) + torch.xlogy(1 - test_x, 1 - test_x)).sum(-1).mean().item()
    assert floor + 1 < trainer.held_out_bound() < ceiling


def test_the_same_seed_gives_the_same_bits(digits: Dataset) -> None:
    first, same, other = (make_trainer(digits, seed=seed) for seed in (3, 3, 4))
    for trainer in (first, same, other):
        for _ in range(20):
            trainer.step()
    for a, b, c in zip(*(trainer.model.parameters() for trainer in (first, same, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert first.read_tally() == same.read_tally()


def test_looking_at_the_bounds_does_not_change_the_run(digits: Dataset) -> None:
    watched, alone = make_trainer(digits), make_trainer(digits)
    for _ in range(5):
        watched.step()
        watched.held_out_bound()
        alone.step()
    for a, b in zip(watched.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_climbs_the_gradient_of_the_map_objective(digits: Dataset) -> None:
    """SGD's step, times N / lr, is the gradient of N/M sum L(x_i) + log N(theta; 0, I)."""
    lr = 1e-3
    trainer = make_trainer(digits, optimizer="sgd", lr=lr)
    twin = make_trainer(digits)
    size = trainer.dataset_size
    rows = torch.randint(size, (100,), generator=twin.generator)
    bound = sgvb_b(twin.model, digits.decode(digits.train[rows]), generator=twin.generator)
    parameters = list(twin.model.parameters())
    log_prior = sum(Normal(0.0, 1.0).log_prob(parameter).sum() for parameter in parameters)
    gradients = torch.autograd.grad(minibatch_bound(bound, size) + log_prior, parameters)

    trainer.step()
    for before, after, gradient in zip(parameters, trainer.model.parameters(), gradients, strict=True):
        climbed = (after - before).detach() * size / lr
        # The subtraction leaves about |theta| eps N / lr of rounding.
        torch.testing.assert_close(climbed, gradient, rtol=1e-3, atol=0.5)
        assert gradient.abs().max() > 50


def test_the_prior_alone_pulls_the_parameters_to_zero(digits: Dataset) -> None:
    """With no data gradient, weight decay is all there is: theta shrinks by lr / N."""
    trainer = make_trainer(digits, optimizer="sgd", lr=0.5)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    for old, new in zip(before, trainer.model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (1 - 0.5 / trainer.dataset_size), rtol=1e-6, atol=0)


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "sgd"])
def test_every_optimizer_improves_the_bound(digits: Dataset, optimizer: str) -> None:
    lr = {"adagrad": 0.02, "adam": 1e-3, "sgd": 1e-2}[optimizer]
    trainer = make_trainer(digits, optimizer=optimizer, lr=lr)
    before = trainer.held_out_bound()
    for _ in range(100):
        trainer.step()
    assert trainer.held_out_bound() > before + 5


class PartlyFused(torch.optim.Adagrad):
    """As torch 2.11 on CUDA: it learns in the first step that it has no fused Adagrad."""

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        if group["fused"]:
            raise RuntimeError("`fused=True` requires all the params to be floating point Tensors of supported devices")
        return super()._init_group(group, *lists)  # type: ignore[no-untyped-call]


def test_an_optimizer_that_is_not_fused_everywhere(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the same steps, also after those of one that was."""
    fused = make_trainer(digits)
    fused.step()
    save_checkpoint(tmp_path / "checkpoint.pt", fused)
    with monkeypatch.context() as patch:
        patch.setitem(OPTIMIZERS, "adagrad", PartlyFused)
        plain = make_trainer(digits)
        resume(plain, load_checkpoint(tmp_path / "checkpoint.pt"), tmp_path / "checkpoint.pt")
    (group,) = plain.optimizer.param_groups
    assert group["foreach"]
    assert not group["fused"]
    for trainer in (fused, plain):
        trainer.step()
    for ours, theirs in zip(plain.model.parameters(), fused.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_where_an_optimizer_is_fused(optimizer: str) -> None:
    assert has_fused(OPTIMIZERS[optimizer], CPU)
    assert not has_fused(OPTIMIZERS[optimizer], torch.device("meta"))


class CountReads(TorchDispatchMode):
    """Counts the calls that bring a number from the device to Python."""

    reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_step_reads_nothing_from_the_device(digits: Dataset) -> None:
    trainer = make_trainer(digits, optimizer="sgd", lr=1e-3)
    with CountReads() as count:  # type: ignore[no-untyped-call]
        trainer.step()
        assert count.reads == 0
        trainer.read_tally()
        assert count.reads == 1


def test_the_tally_is_the_sum_of_the_bounds(digits: Dataset) -> None:
    trainer = make_trainer(digits, batch_size=50)
    trainer.step()
    first = trainer.read_tally()
    trainer.step()
    both = trainer.read_tally()
    assert (first.samples, both.samples) == (50, 100)
    assert both.mean_bound_since(first) == pytest.approx((both.bound_sum - first.bound_sum) / 50)
    assert -200 < both.mean_bound_since(first) < -10


def test_a_dataset_smaller_than_a_minibatch(digits: Dataset) -> None:
    with pytest.raises(UserError, match=r"digits has 1500 training datapoints, fewer than .* 1501"):
        make_trainer(digits, batch_size=1501)


def test_checkpoint_round_trip(digits: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(digits)
    for _ in range(5):
        trainer.step()
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, trainer)
    loaded = load_checkpoint(path)
    assert loaded.config == trainer.config
    assert (loaded.dataset, loaded.samples) == ("digits", 500)
    for a, b in zip(loaded.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.requires_grad
    ours = datapoint_bounds(trainer.model, digits, digits.test, draws=1, seed=7)
    theirs = datapoint_bounds(loaded.model, digits, digits.test, draws=1, seed=7)
    assert torch.equal(ours, theirs)


def test_a_failed_save_leaves_the_old_checkpoint(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(digits)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, trainer)
    before = path.read_bytes()

    def fill_the_disk(state: object, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(UserError, match=r"cannot write .*checkpoint.pt: No space left on device"):
        save_checkpoint(path, trainer)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_also_follow_the_clock(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is whole and finite, and the metrics are those of a run that only saved with its records."""
    saved: list[int | None] = []

    class Watch(NoDisplay):
        interval = 0.0

        def shown(self, tally: Tally) -> None:
            saved.append(directory.saved_samples)

    records = {}
    for interval in (math.inf, 0.0):
        monkeypatch.setattr(run, "CHECKPOINT_INTERVAL", interval)
        saved.clear()
        directory = RunDirectory(tmp_path / str(interval))
        records[interval] = train(make_trainer(digits, samples=20_000), directory, Watch())
    assert saved == [*range(0, 20_000, 100)]
    assert [replace(record, seconds=0) for record in records[0.0]] == [
        replace(record, seconds=0) for record in records[math.inf]
    ]


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 1), (99, 100), (1234, 100), (2_000_000, 100)])
def test_record_points_are_whole_minibatches_to_the_end(samples: int, batch_size: int) -> None:
    points = record_points(samples, batch_size)
    assert points == sorted(set(points))
    assert all(point % batch_size == 0 for point in points)
    assert points[-1] - batch_size < samples <= points[-1]
    assert len(points) <= 48


def test_earlier_runs_are_moved_aside_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "unrelated.txt").write_text("mine")
    for number in range(3):
        directory = RunDirectory(tmp_path)
        for finished in (False, True):
            directory.write_summary({"number": number, "finished": finished})
        assert directory.earlier == (tmp_path / f"earlier-{number}" if number else None)
        assert json.loads((tmp_path / "summary.json").read_text()) == {"number": number, "finished": True}
    for number in (1, 2):
        earlier = json.loads((tmp_path / f"earlier-{number}" / "summary.json").read_text())
        assert earlier == {"number": number - 1, "finished": True}
    assert {path.name for path in tmp_path.iterdir()} == {"unrelated.txt", "summary.json", "earlier-1", "earlier-2"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"latent": 0}, "latent is 0"),
        ({"hidden": 2**40}, "hidden is 1099511627776"),
        ({"draws": 0}, "draws is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": math.inf}, "lr is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"optimizer": "lbfgs"}, "optimizer is 'lbfgs': expected one of adagrad, adam, sgd"),
    ],
)
def test_numbers_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig(**change)


def test_a_device_by_its_name(digits: Dataset) -> None:
    for kind in (Trainer, FullVBTrainer):
        trainer = kind(digits, TrainConfig(hidden=8), "cpu")
        trainer.step()
        assert trainer.device == CPU
