"""Shows a training run: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from vae_ext.aevb.run_directory import Record
from vae_ext.aevb.trainer import Tally


def make_display(console: Console, samples: int, begun: Tally | None = None) -> LiveBar | PlainLines:
    """The display that suits the console, for a run of so many samples that goes on from `begun`; a context manager."""
    kind = LiveBar if console.is_terminal else PlainLines
    return kind(console, samples, begun or Tally())


class _Display:
    """Shows, every `interval` seconds, the training bound since the last time and the held-out one last recorded."""

    interval: float

    def __init__(self, console: Console, samples: int, begun: Tally) -> None:
        self.console = console
        self.samples = samples
        self.train_bound = self.test_bound = math.nan
        self.begun = self.last = begun

    def shown(self, tally: Tally) -> None:
        self.train_bound = tally.mean_bound_since(self.last)
        self.last = tally
        self._show(tally.samples)

    def recorded(self, record: Record) -> None:
        self.train_bound, self.test_bound = record.train_bound, record.test_bound

    def _show(self, samples: int) -> None:
        raise NotImplementedError

    def _bounds(self) -> str:
        held_out = "" if math.isnan(self.test_bound) else f", held-out {self.test_bound:.2f}"
        return f"bound {self.train_bound:.2f} nats{held_out}"


class LiveBar(_Display):
    """A bar with the bound, samples per second and time left."""

    interval = 0.25

    def __init__(self, console: Console, samples: int, begun: Tally) -> None:
        super().__init__(console, samples, begun)
        self.bar = Progress(
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[bounds]}"),
            _SpeedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("left"),
            console=console,
        )
        self.task = self.bar.add_task("training", total=samples, completed=begun.samples, bounds="")

    def __enter__(self) -> LiveBar:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.bar.stop()

    def recorded(self, record: Record) -> None:
        super().recorded(record)
        self._show(record.samples)

    def _show(self, samples: int) -> None:
        self.bar.update(self.task, completed=samples, bounds=self._bounds())


class _SpeedColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} samples/s")


class PlainLines(_Display):
    """A line every five seconds, and one at the end."""

    interval = 5.0

    def __enter__(self) -> PlainLines:
        self.start = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def recorded(self, record: Record) -> None:
        super().recorded(record)
        if record.samples >= self.samples:
            self._show(record.samples)

    def _show(self, samples: int) -> None:
        speed = (samples - self.begun.samples) / max(time.monotonic() - self.start, 1e-3)
        left = max(0, self.samples - samples) / max(speed, 1e-3)
        self.console.print(
            f"{samples:>12,} samples   {self._bounds()}   {speed:8,.0f} samples/s   {left:5.0f} s left",
        )
