"""One training run and the folder it leaves behind."""

from __future__ import annotations

import fcntl
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from vae_ext.aevb.checkpoint import (
    Checkpoint,
    Progress,
    RunOptions,
    load_trainer_state,
    save_checkpoint,
    write_atomically,
)
from vae_ext.aevb.diagnosis import explain
from vae_ext.aevb.distributed import Team
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
TENSORBOARD = "tensorboard"
RECORDS = 48
RECORDED_DECADES = 3
CHECKPOINT_INTERVAL = 30.0
# Processes of a team agree on what is due after so many steps; one process alone asks the clock after each.
STEPS_BETWEEN_AGREEMENTS = 20


@dataclass(frozen=True)
class Record:
    """One line of ``metrics.jsonl``; bounds are mean nats per datapoint.

    Attributes:
        samples: training samples seen.
        train_bound: over the minibatches since the record before.
        test_bound: over the held-out datapoints, of the model as it is now.
        seconds: of training so far.
    """

    samples: int
    train_bound: float
    test_bound: float
    seconds: float


class Display(Protocol):
    """Shows a run to whoever is watching.

    Attributes:
        interval: seconds between two calls of `shown`; each waits for the device.
    """

    interval: float

    def shown(self, tally: Tally) -> None:
        """Called after a step, when its time has come."""

    def recorded(self, record: Record) -> None:
        """Called after every record."""


class _NoDisplay:
    interval = math.inf

    def shown(self, tally: Tally) -> None:
        pass

    def recorded(self, record: Record) -> None:
        pass


class RunDirectory:
    """The folder of one run: created and found writable before the first step.

    The files of an earlier run there are moved into a new folder ``earlier-N`` when the first of this one is about to
    be written. Nothing is overwritten. A run that is `resumed` goes on with its own files.

    Attributes:
        progress: what was recorded when the checkpoint was saved last.
        earlier: where an earlier run was moved; None where there was none, or nothing was written yet.
        saved_samples: training samples seen by the checkpoint saved last; None before the first.

    Raises:
        UserError: the folder cannot be created or written to.
    """

    def __init__(self, path: Path, options: RunOptions | None = None, resumed: Checkpoint | None = None) -> None:
        self.path = path
        self.options = options
        self.progress = resumed.progress if resumed else Progress()
        self.saved_samples = resumed.samples if resumed else None
        self.earlier: Path | None = None
        self._has_files = resumed is not None
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
        # The checkpoint first, so that what is left of a run never seems to be a whole one.
        names = (CHECKPOINT, METRICS, SUMMARY, *PICTURES, *RESULTS, TENSORBOARD)
        files = [self.path / name for name in names]
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

    def save_checkpoint(self, trainer: Trainer, progress: Progress) -> None:
        path = self._file(CHECKPOINT) if trainer.team.is_first else self.path / CHECKPOINT
        save_checkpoint(path, trainer, self.options, progress)
        self.progress = progress
        self.saved_samples = trainer.samples

    def load_trainer_state(self) -> dict[str, Any]:
        """Of the checkpoint saved last."""
        return load_trainer_state(self.path / CHECKPOINT)

    def append_record(self, record: Record) -> None:
        path = self._file(METRICS)
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
                file.flush()
                # A checkpoint that counts this record must not survive it.
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error

    def rewind_records(self) -> list[Record]:
        """The records that the checkpoint counts; later ones, which will be made again, are cut off the file.

        Raises:
            UserError: the file has fewer, or cannot be read.
        """
        path, count = self.path / METRICS, self.progress.records
        if count == 0:
            path.unlink(missing_ok=True)
            return []
        try:
            lines = path.read_bytes().splitlines(keepends=True)[:count]
            records = [Record(**json.loads(line)) for line in lines]
            if len(records) < count:
                raise ValueError(f"it has {len(records)} records")
            os.truncate(path, sum(map(len, lines)))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} does not hold the {count} records that {CHECKPOINT} counts: {error}") from error
        return records

    def write_summary(self, summary: dict[str, Any]) -> None:
        text = json.dumps(summary, indent=2) + "\n"
        write_atomically(self._file(SUMMARY), lambda file: file.write(text.encode()))


@contextmanager
def sole_writer(folder: Path, team: Team) -> Iterator[None]:
    """Keeps other processes than those of the team from running in the folder, for as long as this one lives.

    Raises:
        UserError: another process is.
    """
    with ExitStack() as stack:
        with team.all_or_none():
            if team.is_first and folder.is_dir():
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, descriptor)
                _lock(descriptor, folder)
        yield


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is training in {folder}: wait for its end, or use another folder") from None
    except OSError:
        return  # This file system has no locks.


class _Clock:
    """Says when it is time to show and to save, to all processes of a team alike."""

    def __init__(self, team: Team, show_interval: float, seconds: float) -> None:
        self.team = team
        self.show_interval = show_interval
        self.started = time.monotonic() - seconds
        self.steps = 0
        self.last_show = self.last_save = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def saved(self) -> None:
        self.last_save = time.monotonic()

    def due(self) -> tuple[bool, ...]:
        """After a step: whether to show, whether to save."""
        self.steps += 1
        if self.team.size > 1 and self.steps % STEPS_BETWEEN_AGREEMENTS:
            return False, False
        now = time.monotonic()
        show, save = self.team.follow_the_first(
            now - self.last_show >= self.show_interval, now - self.last_save > CHECKPOINT_INTERVAL
        )
        if show:
            self.last_show = now
        return show, save


def record_points(samples: int, batch_size: int) -> list[int]:
    """After how many samples a run records: whole minibatches, even on a log scale over the last decades."""
    steps = math.ceil(samples / batch_size)
    fractions = (10 ** (-RECORDED_DECADES * (1 - index / (RECORDS - 1))) for index in range(RECORDS))
    return [step * batch_size for step in sorted({max(1, round(steps * fraction)) for fraction in fractions})]


def train(
    trainer: Trainer,
    directory: RunDirectory,
    display: Display | None = None,
    log: Callable[[Record], None] | None = None,
) -> list[Record]:
    """Trains to the end, from the start or from where a resumed run stopped; shows nothing without a display.

    Records at the `record_points` and calls `log` then; saves before the first step, with every record, and every
    `CHECKPOINT_INTERVAL` seconds. Records are left to the record points, and the checkpoint counts them, so that a run
    writes the same ones however often it was stopped.

    Raises:
        UserError: the bound is no longer finite; the checkpoint is of a model whose bound was.
    """
    team = trainer.team
    display = display or _NoDisplay()
    progress = directory.progress
    records: list[Record] = []
    with team.all_or_none():
        if team.is_first and directory.saved_samples is not None:
            records = directory.rewind_records()
    clock = _Clock(team, display.interval, progress.seconds)
    if directory.saved_samples is None:
        directory.save_checkpoint(trainer, progress)
    for target in record_points(trainer.config.samples, trainer.config.batch_size)[progress.records :]:
        _advance(trainer, target, directory, display, clock)
        tally = trainer.read_tally()
        seconds = clock.seconds()
        train_bound = tally.mean_bound_since(directory.progress.recorded)
        record = Record(tally.samples, train_bound, trainer.held_out_bound(), round(seconds, 3))
        _require_finite(trainer, directory, record.train_bound, record.test_bound)
        if team.is_first:
            directory.append_record(record)
        # Before the checkpoint that counts it: after a kill in between it is logged again, and never not at all.
        if log is not None:
            log(record)
        directory.save_checkpoint(trainer, Progress(directory.progress.records + 1, tally, seconds))
        clock.saved()
        display.recorded(record)
        records.append(record)
    return records


def _advance(trainer: Trainer, target: int, directory: RunDirectory, display: Display, clock: _Clock) -> None:
    """Steps until `target` samples are seen; shows and saves when it is time."""
    while trainer.samples < target:
        trainer.step()
        show, save = clock.due()
        if show or save:
            tally = trainer.read_tally()
            _require_finite(trainer, directory, tally.bound_sum)
        if show:
            display.shown(tally)
        if save:
            _require_finite(trainer, directory, trainer.held_out_bound())
            directory.save_checkpoint(trainer, replace(directory.progress, seconds=clock.seconds()))
            clock.saved()


def _require_finite(trainer: Trainer, directory: RunDirectory, *bounds: float) -> None:
    if all(map(math.isfinite, bounds)):
        return
    samples = trainer.samples
    fault = explain(trainer, directory.load_trainer_state())
    raise UserError(
        f"the bound was no longer finite after {samples:,} samples: {fault};"
        f" the checkpoint of {directory.saved_samples:,} samples is kept: take a smaller step size"
    )


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
