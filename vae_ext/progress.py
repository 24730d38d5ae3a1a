"""Shows a training run: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

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

from vae_ext.aevb.run import Record
from vae_ext.aevb.trainer import Tally, Trainer

LIVE_INTERVAL = 0.25
PLAIN_INTERVAL = 5.0


def make_display(console: Console, samples: int) -> LiveBar | PlainLines:
    """The display that suits the console, for a run of so many samples; a context manager."""
    return LiveBar(console, samples) if console.is_terminal else PlainLines(console, samples)


class LiveBar:
    """A bar with the bound, samples per second and time left."""

    def __init__(self, console: Console, samples: int) -> None:
        self.bar = Progress(
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[bounds]}"),
            _SpeedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("left"),
            console=console,
        )
        self.task = self.bar.add_task("training", total=samples, bounds="")
        self.train_bound = self.test_bound = float("nan")
        self.next_show = time.monotonic() + LIVE_INTERVAL
        self.shown = Tally()

    def __enter__(self) -> LiveBar:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.bar.stop()

    def stepped(self, trainer: Trainer) -> None:
        if time.monotonic() < self.next_show:
            return
        tally = trainer.read_tally()
        self.train_bound = tally.mean_bound_since(self.shown)
        self.shown = tally
        self._show(tally.samples)
        self.next_show = time.monotonic() + LIVE_INTERVAL

    def recorded(self, record: Record) -> None:
        self.train_bound, self.test_bound = record.train_bound, record.test_bound
        self._show(record.samples)

    def _show(self, samples: int) -> None:
        bounds = f"bound {self.train_bound:.2f} nats, held-out {self.test_bound:.2f}"
        self.bar.update(self.task, completed=samples, bounds=bounds)


class _SpeedColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} samples/s")


class PlainLines:
    """A line every few seconds, and one at the end."""

    def __init__(self, console: Console, samples: int) -> None:
        self.console = console
        self.samples = samples
        self.next_line = PLAIN_INTERVAL

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def stepped(self, trainer: Trainer) -> None:
        pass

    def recorded(self, record: Record) -> None:
        if record.seconds < self.next_line and record.samples < self.samples:
            return
        self.next_line = record.seconds + PLAIN_INTERVAL
        speed = record.samples / max(record.seconds, 1e-3)
        left = max(0, self.samples - record.samples) / speed
        self.console.print(
            f"{record.samples:>12,} samples   bound {record.train_bound:9.3f} nats"
            f" (held-out {record.test_bound:9.3f})   {speed:8,.0f} samples/s   {left:5.0f} s left",
        )
