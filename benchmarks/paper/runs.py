"""Runs one curve to its end, in a folder of its own, from where it stopped."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.paper.accumulating import AccumulatingTrainer, AccumulatingWakeSleepTrainer
from benchmarks.paper.curves import Curve, LearnedCurve
from benchmarks.paper.wake_sleep import WakeSleepTrainer
from vae_ext.aevb import Trainer, load_checkpoint
from vae_ext.aevb.checkpoint import resume
from vae_ext.aevb.distributed import Team
from vae_ext.aevb.run import train
from vae_ext.aevb.run_directory import CHECKPOINT, RunDirectory, sole_writer
from vae_ext.aevb.step_size import best_step_size, try_step_sizes
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.files import write_atomically
from vae_ext.progress import make_display
from vae_ext.train_config import TrainConfig

# By algorithm, and by whether the first steps only accumulate.
TRAINERS: dict[tuple[str, bool], type[Trainer]] = {
    ("aevb", False): Trainer,
    ("aevb", True): AccumulatingTrainer,
    ("wake-sleep", False): WakeSleepTrainer,
    ("wake-sleep", True): AccumulatingWakeSleepTrainer,
}
STEP_SIZES = "step_sizes.json"
# Step sizes are tried for as long as in a run of so many samples, so that a longer run begins as a shorter one.
TRIED_AS_FOR = 10**6
CPU = torch.device("cpu")


def run(
    curve: Curve, config: TrainConfig, data: Dataset, folder: Path, console: Console
) -> tuple[LearnedCurve, Trainer]:
    """Begins the curve, or goes on with it; one that is finished is only read.

    `config.lr` is the step size if the curve has one of its own, and otherwise has no say.

    Raises:
        UserError: the folder holds a run of another config, or another process is at it.
    """
    kind = TRAINERS[curve.algorithm, curve.accumulate]
    with (
        begun_or_resumed(kind, config, data, folder, choose=curve.step_size is None) as (trainer, directory),
        make_display(console, config.samples, trainer.read_tally()) as display,
    ):
        records = train(trainer, directory, display)
    learned = LearnedCurve(
        curve,
        trainer.config,
        read_step_sizes(folder),
        [record.samples for record in records],
        [round(record.train_bound, 3) for record in records],
        [round(record.test_bound, 3) for record in records],
        records[-1].seconds,
        setting_of(data),
    )
    return learned, trainer


@contextmanager
def begun_or_resumed(
    kind: type[Trainer], config: TrainConfig, data: Dataset, folder: Path, *, choose: bool = True
) -> Iterator[tuple[Trainer, RunDirectory]]:
    """A trainer where the run in the folder stopped, or a new one; the folder is its own.

    Args:
        choose: the step size, by short trials, instead of `config.lr`.

    Raises:
        UserError: as `run` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder, Team()):
        begun = (folder / CHECKPOINT).exists()
        yield (_resume if begun else _begin)(kind, config, data, folder, choose)


def read_step_sizes(folder: Path) -> dict[str, float]:
    """The training bounds of the trials that the run in the folder began with."""
    bounds: dict[str, float] = json.loads((folder / STEP_SIZES).read_text())
    return bounds


def setting_of(data: Dataset) -> dict[str, Any]:
    """Where runs are made, and on what."""
    return {
        "train_datapoints": len(data.train),
        "test_datapoints": len(data.test),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _begin(
    kind: type[Trainer], config: TrainConfig, data: Dataset, folder: Path, choose: bool
) -> tuple[Trainer, RunDirectory]:
    tried = replace(config, samples=min(config.samples, TRIED_AS_FOR))
    bounds = try_step_sizes(data, tried, CPU, trainer_type=kind) if choose else {}
    text = json.dumps({f"{lr:g}": round(bound, 3) for lr, bound in bounds.items()})
    write_atomically(folder / STEP_SIZES, lambda file: file.write(text.encode()))
    chosen = replace(config, lr=best_step_size(bounds)) if choose else config
    return kind(data, chosen, CPU), RunDirectory(folder)


def _resume(
    kind: type[Trainer], config: TrainConfig, data: Dataset, folder: Path, choose: bool
) -> tuple[Trainer, RunDirectory]:
    path = folder / CHECKPOINT
    saved = load_checkpoint(path)
    if saved.config != (replace(config, lr=saved.config.lr) if choose else config):
        raise UserError(f"{folder} holds a run of other settings than these: give another --runs")
    trainer = kind(data, saved.config, CPU)
    resume(trainer, saved, path)
    return trainer, RunDirectory(folder, saved.options, saved)
