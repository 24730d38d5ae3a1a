"""One training run and the folder it leaves behind."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from vae_ext.aevb.checkpoint import save_checkpoint, write_atomically
from vae_ext.aevb.trainer import Tally, Trainer
from vae_ext.errors import UserError

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
PICTURES = ("learning_curve.png", "samples.png", "reconstructions.png", "manifold.png")
# What the commands on a trained model add.
RESULTS = (
    *(f"{stem}.npz" for stem in ("samples", "codes", "reconstructions", "interpolations", "manifold")),
    *("codes.png", "interpolations.png", "gradient_variance.json", "gradient_variance.png"),
)
RECORDS = 48
RECORDED_DECADES = 3
CHECKPOINT_INTERVAL = 30.0


@dataclass(frozen=True)
class Record:
    """One line of ``metrics.jsonl``; bounds are mean nats per datapoint.

    Attributes:
        samples: training samples seen.
        train_bound: over the minibatches since the record before.
        test_bound: over the held-out datapoints, of the model as it is now.
        seconds: since training began.
    """

    samples: int
    train_bound: float
    test_bound: float
    seconds: float


class Display(Protocol):
    """Shows a run to whoever is watching."""

    def stepped(self, trainer: Trainer) -> None:
        """Called after every step, so it must not wait for the device each time."""

    def recorded(self, record: Record) -> None:
        """Called after every record."""


class RunDirectory:
    """The folder of one run: created and found writable before the first step.

    The files of an earlier run there are moved into a new folder ``earlier-N`` when the first of this one is about to
    be written, so that a run that fails before that moves nothing. Nothing is overwritten.

    Attributes:
        earlier: where an earlier run was moved; None where there was none, or nothing was written yet.
        saved_samples: training samples seen by the checkpoint saved last; None before the first.
        saved_at: when that was, or the run began, by `time.monotonic`.

    Raises:
        UserError: the folder cannot be created or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.earlier: Path | None = None
        self.saved_samples: int | None = None
        self.saved_at = time.monotonic()
        self._has_files = False
        try:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except OSError as error:
            raise UserError(f"cannot write to the output folder {path}: {error.strerror or error}") from error

    def _file(self, name: str) -> Path:
        """Where to write a file of this run."""
        if not self._has_files:
            self.earlier = self._move_earlier_run_aside()
            self._has_files = True
        return self.path / name

    def _move_earlier_run_aside(self) -> Path | None:
        files = [self.path / name for name in (CHECKPOINT, METRICS, SUMMARY, *PICTURES, *RESULTS)]
        files = [file for file in files if file.exists()]
        if not files:
            return None
        number = 1
        while (self.path / f"earlier-{number}").exists():
            number += 1
        earlier = self.path / f"earlier-{number}"
        try:
            earlier.mkdir()
            for file in files:
                os.replace(file, earlier / file.name)
        except OSError as error:
            raise UserError(f"cannot move the earlier run to {earlier}: {error.strerror or error}") from error
        return earlier

    def append_record(self, record: Record) -> None:
        path = self._file(METRICS)
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error

    def save_checkpoint(self, trainer: Trainer) -> None:
        save_checkpoint(self._file(CHECKPOINT), trainer)
        self.saved_samples = trainer.samples
        self.saved_at = time.monotonic()

    def write_summary(self, summary: dict[str, Any]) -> None:
        text = json.dumps(summary, indent=2) + "\n"
        write_atomically(self._file(SUMMARY), lambda file: file.write(text.encode()))


def record_points(samples: int, batch_size: int) -> list[int]:
    """After how many samples a run records: whole minibatches, even on a log scale over the last decades."""
    steps = math.ceil(samples / batch_size)
    fractions = (10 ** (-RECORDED_DECADES * (1 - index / (RECORDS - 1))) for index in range(RECORDS))
    return [step * batch_size for step in sorted({max(1, round(steps * fraction)) for fraction in fractions})]


def train(trainer: Trainer, directory: RunDirectory, display: Display) -> list[Record]:
    """Trains to the end; records and saves at the `record_points`, and saves every `CHECKPOINT_INTERVAL` seconds.

    Records are left to the record points, so that two runs of one seed write the same ones.

    Raises:
        UserError: the bound is no longer finite; the checkpoint is of a model whose bound was.
    """
    records: list[Record] = []
    start = time.monotonic()
    last = Tally()
    for target in record_points(trainer.config.samples, trainer.config.batch_size):
        while trainer.samples < target:
            trainer.step()
            display.stepped(trainer)
            if time.monotonic() - directory.saved_at > CHECKPOINT_INTERVAL:
                require_finite(trainer.samples, directory.saved_samples, trainer.held_out_bound())
                directory.save_checkpoint(trainer)
        now = trainer.read_tally()
        record = Record(
            now.samples,
            now.mean_bound_since(last),
            trainer.held_out_bound(),
            round(time.monotonic() - start, 3),
        )
        require_finite(record.samples, directory.saved_samples, record.train_bound, record.test_bound)
        directory.append_record(record)
        directory.save_checkpoint(trainer)
        display.recorded(record)
        records.append(record)
        last = now
    return records


def require_finite(samples: int, saved: int | None, *bounds: float) -> None:
    if all(map(math.isfinite, bounds)):
        return
    kept = "nothing was saved yet" if saved is None else f"the checkpoint of {saved:,} samples is kept"
    raise UserError(f"the bound was no longer finite after {samples:,} samples ({kept}): give a smaller --lr")


def summarise(trainer: Trainer, records: list[Record]) -> dict[str, Any]:
    """What ``summary.json`` holds; bounds are mean nats per datapoint."""
    final = records[-1]
    return {
        "dataset": trainer.dataset.name,
        "train_datapoints": len(trainer.dataset.train),
        "test_datapoints": len(trainer.dataset.test),
        "train_bound": final.train_bound,
        "test_bound": final.test_bound,
        "samples": final.samples,
        "seconds": final.seconds,
        "samples_per_second": round(final.samples / max(final.seconds, 1e-3)),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "device": str(trainer.device),
        "torch": torch.__version__,
        "train_config": asdict(trainer.config),
        "model_config": trainer.model.config and asdict(trainer.model.config),
    }
