"""`redis-worker delayed`: the delayed tasks of a queue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from redis_worker.cli.options import ENVIRONMENT, option, redis_url, text, url_option

if TYPE_CHECKING:
    from redis_worker.broker.client.delayed_tasks import Delayed, DelayedTask

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = f"""
\b
Examples:
  redis-worker delayed list --input fib:input
  redis-worker delayed cancel --input mq:order.reminder --id r7
  redis-worker delayed run --input mq:order.reminder --all

Waiting retries are delayed tasks, too. A task that is due is no longer delayed, and cannot be cancelled.

{ENVIRONMENT}
"""


@click.group(epilog=EPILOG)
def delayed() -> None:
    """List delayed tasks, cancel them, or run them now."""


def _selection(function: F) -> F:
    for decorate in (
        url_option,
        option("--json", "as_json", is_flag=True, help="Print JSON, one object a line."),
        click.option("--id", "ids", type=text, multiple=True, metavar="ID", help="The task ID; may be repeated."),
        option("--input", "input_key", required=True, metavar="KEY", help="The queue, mq:TOPIC for a topic."),
    ):
        function = decorate(function)
    return function


@delayed.command("list", epilog="\b\nExample:\n  redis-worker delayed list --input fib:input -n 100")
@_selection
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many to show.")
def list_(url: str | None, as_json: bool, ids: tuple[str, ...], input_key: str, limit: int) -> int:
    """List delayed tasks in order of their due time. Exits 1 if a given ID is not delayed."""

    async def show(queue: Delayed) -> int:
        found = await queue.find(ids) if ids else await queue.first(limit)
        for task in found[:limit]:
            click.echo(_object(task) if as_json else _line(task))
        click.echo(f"{min(limit, len(found))} of {await queue.count()} delayed tasks", err=True)
        return _missing(ids, found)

    return _with(url, input_key, "read", show)


@delayed.command(epilog="\b\nExample:\n  redis-worker delayed cancel --input mq:order.reminder --id r7")
@_selection
@click.option("--all", "everything", is_flag=True, help="Select all.")
@click.option("-y", "--yes", is_flag=True, help="With --all, do not ask for confirmation.")
def cancel(url: str | None, as_json: bool, ids: tuple[str, ...], input_key: str, everything: bool, yes: bool) -> int:
    """Cancel tasks, with their retries, so that they never run. Exits 1 if a given ID is not delayed."""
    _check_selection(ids, everything)

    async def cancel(queue: Delayed) -> int:
        found = await (queue.find(ids) if ids else queue.all())
        if everything and found and not yes:
            click.confirm(f"Cancel {len(found)} delayed task{'s' * (len(found) != 1)} of {input_key}?", abort=True)
        _print_count(await queue.drop(found), "cancelled", as_json)
        return _missing(ids, found)

    return _with(url, input_key, "cancel", cancel)


@delayed.command(epilog="\b\nExample:\n  redis-worker delayed run --input fib:input --id t1")
@_selection
@click.option("--all", "everything", is_flag=True, help="Select all.")
def run(url: str | None, as_json: bool, ids: tuple[str, ...], input_key: str, everything: bool) -> int:
    """Append tasks to the queue now. Exits 1 if a given ID is not delayed."""
    _check_selection(ids, everything)

    async def run(queue: Delayed) -> int:
        found = await (queue.find(ids) if ids else queue.all())
        _print_count(await queue.run(sorted(found, key=lambda task: task.due)), "due now", as_json)
        return _missing(ids, found)

    return _with(url, input_key, "run", run)


def _check_selection(ids: tuple[str, ...], everything: bool) -> None:
    if everything == bool(ids):
        raise click.UsageError("select with --id ID, or --all")


def _missing(ids: tuple[str, ...], found: list[DelayedTask]) -> int:
    """Report the `ids` that were not found and return the exit code."""
    found_ids = {task.id for task in found}
    missing = [id for id in ids if id not in found_ids]
    for id in missing:
        click.echo(f"no delayed task {id}", err=True)
    return 1 if missing else 0


def _with(url: str | None, input_key: str, verb: str, work: Callable[[Delayed], Any]) -> int:
    import asyncio

    from redis_worker.broker.client.delayed_tasks import DelayedTasks
    from redis_worker.cli.hints import hint
    from redis_worker.cli.printing import explained

    address = redis_url(url)

    async def run() -> int:
        async with DelayedTasks(address, input_key) as queue:
            with explained(address, f"cannot {verb} delayed tasks of {input_key!r}"):
                code = int(await work(queue.here))
            await hint(queue, [input_key])
            return code

    return asyncio.run(run())


def _print_count(count: int, label: str, as_json: bool) -> None:
    from redis_worker.vocabulary.payload import dumps

    click.echo(dumps({label.replace(" ", "_"): count}) if as_json else f"{_tasks(count)} {label}")


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count != 1)}"


def _object(task: DelayedTask) -> bytes:
    from base64 import b64encode

    from redis_worker.vocabulary.payload import dumps

    try:
        raw = {"raw": task.raw.decode()}
    except UnicodeDecodeError:  # as in a dead letter
        raw = {"raw_base64": b64encode(task.raw).decode()}
    return dumps({"id": task.id, "due": round(task.due, 3), **raw})


def _time(task: DelayedTask) -> str:
    try:
        return datetime.fromtimestamp(task.due).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return f"{task.due:<19.0f}"


def _line(task: DelayedTask) -> str:
    raw = task.raw.decode(errors="backslashreplace")
    shown = raw if len(raw) <= 100 else f"{raw[:99]}…"
    line = f"{_time(task)}  {task.id or '-':<20}  {shown}"
    # A producer's text must not start a new line or colour the terminal.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
