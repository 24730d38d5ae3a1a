"""The experiment: does a posterior over the weights help where there are few datapoints to learn from?"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from vae_ext.aevb.full_vb import FullVBTrainer, bayesian_vae
from vae_ext.aevb.models import AutoEncoder
from vae_ext.aevb.run import record_now, record_points
from vae_ext.aevb.run_directory import Record
from vae_ext.aevb.trainer import Trainer
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.train_config import TrainConfig

# Of the same model from the same start: weights as points under the prior N(0, I), by Algorithm 1; a posterior over the
# decoder's, as in the paper; one over the encoder's too.
METHODS = ("map", "full_vb_decoder", "full_vb_both")


@dataclass(frozen=True)
class Learned:
    """What one method learned from the first N datapoints.

    Attributes:
        method: one of `METHODS`.
        size: N.
        records: bounds against training samples. The training bound of full VB has KL(q(theta) || p(theta)) / N taken
            off.
        model: at the end.
    """

    method: str
    size: int
    records: tuple[Record, ...]
    model: AutoEncoder


def compare(dataset: Dataset, config: TrainConfig, sizes: Sequence[int], device: torch.device) -> Iterator[Learned]:
    """Trains by each method on each number of datapoints; held-out ones are all of the dataset's.

    Raises:
        UserError: a bound is not finite.
    """
    for size in sizes:
        few = replace(dataset, train=dataset.train[:size], train_labels=None)
        for method in METHODS:
            trainer = make_trainer(method, few, config, device)
            yield Learned(method, size, tuple(_records(trainer, method)), trainer.model)


def make_trainer(method: str, dataset: Dataset, config: TrainConfig, device: torch.device) -> Trainer:
    """The trainer of one of `METHODS`."""
    if method == "map":
        return Trainer(dataset, config, device)
    model = bayesian_vae(dataset, config, device, encoder=method == "full_vb_both")
    return FullVBTrainer(dataset, config, device, model)


def _records(trainer: Trainer, method: str) -> Iterator[Record]:
    """Trains to the end; bounds at `record_points`."""
    begun, tally = time.monotonic(), trainer.read_tally()
    for samples in record_points(trainer.config.samples, trainer.samples_per_step):
        while trainer.samples < samples:
            trainer.step()
        tally, record = record_now(trainer, tally, time.monotonic() - begun)
        if not (math.isfinite(record.train_bound) and math.isfinite(record.test_bound)):
            raise UserError(
                f"the bound by {method} of {trainer.dataset_size:,} datapoints was no longer finite after"
                f" {record.samples:,} samples: take a smaller step size"
            )
        yield record
