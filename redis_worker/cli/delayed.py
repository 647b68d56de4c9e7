"""`redis-worker delayed`: the delayed tasks of a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from redis_worker.cli.on_queue import (
    all_option,
    check_selection,
    ids_option,
    limit_option,
    local_time,
    on_queue,
    tasks,
    yes_option,
)
from redis_worker.cli.options import ENVIRONMENT, option
from redis_worker.vocabulary.text import visible

if TYPE_CHECKING:
    from redis_worker.broker.client.delayed_tasks import DelayedTask, DelayedTasks

EPILOG = f"""
\b
Examples:
  redis-worker delayed list --input fib:input
  redis-worker delayed cancel --input mq:order.reminder --id r7
  redis-worker delayed run --input mq:order.reminder --all

Waiting retries are delayed tasks, too. A task that is due is no longer delayed, and cannot be cancelled.

{ENVIRONMENT}
"""
_TASKS = "broker.client.delayed_tasks:DelayedTasks"
# Longer tasks are cut in a list, in characters.
_LONGEST = 100

_json_option = option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


@click.group(epilog=EPILOG)
def delayed() -> None:
    """List delayed tasks, cancel them, or run them now."""


@delayed.command("list", epilog="\b\nExample:\n  redis-worker delayed list --input fib:input -n 100")
@on_queue(_TASKS, "read delayed tasks of")
@limit_option
@_json_option
@ids_option
async def list_(queue: DelayedTasks, _: str, ids: tuple[str, ...], as_json: bool, limit: int) -> int:
    """List delayed tasks in order of their due time. Exits 1 if a given ID is not delayed."""
    here = queue.here
    found = await here.find(ids) if ids else await here.first(limit)
    for task in found[:limit]:
        click.echo(_object(task) if as_json else _line(task))
    click.echo(f"{min(limit, len(found))} of {await here.count()} delayed tasks", err=True)
    return _missing(ids, found)


@delayed.command(epilog="\b\nExample:\n  redis-worker delayed cancel --input mq:order.reminder --id r7")
@on_queue(_TASKS, "cancel delayed tasks of")
@yes_option
@all_option
@_json_option
@ids_option
async def cancel(
    queue: DelayedTasks, input_key: str, ids: tuple[str, ...], as_json: bool, everything: bool, yes: bool
) -> int:
    """Cancel tasks, with their retries, so that they never run; --all asks first. Exits 1 if an ID is not delayed."""
    check_selection(bool(ids), everything, "--id ID")
    found = await (queue.here.find(ids) if ids else queue.here.all())
    if everything and found and not yes:
        click.confirm(f"Cancel {len(found)} delayed task{'s' * (len(found) != 1)} of {input_key}?", abort=True)
    _print_count(await queue.here.drop(found), "cancelled", as_json)
    return _missing(ids, found)


@delayed.command(epilog="\b\nExample:\n  redis-worker delayed run --input fib:input --id t1")
@on_queue(_TASKS, "run delayed tasks of")
@all_option
@_json_option
@ids_option
async def run(queue: DelayedTasks, _: str, ids: tuple[str, ...], as_json: bool, everything: bool) -> int:
    """Append tasks to the queue now. Exits 1 if a given ID is not delayed."""
    check_selection(bool(ids), everything, "--id ID")
    from redis_worker.broker.client.delayed_tasks import in_order

    found = await (queue.here.find(ids) if ids else queue.here.all())
    _print_count(await queue.here.run(in_order(found)), "due now", as_json)
    return _missing(ids, found)


def _missing(ids: tuple[str, ...], found: list[DelayedTask]) -> int:
    """Report the `ids` that were not found and return the exit code."""
    found_ids = {task.id for task in found}
    missing = [id for id in ids if id not in found_ids]
    for id in missing:
        click.echo(f"no delayed task {id}", err=True)
    return 1 if missing else 0


def _print_count(count: int, label: str, as_json: bool) -> None:
    from redis_worker.vocabulary.payload import dumps

    click.echo(dumps({label.replace(" ", "_"): count}) if as_json else f"{tasks(count)} {label}")


def _object(task: DelayedTask) -> bytes:
    from redis_worker.broker.queue.dead_letter import raw_members
    from redis_worker.vocabulary.payload import dumps

    return dumps({"id": task.id, "due": task.due and round(task.due, 3), **raw_members(task.raw)})


def _line(task: DelayedTask) -> str:
    raw = task.raw.decode(errors="backslashreplace")
    shown = raw if len(raw) <= _LONGEST else f"{raw[: _LONGEST - 1]}…"
    due = f"{'waits for a limit':<19}" if task.due is None else local_time(task.due)
    return visible(f"{due}  {task.id or '-':<20}  {shown}")
