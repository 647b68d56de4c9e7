"""`redis-worker dead`: the dead letters of a queue."""

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
    yes_option,
)
from redis_worker.cli.options import ENVIRONMENT
from redis_worker.vocabulary.text import visible

if TYPE_CHECKING:
    from redis_worker.broker.operator.dead_letters import DeadLetters

EPILOG = f"""
\b
Examples:
  redis-worker dead list --input fib:input
  redis-worker dead requeue --input fib:input --reason "connection refused"

{ENVIRONMENT}
"""
_LETTERS = "broker.operator.dead_letters:DeadLetters"

_reason_option = click.option("--reason", metavar="TEXT", help="Letters with TEXT in their reason.")


@click.group(epilog=EPILOG)
def dead() -> None:
    """List dead letters, requeue their tasks, or delete them."""


@dead.command("list", epilog="\b\nExample:\n  redis-worker dead list --input fib:input -n 100")
@on_queue(_LETTERS, "read dead letters of")
@limit_option
@_reason_option
@ids_option
async def list_(letters: DeadLetters, _: str, ids: tuple[str, ...], reason: str | None, limit: int) -> None:
    """List dead letters, oldest first, a line each."""
    shown = 0
    async for letter in letters.letters(ids, reason):
        if shown == limit:
            break
        id = visible(letter.id or "-")
        click.echo(f"{local_time(letter.at)}  {letter.attempts:>3}x  {id:<20}  {visible(letter.reason)}")
        shown += 1
    total, dropped = await letters.count(), await letters.dropped()
    lost = f", {dropped} older ones were dropped" if dropped else ""
    click.echo(f"{shown} of {total} dead letters{lost}", err=True)


@dead.command(epilog="\b\nExample:\n  redis-worker dead show --input fib:input --id t1")
@on_queue(_LETTERS, "read dead letters of")
@_reason_option
@ids_option
async def show(letters: DeadLetters, _: str, ids: tuple[str, ...], reason: str | None) -> int:
    """Print complete dead letters, a JSON object a line. Exits 1 if there are none."""
    from redis_worker.cli.printing import print_json

    code = 1
    async for letter in letters.letters(ids, reason):
        print_json(letter.stored)
        code = 0
    return code


@dead.command(epilog="\b\nExample:\n  redis-worker dead requeue --input fib:input --all")
@on_queue(_LETTERS, "requeue dead letters of")
@all_option
@_reason_option
@ids_option
async def requeue(
    letters: DeadLetters, input_key: str, ids: tuple[str, ...], reason: str | None, everything: bool
) -> int:
    """Put the tasks of dead letters back on the queue, as pushed, with all attempts again."""
    check_selection(bool(ids or reason), everything, "--id ID, --reason TEXT")
    found = [letter async for letter in letters.letters(ids, reason)]
    count = await letters.requeue(found)
    if cut := sum(letter.cut for letter in found):
        click.echo(f"{cut} dead letters hold only the beginning of their task and stay in the list", err=True)
    click.echo(f"{count} tasks are back on the queue {input_key}")
    return 0 if count else 1


@dead.command(epilog="\b\nExample:\n  redis-worker dead purge --input fib:input --id t1")
@on_queue(_LETTERS, "delete dead letters of")
@yes_option
@all_option
@_reason_option
@ids_option
async def purge(
    letters: DeadLetters, input_key: str, ids: tuple[str, ...], reason: str | None, everything: bool, yes: bool
) -> int:
    """Delete dead letters, after confirmation."""
    check_selection(bool(ids or reason), everything, "--id ID, --reason TEXT")
    found = [letter async for letter in letters.letters(ids, reason)]
    if found and not yes:
        click.confirm(f"Delete {len(found)} dead letters of {input_key}?", abort=True)
    count = await letters.purge(found)
    click.echo(f"{count} dead letters deleted")
    return 0 if count else 1
