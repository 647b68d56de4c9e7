"""`redis-worker pause`, `resume`, `peek` and `purge`: an operator's hold on what waits in a queue."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from redis_worker.cli.options import ENVIRONMENT, option, redis_url, url_option

if TYPE_CHECKING:
    from redis_worker.broker.operator.control import QueueControl

_input_option = option("--input", "input_key", required=True, metavar="KEY", help="The list that tasks are taken from.")


def _epilog(*examples: str) -> str:
    lines = "\n".join(f"  redis-worker {example}" for example in examples)
    return f"\b\nExample{'s' * (len(examples) > 1)}:\n{lines}\n\n{ENVIRONMENT}"


@click.command(epilog=_epilog("pause --input fib:input", "pause --input mq:order.reminder"))
@_input_option
@url_option
def pause(input_key: str, url: str | None) -> None:
    """Have no worker claim anything from a queue, until it is resumed. What runs goes on."""

    async def pause(queue: QueueControl) -> None:
        if await queue.pause():
            click.echo(f"{input_key} is paused; to go on: redis-worker resume --input {_quoted(input_key)}")
        else:
            click.echo(f"{input_key} was paused already")

    _with(url, input_key, "pause", pause)


@click.command(epilog=_epilog("resume --input fib:input"))
@_input_option
@url_option
def resume(input_key: str, url: str | None) -> None:
    """Have workers claim again from a queue that was paused."""

    async def resume(queue: QueueControl) -> None:
        click.echo(f"{input_key} is resumed" if await queue.resume() else f"{input_key} was not paused")

    _with(url, input_key, "resume", resume)


@click.command(epilog=_epilog("peek --input fib:input -n 3"))
@_input_option
@option("-n", "--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many to show.")
@url_option
def peek(input_key: str, limit: int, url: str | None) -> None:
    """Print the first tasks that wait in a queue, as they were pushed, and take none of them."""

    from redis_worker.cli.printing import print_json

    async def peek(queue: QueueControl) -> None:
        tasks = await queue.peek(limit)
        for raw in tasks:
            print_json(raw)
        more = max(0, await queue.count() - len(tasks))
        click.echo(f"{more} more wait" if tasks else "nothing waits", err=True)

    _with(url, input_key, "look at", peek)


@click.command(epilog=_epilog("purge --input fib:input"))
@_input_option
@option("-y", "--yes", is_flag=True, help="Do not ask.")
@url_option
def purge(input_key: str, yes: bool, url: str | None) -> None:
    """Delete all tasks that wait in a queue, after asking; not those that run, are put off or are dead."""

    if not (yes or _at_a_terminal()):
        raise click.UsageError("there is no terminal to ask at: say --yes to delete without being asked")

    async def purge(queue: QueueControl) -> None:
        if not yes:
            count = await queue.count()
            if not count:
                click.echo("nothing waits", err=True)
                return
            click.confirm(f"Delete {_tasks(count)} that wait in {input_key}?", abort=True)
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
