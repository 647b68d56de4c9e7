"""Commands on one queue: their options, and their bodies, which run with the open queue."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from functools import wraps
from importlib import import_module
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from redis_worker.cli.options import option, redis_url, text, url_option

if TYPE_CHECKING:
    from redis_worker.broker.client.access import Access

Body: TypeAlias = Callable[..., Coroutine[Any, Any, int | None]]

ids_option = click.option(
    "--id", "ids", type=text, multiple=True, metavar="ID", help="The id of the task; may be repeated."
)
all_option = click.option("--all", "everything", is_flag=True, help="Select all.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
limit_option = click.option(
    "-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="Number of tasks to show."
)


def on_queue(place: str, doing: str) -> Callable[[Body], Callable[..., int | None]]:
    """Turn a coroutine function into a command with `--input` and `--url`, called with the open queue and its key.

    `place` is the class of the queue, as module:name below `redis_worker`; it is imported when the command runs. Errors
    begin with "cannot `doing`" and the key.
    """

    def decorate(body: Body) -> Callable[..., int | None]:
        @url_option
        @option("--input", "input_key", required=True, metavar="KEY", help="The queue, mq:TOPIC for a topic.")
        @wraps(body)
        def command(input_key: str, url: str | None, **options: Any) -> int | None:
            import asyncio

            return asyncio.run(_run(place, doing, redis_url(url), input_key, lambda *queue: body(*queue, **options)))

        return command

    return decorate


async def _run(place: str, doing: str, url: str, key: str, body: Body) -> int | None:
    from redis_worker.cli.printing import explained

    module, _, name = place.partition(":")
    async with getattr(import_module(f"redis_worker.{module}"), name)(url, key) as queue:
        with explained(url, f"cannot {doing} {key!r}"):
            code = await body(queue, key)
        await hint(queue, [key])
        return code


async def hint(access: Access, keys: Iterable[str]) -> None:
    """Print the list's name on standard error for each of `keys` that is a topic and not a queue."""
    for key in keys:
        if meant := await access.meant(key):
            click.echo(f"Hint: there is no queue {key}, but a topic of this name: --input {quote(meant)}", err=True)


def check_selection(selected: bool, everything: bool, options: str) -> None:
    """Raise UsageError unless either `selected` or `everything`; `options` are those that select."""
    if selected == everything:
        raise click.UsageError(f"select with {options}, or --all")


def local_time(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as text; dashes for 0, the number if it is beyond the year 9999."""
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S") if seconds else "-" * 19
    except (ValueError, OverflowError, OSError):
        return f"{seconds:<19.0f}"


def tasks(count: int) -> str:
    """Return the number of tasks as text."""
    return f"{count} task{'s' * (count != 1)}"
