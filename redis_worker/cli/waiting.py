"""`redis-worker pause`, `resume`, `peek` and `purge`: control of a queue's waiting tasks."""

from __future__ import annotations

import sys
from shlex import quote
from typing import TYPE_CHECKING

import click

from redis_worker.cli.on_queue import on_queue, tasks
from redis_worker.cli.options import ENVIRONMENT, option

if TYPE_CHECKING:
    from redis_worker.broker.operator.control import QueueControl

_CONTROL = "broker.operator.control:QueueControl"


def _epilog(*examples: str) -> str:
    lines = "\n".join(f"  redis-worker {example}" for example in examples)
    return f"\b\nExample{'s' * (len(examples) > 1)}:\n{lines}\n\n{ENVIRONMENT}"


@click.command(epilog=_epilog("pause --input fib:input", "pause --input mq:order.reminder"))
@on_queue(_CONTROL, "pause")
async def pause(queue: QueueControl, input_key: str) -> None:
    """Pause a queue: workers stop claiming from it until `resume`. Running tasks continue."""
    if await queue.pause():
        click.echo(f"{input_key} is paused; to continue: redis-worker resume --input {quote(input_key)}")
    else:
        click.echo(f"{input_key} was already paused")


@click.command(epilog=_epilog("resume --input fib:input"))
@on_queue(_CONTROL, "resume")
async def resume(queue: QueueControl, input_key: str) -> None:
    """Resume a paused queue: workers claim from it again."""
    click.echo(f"{input_key} is resumed" if await queue.resume() else f"{input_key} was not paused")


@click.command(epilog=_epilog("peek --input fib:input -n 3", "peek --input fib:input --inflight"))
@on_queue(_CONTROL, "look at")
@option("-n", "--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Number of tasks to show.")
@option("--inflight", is_flag=True, help="Show tasks that workers have claimed, in place of waiting ones.")
async def peek(queue: QueueControl, _: str, limit: int, inflight: bool) -> None:
    """Print the first waiting tasks of a queue, as pushed, without claiming them."""
    from redis_worker.cli.printing import print_json

    if inflight:
        (first, count), where, none = await queue.in_flight(limit), "in flight", "no tasks in flight"
    else:
        (first, count), where, none = (await queue.peek(limit), await queue.count()), "waiting", "no waiting tasks"
    for raw in first:
        print_json(raw)
    click.echo(f"{max(0, count - len(first))} more {where}" if first else none, err=True)


@click.command(epilog=_epilog("purge --input fib:input"))
@on_queue(_CONTROL, "empty")
@option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
async def purge(queue: QueueControl, input_key: str, yes: bool) -> None:
    """Delete all waiting tasks of a queue, after confirmation; tasks in flight, delayed or dead stay."""
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError("no terminal to ask for confirmation: use --yes to delete without it")
        count = await queue.count()
        if not count:
            click.echo("no waiting tasks", err=True)
            return
        click.confirm(f"Delete {count} waiting task{'s' * (count != 1)} of {input_key}?", abort=True)
    click.echo(f"{tasks(await queue.purge())} deleted")
