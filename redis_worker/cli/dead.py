"""`redis-worker dead`: the dead letters of a queue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from redis_worker.cli.options import ENVIRONMENT, option, redis_url, url_option
from redis_worker.vocabulary.text import visible

if TYPE_CHECKING:
    from redis_worker.broker.operator.dead_letters import DeadLetter, DeadLetters

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = f"""
\b
Examples:
  redis-worker dead list --input fib:input
  redis-worker dead requeue --input fib:input --reason "connection refused"

{ENVIRONMENT}
"""


@click.group(epilog=EPILOG)
def dead() -> None:
    """List dead letters, requeue their tasks, or delete them."""


def _selection(function: F) -> F:
    for decorate in (
        url_option,
        click.option("--reason", metavar="TEXT", help="Letters with TEXT in their reason."),
        click.option("--id", "ids", multiple=True, metavar="ID", help="The letter of the task ID; may be repeated."),
        option("--input", "input_key", required=True, metavar="KEY", help="The queue of the tasks."),
    ):
        function = decorate(function)
    return function


@dead.command("list", epilog="\b\nExample:\n  redis-worker dead list --input fib:input -n 100")
@_selection
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many to show.")
def list_(url: str | None, input_key: str, ids: tuple[str, ...], reason: str | None, limit: int) -> None:
    """List dead letters, oldest first, a line each."""

    async def show(letters: DeadLetters) -> None:
        shown = 0
        async for letter in letters.letters(ids, reason):
            if shown == limit:
                break
            id = visible(letter.id or "-")
            click.echo(f"{_time(letter)}  {letter.attempts:>3}x  {id:<20}  {visible(letter.reason)}")
            shown += 1
        total, dropped = await letters.count(), await letters.dropped()
        lost = f", {dropped} older ones were dropped" if dropped else ""
        click.echo(f"{shown} of {total} dead letters{lost}", err=True)

    _with(url, input_key, show)


@dead.command(epilog="\b\nExample:\n  redis-worker dead show --input fib:input --id t1")
@_selection
def show(url: str | None, input_key: str, ids: tuple[str, ...], reason: str | None) -> int:
    """Print complete dead letters, a JSON object a line. Exits 1 if there are none."""

    from redis_worker.cli.printing import print_json

    async def show(letters: DeadLetters) -> int:
        found = 0
        async for letter in letters.letters(ids, reason):
            print_json(letter.stored)
            found += 1
        return 0 if found else 1

    return int(_with(url, input_key, show))


@dead.command(epilog="\b\nExample:\n  redis-worker dead requeue --input fib:input --all")
@_selection
@click.option("--all", "everything", is_flag=True, help="Select all.")
def requeue(url: str | None, input_key: str, ids: tuple[str, ...], reason: str | None, everything: bool) -> int:
    """Put the tasks of dead letters back on the queue, as pushed, with all attempts again."""
    _check_selection(ids, reason, everything)

    async def requeue(letters: DeadLetters) -> int:
        found = [letter async for letter in letters.letters(ids, reason)]
        count = await letters.requeue(found)
        if cut := sum(letter.cut for letter in found):
            click.echo(f"{cut} dead letters hold only the beginning of their task and stay in the list", err=True)
        click.echo(f"{count} tasks are back on the queue {input_key}")
        return 0 if count else 1

    return int(_with(url, input_key, requeue))


@dead.command(epilog="\b\nExample:\n  redis-worker dead purge --input fib:input --id t1")
@_selection
@click.option("--all", "everything", is_flag=True, help="Select all.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
def purge(
    url: str | None, input_key: str, ids: tuple[str, ...], reason: str | None, everything: bool, yes: bool
) -> int:
    """Delete dead letters, after confirmation."""
    _check_selection(ids, reason, everything)

    async def purge(letters: DeadLetters) -> int:
        found = [letter async for letter in letters.letters(ids, reason)]
        if found and not yes:
            click.confirm(f"Delete {len(found)} dead letters of {input_key}?", abort=True)
        count = await letters.purge(found)
        click.echo(f"{count} dead letters deleted")
        return 0 if count else 1

    return int(_with(url, input_key, purge))


def _check_selection(ids: tuple[str, ...], reason: str | None, everything: bool) -> None:
    if everything == bool(ids or reason):
        raise click.UsageError("select with --id ID, --reason TEXT, or --all")


def _with(url: str | None, input_key: str, work: Callable[[DeadLetters], Any]) -> Any:
    import asyncio

    from redis_worker.broker.operator.dead_letters import DeadLetters
    from redis_worker.cli.hints import hint

    async def run() -> Any:
        async with DeadLetters(redis_url(url), input_key) as letters:
            done = await work(letters)
            await hint(letters, [input_key])
            return done

    return asyncio.run(run())


def _time(letter: DeadLetter) -> str:
    return datetime.fromtimestamp(letter.at).strftime("%Y-%m-%d %H:%M:%S") if letter.at else "-" * 19
