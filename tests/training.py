"""Makes trainers, and ends their runs."""

from __future__ import annotations

import math
from typing import Any

import torch

from vae_ext.aevb import TrainConfig, Trainer
from vae_ext.aevb.run_directory import Record
from vae_ext.aevb.trainer import Tally
from vae_ext.datasets import Dataset

CPU = torch.device("cpu")


def make_trainer(digits: Dataset, **changes: Any) -> Trainer:
    settings = {"samples": 2000, "hidden": 32, **changes}
    return Trainer(digits, TrainConfig(**settings), CPU)


def first_seen(trainer: Trainer, rows: list[int]) -> tuple[int, list[int]]:
    """How many samples were seen before a minibatch with any of the rows, and which of them it has."""
    while True:
        found = sorted(set(trainer.minibatches.draw().rows.tolist()) & set(rows))
        if found:
            return trainer.samples, found
        trainer.samples += trainer.config.batch_size


class NoDisplay:
    """Shows nothing."""

    interval = math.inf

    def shown(self, tally: Tally) -> None:
        pass

    def recorded(self, record: Record) -> None:
        pass


class StopError(Exception):
    """Ends a run as a crash would."""


class Crash(NoDisplay):
    """Crashes once so many records were made."""

    def __init__(self, records: int) -> None:
        self.left = records

    def recorded(self, record: Record) -> None:
        self.left -= 1
        if self.left == 0:
            raise StopError
