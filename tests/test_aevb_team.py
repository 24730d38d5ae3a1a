"""Processes that share each minibatch train as one process does, up to the order of sums."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from tests.commands import REPOSITORY, invoke, read_metrics
from tests.training import CPU, NoDisplay
from vae_ext.aevb import TrainConfig, Trainer, load_checkpoint
from vae_ext.aevb.distributed import Team, join_team, leave_team
from vae_ext.aevb.run import train
from vae_ext.aevb.run_directory import RunDirectory, sole_writer
from vae_ext.datasets import Dataset, load_dataset
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("processes talk over gloo")

# Plain SGD: Adagrad's first steps are the signs of gradients, which may turn with the last bit.
CONFIG = TrainConfig(samples=2000, hidden=16, optimizer="sgd", lr=1e-2, binarise=True, draws=2)


def _work_in_team(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    _take_steps(Team(rank, world), folder)
    _poison_and_explain(Team(rank, world), folder)
    _stop(Team(rank, world), folder)
    leave_team()


def _take_steps(team: Team, folder: str) -> None:
    trainer = Trainer(load_dataset("digits"), CONFIG, CPU, team=team)
    for _ in range(20):
        trainer.step()
    report = {
        "model": trainer.model.state_dict(),
        "tally": trainer.read_tally().bound_sum,
        "held_out": trainer.held_out_bound(),
        "generator": trainer.generator.get_state(),
        "default_generators": [states["cpu"] for states in trainer.state_dict()["default_generators"]],
    }
    torch.save(report, Path(folder, f"{team.rank}.pt"))


def _poison_and_explain(team: Team, folder: str) -> None:
    """One row that is not a number, in whichever rank's share it turns up."""
    digits = load_dataset("digits")
    dataset = replace(digits, train=digits.train.float(), test=digits.test.float())
    poisoned = Trainer(dataset, replace(CONFIG, samples=10_000, binarise=False), CPU, team=team)
    poisoned.dataset.train[7] = math.nan
    try:
        train(poisoned, RunDirectory(Path(folder, "poisoned")), NoDisplay())
    except UserError as error:
        Path(folder, f"{team.rank}.txt").write_text(str(error))


def _stop(team: Team, folder: str) -> None:
    """By an interrupt that only the second of them has."""
    trainer = Trainer(load_dataset("digits"), replace(CONFIG, samples=10_000), CPU, team=team)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, RunDirectory(Path(folder, "stopped")), NoDisplay(), stop=lambda: team.rank == 1)


def test_two_ranks_of_50_are_one_of_100(tmp_path: Path) -> None:
    multiprocessing.spawn(_work_in_team, args=(2, str(tmp_path)), nprocs=2)  # type: ignore[attr-defined,no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = Trainer(load_dataset("digits"), CONFIG, CPU)
    for _ in range(20):
        alone.step()
    torch.testing.assert_close(first["model"], alone.model.state_dict(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first["tally"], alone.read_tally().bound_sum, rtol=1e-6, atol=0)
    torch.testing.assert_close(first["held_out"], alone.held_out_bound(), rtol=1e-6, atol=0)
    assert torch.equal(first["generator"], alone.generator.get_state())
    for name, weights in first["model"].items():
        assert torch.equal(weights, second["model"][name])
    # What dropout would leave out is another thing in each; a checkpoint has both.
    noise = first["default_generators"]
    assert len(noise) == 2
    assert not torch.equal(*noise)
    assert (first["tally"], first["held_out"]) == (second["tally"], second["held_out"])

    # After the 20 steps between two agreements.
    assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt").samples == 20 * 100

    explanations = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert "the KL divergence of 7 (training rows, at " in explanations[0]
    assert explanations[0] == explanations[1]


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    return subprocess.run(
        [*command, "-m", "vae_ext", "train", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_curve_under_torchrun(tmp_path: Path) -> None:
    """Adagrad, as anyone would run it; then the finished run is resumed by one process."""
    options = ("--samples", 4000, "--hidden", 16)
    result = torchrun(*options, "--out", tmp_path / "two")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Written to") == 1
    assert invoke("train", *options, "--out", tmp_path / "one").exit_code == 0
    for ours, theirs in zip(read_metrics(tmp_path / "two"), read_metrics(tmp_path / "one"), strict=True):
        assert ours["samples"] == theirs["samples"]
        assert ours["train_bound"] == pytest.approx(theirs["train_bound"], abs=1e-2)
        assert ours["test_bound"] == pytest.approx(theirs["test_bound"], abs=1e-2)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    assert invoke("train", "--resume", tmp_path / "two").exit_code == 0
    assert load_checkpoint(tmp_path / "two" / "checkpoint.pt").samples == 4000


def test_what_stops_one_process_ends_the_job(tmp_path: Path) -> None:
    """Before training: the first alone sees the lock. Amid it: the first alone writes, and the others wait for it."""
    with sole_writer(tmp_path, Team()):
        locked = torchrun("--samples", 4000, "--hidden", 16, "--out", tmp_path)
    assert locked.returncode == 1
    assert "\nvae-ext: another process is training in" in "\n" + locked.stderr
    assert "process 1 stops, since process 0 does: another process" in locked.stderr

    (tmp_path / "checkpoint.pt.tmp").mkdir()
    unwritable = torchrun("--samples", 4000, "--hidden", 16, "--out", tmp_path)
    assert unwritable.returncode == 1
    assert re.search(r"vae-ext: cannot (use|write) .*checkpoint\.pt", unwritable.stderr)


@pytest.mark.parametrize(("count", "size"), [(100, 2), (7, 3), (2, 3), (1, 1)])
def test_shares_are_the_whole(count: int, size: int) -> None:
    rows = list(range(count))
    shares = [rows[Team(rank, size).share(count)] for rank in range(size)]
    assert [row for share in shares for row in share] == rows
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_minibatch_that_cannot_be_shared() -> None:
    digits: Dataset = load_dataset("digits")
    with pytest.raises(UserError, match="batch_size is 100: expected a multiple of the 3 processes"):
        Trainer(digits, TrainConfig(), CPU, team=Team(0, 3))


def test_without_torchrun_one_process_is_the_team() -> None:
    assert join_team() == Team(0, 1)
