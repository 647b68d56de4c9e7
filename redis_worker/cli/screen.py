"""Screens for the status: a live table on a terminal with rich, aligned columns elsewhere, or JSON."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

from redis_worker.broker.operator.status import Status
from redis_worker.cli.printing import print_json
from redis_worker.cli.tables import TEXTS, Table, plain, tables
from redis_worker.vocabulary.text import visible_lines

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

# States shown in red.
_WRONG = ("stale", "failed")
# Lines of output without a terminal.
_LINES = 50


class Screen(Protocol):
    """An output of the status."""

    def show(self, status: Status) -> None:
        """Show the current status, after the last one or in its place."""

    def fail(self, text: str) -> None:
        """Show an error in place of the status."""


@contextmanager
def open_screen(as_json: bool, watch: bool) -> Iterator[Screen]:
    """Open the best available screen."""
    if as_json:
        yield _Json()
        return
    try:
        if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            raise ImportError
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        yield _Columns(watch)
        return
    if not watch:
        yield _Once(Console())
        return
    # No refresh between two readings, so that rich needs no thread.
    with Live(auto_refresh=False, vertical_overflow="crop") as live:
        yield _Live(live)


class _Json:
    def show(self, status: Status) -> None:
        print_json(status.json())

    def fail(self, text: str) -> None:
        click.echo(visible_lines(text), err=True)


class _Columns:
    def __init__(self, watch: bool) -> None:
        self._end = "\n\n" if watch else "\n"

    def show(self, status: Status) -> None:
        size = shutil.get_terminal_size() if sys.stdout.isatty() else None
        shown = tables(status, size.lines if size else _LINES)
        click.echo("\n\n".join(plain(table.within(size and size.columns)) for table in shown) + self._end, nl=False)

    def fail(self, text: str) -> None:
        click.echo(visible_lines(text), err=True)


class _Once:
    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, status: Status) -> None:
        self._console.print(_rich(status, self._console))

    def fail(self, text: str) -> None:
        click.echo(visible_lines(text), err=True)


class _Live:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, status: Status) -> None:
        self._live.update(_rich(status, self._live.console), refresh=True)

    def fail(self, text: str) -> None:
        from rich.text import Text

        self._live.update(Text(visible_lines(text)), refresh=True)


def _rich(status: Status, console: Console) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for table in tables(status, console.height):
        parts += [_rich_table(table.within(console.width)), Text(table.note)]
    return Group(*parts)


def _rich_table(table: Table) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=None, pad_edge=False, header_style="bold")
    made.padding = (0, 1)
    for heading in table.headings:
        made.add_column(heading, justify="left" if heading in TEXTS else "right", no_wrap=True)
    for row in table.rows:
        # Text, because rich parses plain strings as markup.
        made.add_row(*(Text(cell, style="bold red" if cell in _WRONG else "") for cell in row))
    return made
