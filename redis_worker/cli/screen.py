"""Screens for the status: a live table on a terminal with rich, aligned columns elsewhere, or JSON."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from redis_worker.broker.operator.status import Status
from redis_worker.cli.printing import print_json
from redis_worker.cli.tables import TEXTS, Table, plain, tables
from redis_worker.vocabulary.text import visible_lines

if TYPE_CHECKING:
    from rich.console import Console, Group

# States shown in red.
_WRONG = ("stale", "failed")
# Lines of output without a terminal.
_LINES = 50


def _fail(text: str) -> None:
    click.echo(visible_lines(text), err=True)


class Screen(NamedTuple):
    """An output of the status."""

    show: Callable[[Status], None]
    """Shows the current status, after the last one or in its place."""
    fail: Callable[[str], None] = _fail
    """Shows an error in place of the status."""


@contextmanager
def open_screen(as_json: bool, watch: bool) -> Iterator[Screen]:
    """Open the best available screen."""
    if as_json:
        yield Screen(lambda status: print_json(status.json()))
        return
    try:
        if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            raise ImportError
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        yield Screen(partial(_show_columns, "\n\n" if watch else "\n"))
        return
    console = Console()
    if not watch:
        yield Screen(lambda status: console.print(_rich(status, console)))
        return
    # No refresh between two readings, so that rich needs no thread.
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        yield Screen(
            lambda status: live.update(_rich(status, console), refresh=True),
            lambda text: live.update(Text(visible_lines(text)), refresh=True),
        )


def _show_columns(end: str, status: Status) -> None:
    size = shutil.get_terminal_size() if sys.stdout.isatty() else None
    shown = tables(status, size.lines if size else _LINES)
    click.echo("\n\n".join(plain(table.within(size and size.columns)) for table in shown) + end, nl=False)


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
