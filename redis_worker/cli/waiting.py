"""`redis-worker pause`, `resume`, `peek` and `purge`: control of a queue's waiting tasks."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from redis_worker.cli.options import ENVIRONMENT, option, redis_url, url_option

if TYPE_CHECKING:
    from redis_worker.broker.operator.control import QueueControl

_input_option = option(
    "--input", "input_key", required=True, metavar="KEY", help="The queue: the list of waiting tasks."
)


def _epilog(*examples: str) -> str:
    lines = "\n".join(f"  redis-worker {example}" for example in examples)
    return f"\b\nExample{'s' * (len(examples) > 1)}:\n{lines}\n\n{ENVIRONMENT}"


@click.command(epilog=_epilog("pause --input fib:input", "pause --input mq:order.reminder"))
@_input_option
@url_option
def pause(input_key: str, url: str | None) -> None:
    """Pause a queue: workers stop claiming from it until `resume`. Running tasks continue."""

    async def pause(queue: QueueControl) -> None:
        if await queue.pause():
            click.echo(f"{input_key} is paused; to continue: redis-worker resume --input {_quoted(input_key)}")
        else:
            click.echo(f"{input_key} was already paused")

    _with(url, input_key, "pause", pause)


@click.command(epilog=_epilog("resume --input fib:input"))
@_input_option
@url_option
def resume(input_key: str, url: str | None) -> None:
    """Resume a paused queue: workers claim from it again."""

    async def resume(queue: QueueControl) -> None:
        click.echo(f"{input_key} is resumed" if await queue.resume() else f"{input_key} was not paused")

    _with(url, input_key, "resume", resume)


@click.command(epilog=_epilog("peek --input fib:input -n 3"))
@_input_option
@option("-n", "--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Number of tasks to show.")
@url_option
def peek(input_key: str, limit: int, url: str | None) -> None:
    """Print the first waiting tasks of a queue, as pushed, without claiming them."""

    from redis_worker.cli.printing import print_json

    async def peek(queue: QueueControl) -> None:
        tasks = await queue.peek(limit)
        for raw in tasks:
            print_json(raw)
        more = max(0, await queue.count() - len(tasks))
        click.echo(f"{more} more waiting" if tasks else "no waiting tasks", err=True)

    _with(url, input_key, "look at", peek)


@click.command(epilog=_epilog("purge --input fib:input"))
@_input_option
@option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@url_option
def purge(input_key: str, yes: bool, url: str | None) -> None:
    """Delete all waiting tasks of a queue, after confirmation; tasks in flight, delayed or dead stay."""

    if not (yes or _at_a_terminal()):
        raise click.UsageError("no terminal to ask for confirmation: use --yes to delete without it")

    async def purge(queue: QueueControl) -> None:
        if not yes:
            count = await queue.count()
            if not count:
                click.echo("no waiting tasks", err=True)
                return
            click.confirm(f"Delete {count} waiting task{'s' * (count != 1)} of {input_key}?", abort=True)
        click.echo(f"{_tasks(await queue.purge())} deleted")

    _with(url, input_key, "empty", purge)


def _with(url: str | None, input_key: str, verb: str, work: Callable[[QueueControl], Awaitable[None]]) -> None:
    import asyncio

    from redis_worker.broker.operator.control import QueueControl
    from redis_worker.cli.hints import hint
    from redis_worker.cli.printing import explained

    address = redis_url(url)

    async def run() -> None:
        async with QueueControl(address, input_key) as queue:
            with explained(address, f"cannot {verb} {input_key!r}"):
                await work(queue)
            await hint(queue, [input_key])

    asyncio.run(run())


def _at_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count != 1)}"


def _quoted(text: str) -> str:
    from shlex import quote

    return quote(text)
