"""A training run, from its first step or the last checkpoint to its end: what is recorded, saved and shown when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Protocol

import torch

from vae_ext.aevb.checkpoint import Progress
from vae_ext.aevb.diagnosis import explain
from vae_ext.aevb.distributed import Team
from vae_ext.aevb.run_directory import Record, RunDirectory
from vae_ext.aevb.trainer import Tally, Trainer
from vae_ext.errors import UserError

RECORDS = 48
RECORDED_DECADES = 3
CHECKPOINT_INTERVAL = 30.0
# Processes of a team agree on what is due after so many steps; one process alone asks the clock after each.
STEPS_BETWEEN_AGREEMENTS = 20


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


class _Clock:
    """Says when it is time to show, to save and to stop, to all processes of a team alike."""

    def __init__(self, team: Team, show_interval: float, seconds: float, stop: Callable[[], bool]) -> None:
        self.team = team
        self.stop = stop
        self.show_interval = show_interval
        self.started = time.monotonic() - seconds
        self.steps = 0
        self.last_show = self.last_save = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def saved(self) -> None:
        self.last_save = time.monotonic()

    def due(self) -> tuple[bool, ...]:
        """After a step: whether to show, whether to save, whether to stop."""
        self.steps += 1
        if self.team.size > 1 and self.steps % STEPS_BETWEEN_AGREEMENTS:
            return False, False, False
        now = time.monotonic()
        show, save, stop = self.team.any_wishes(
            now - self.last_show >= self.show_interval, now - self.last_save > CHECKPOINT_INTERVAL, self.stop()
        )
        if show:
            self.last_show = now
        return show, save, stop


def record_points(samples: int, samples_per_step: int) -> list[int]:
    """After how many samples a run records: whole steps, even on a log scale over the last decades."""
    steps = math.ceil(samples / samples_per_step)
    fractions = (10 ** (-RECORDED_DECADES * (1 - index / (RECORDS - 1))) for index in range(RECORDS))
    return [step * samples_per_step for step in sorted({max(1, round(steps * fraction)) for fraction in fractions})]


def train(
    trainer: Trainer,
    directory: RunDirectory,
    display: Display | None = None,
    log: Callable[[Record], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Record]:
    """Trains to the end, from the start or from where a resumed run stopped; shows nothing without a display.

    `stop` is asked after each step: where it says so, the run is saved there and ends with a KeyboardInterrupt.

    Records at the `record_points` and calls `log` then; saves before the first step, with every record, and every
    `CHECKPOINT_INTERVAL` seconds. Records are left to the record points, and the checkpoint counts them, so that a run
    writes the same ones however often it was stopped; those of a team, up to the rounding of the sum of bounds. A run
    that goes on to more samples than it was begun with records at the points of the longer run from there on.

    Raises:
        UserError: the bound is no longer finite, the checkpoint being of a model whose bound was; or the directory is
            not of the trainer.
    """
    _check_directory(trainer, directory)
    team = trainer.team
    display = display or _NoDisplay()
    progress = directory.progress
    records: list[Record] = []
    with team.all_or_none():
        if team.is_first and directory.saved_samples is not None:
            records = directory.rewind_records()
    clock = _Clock(team, display.interval, progress.seconds, stop)
    if directory.saved_config != trainer.config:
        # A new run, or one that is to be longer: whoever resumes it next need not be told again.
        directory.save_checkpoint(trainer, progress)
    points = record_points(trainer.config.samples, trainer.samples_per_step)
    # At the point where it was saved it may still have to be recorded.
    for target in (point for point in points if point >= trainer.samples and point > progress.recorded.samples):
        _advance(trainer, target, directory, display, clock)
        seconds = clock.seconds()
        tally, record = record_now(trainer, directory.progress.recorded, seconds)
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


def record_now(trainer: Trainer, since: Tally, seconds: float) -> tuple[Tally, Record]:
    """The tally, and the record of it and of the held-out bound, with the mean training bound since another tally."""
    tally = trainer.read_tally()
    return tally, Record(
        tally.samples, tally.mean_bound_since(since), trainer.held_out_bound(), seconds=round(seconds, 3)
    )


def _check_directory(trainer: Trainer, directory: RunDirectory) -> None:
    saved = directory.saved_samples or 0
    if trainer.samples != saved:
        raise UserError(
            f"the trainer has seen {trainer.samples:,} samples, but its RunDirectory {directory.path} goes on after"
            f" {saved:,}: give that the checkpoint which the trainer was resumed from"
        )


def _advance(trainer: Trainer, target: int, directory: RunDirectory, display: Display, clock: _Clock) -> None:
    """Steps until `target` samples are seen; shows, saves and stops when it is time."""
    while trainer.samples < target:
        trainer.step()
        show, save, stop = clock.due()
        if show or save or stop:
            tally = trainer.read_tally()
            _require_finite(trainer, directory, tally.bound_sum)
        if show:
            display.shown(tally)
        if save or stop:
            _require_finite(trainer, directory, trainer.held_out_bound())
            directory.save_checkpoint(trainer, replace(directory.progress, seconds=clock.seconds()))
            clock.saved()
        if stop:
            trainer.team.wait_for_all()
            raise KeyboardInterrupt


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
