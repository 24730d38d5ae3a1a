"""What a run says: in colours and with a bar where rich is installed, in plain lines where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from benchmarks.tables import Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

_Item = TypeVar("_Item")
_LEAST_WIDTH_OF_TABLES = 160


class Terminal(Protocol):
    """Where a run writes to."""

    def say(self, *lines: str, warning: bool = False) -> None:
        """Each on a line."""

    def show(self, table: Table) -> None: ...

    def each(self, what: str, items: Mapping[str, _Item]) -> Iterator[tuple[str, _Item]]:
        """The items, and how far one is with them."""


def terminal() -> Terminal:
    """The best there is."""
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return PlainTerminal()
    return RichTerminal(Console(highlight=False))


class PlainTerminal:
    """Lines, as a log has them."""

    def say(self, *lines: str, warning: bool = False) -> None:
        print(*lines, sep="\n", flush=True)

    def show(self, table: Table) -> None:
        self.say("", table.title, *table.plain())

    def each(self, what: str, items: Mapping[str, _Item]) -> Iterator[tuple[str, _Item]]:
        self.say(f"{what}: {len(items)}")
        yield from items.items()


class RichTerminal:
    """What a person looks at."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, *lines: str, warning: bool = False) -> None:
        self._console.print(*lines, sep="\n", style="bold red" if warning else None, markup=False, soft_wrap=True)

    def show(self, table: Table) -> None:
        from rich.console import Console

        # Where it is narrow, the terminal wraps lines: better than a table that lacks numbers.
        width = max(self._console.width, _LEAST_WIDTH_OF_TABLES)
        Console(width=width, highlight=False, file=self._console.file).print(_rich(table))

    def each(self, what: str, items: Mapping[str, _Item]) -> Iterator[tuple[str, _Item]]:
        """With a bar that is drawn between them: drawing would be measured too."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        if not self._console.is_terminal:
            yield from PlainTerminal().each(what, items)
            return
        columns = (
            TextColumn("{task.description:12}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
        )
        with Progress(*columns, console=self._console, auto_refresh=False, transient=True) as progress:
            task = progress.add_task(what, total=len(items), now="")
            for name, item in items.items():
                progress.update(task, now=name, refresh=True)
                yield name, item
                progress.advance(task)


def _rich(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for index, heading in enumerate(table.headings):
        shown.add_column(heading, justify="left" if index < table.words else "right", no_wrap=True)
    for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
        shown.add_row(*row, end_section=table.grouped and (following is None or following[0] != row[0]))
    return shown
