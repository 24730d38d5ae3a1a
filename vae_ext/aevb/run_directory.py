"""The folder that a training run leaves behind, and goes on from."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vae_ext import results
from vae_ext.aevb.checkpoint import Checkpoint, Progress, RunOptions, load_trainer_state, save_checkpoint
from vae_ext.aevb.distributed import Team
from vae_ext.aevb.trainer import Trainer
from vae_ext.errors import UserError
from vae_ext.files import write_atomically

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
TENSORBOARD = "tensorboard"


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


class RunDirectory:
    """The folder of one run: created and found writable before the first step.

    The files of an earlier run there are moved into a new folder ``earlier-N`` when the first of this one is about to
    be written. Nothing is overwritten. A run that is `resumed` goes on with its own files.

    Attributes:
        progress: what was recorded when the checkpoint was saved last.
        earlier: where an earlier run was moved; None where there was none, or nothing was written yet.
        saved_samples: training samples seen by the checkpoint saved last; None before the first.
        saved_config: of the checkpoint saved last; None before the first.

    Raises:
        UserError: the folder cannot be created or written to.
    """

    def __init__(self, path: str | Path, options: RunOptions | None = None, resumed: Checkpoint | None = None) -> None:
        self.path = Path(path)
        self.options = options or (resumed.options if resumed else None)
        self.progress = resumed.progress if resumed else Progress()
        self.saved_samples = resumed.samples if resumed else None
        self.saved_config = resumed.config if resumed else None
        self.earlier: Path | None = None
        self._has_files = resumed is not None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
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
        names = (CHECKPOINT, METRICS, SUMMARY, *results.FILES, TENSORBOARD)
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
        self.saved_config = trainer.config

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

        The summary goes too: until it is written again the run is not a whole one.

        Raises:
            UserError: the file has fewer, or cannot be read.
        """
        path, count = self.path / METRICS, self.progress.records
        try:
            (self.path / SUMMARY).unlink(missing_ok=True)
            if count == 0:
                path.unlink(missing_ok=True)
                return []
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
