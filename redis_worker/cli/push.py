"""`redis-worker push`: put tasks on a queue."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from io import FileIO
from typing import TYPE_CHECKING, Any

import click

from redis_worker.cli.options import ENVIRONMENT, delay_options, option, redis_url, url_option

if TYPE_CHECKING:
    from datetime import datetime

    from redis_worker.cli.payloads import Payload

EPILOG = f"""
\b
Examples:
  redis-worker push --input fib:input '[30]' '[31]'
  redis-worker push --input fib:input --output fib:output --wait '{{"id":"t1","task":[30]}}'
  redis-worker push --input fib:input --file tasks.jsonl
  redis-worker push --input fib:input --delay 10m '[30]'

An object that has a member "task" is taken for a whole payload; anything else is the task itself. A task
that begins with a minus sign goes after a --, as in: redis-worker push --input numbers -- -5

{ENVIRONMENT}
"""


@click.command(epilog=EPILOG)
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@option("--input", "input_key", required=True, metavar="KEY", help="The list to push to.")
@option("--output", "output_key", metavar="KEY", help="The hash to read results from, with --wait.")
@option("--id", "id", metavar="ID", help="The id of a single task; one is made up otherwise.")
@option("--file", "path", metavar="PATH", help="Push a file of tasks, one JSON a line; - is standard input.")
@option("--left", is_flag=True, help="Push to the head of the list: the last one pushed is taken first.")
@delay_options
@option("--wait", is_flag=True, help="Print the results as they arrive; exit 1 if a task failed.")
@url_option
def push(
    tasks: tuple[str, ...],
    input_key: str,
    output_key: str | None,
    id: str | None,
    path: str | None,
    left: bool,
    delay: float | None,
    at: datetime | None,
    wait: bool,
    url: str | None,
) -> int:
    """Put tasks on a queue. Prints their ids or, with --wait, their results."""
    if bool(tasks) == bool(path):
        raise click.UsageError("give tasks as arguments, or a file of them with --file PATH, one of the two")
    if wait and not output_key:
        raise click.UsageError("--wait reads the results from the hash named by --output KEY")
    if id is not None and len(tasks) != 1:
        raise click.UsageError("--id goes with exactly one task")
    if sum((left, delay is not None, at is not None)) > 1:
        raise click.UsageError("--left, --delay and --at do not go together")
    import asyncio

    from redis_worker.cli.payloads import Batch, read_batches
    from redis_worker.cli.pushing import Pusher, Target

    target = Target(redis_url(url), input_key, output_key, left, wait, delay, at)
    if not path:
        return asyncio.run(Pusher(target).run(iter([Batch(_payloads(tasks, id), 0)])))
    name = "standard input" if path == "-" else path
    with _opened(path, name) as file:
        bar = _bar(file, wait)
        pusher = Pusher(target, bar=bar, ids=bar is None or not sys.stdout.isatty())
        return asyncio.run(pusher.run(read_batches(file, name)))


def _payloads(tasks: Sequence[str], id: str | None) -> list[Payload]:
    from redis_worker.cli.payloads import payload

    made = []
    for number, text in enumerate(tasks, 1):
        try:
            made.append(payload(os.fsencode(text), id))
        except ValueError as error:
            shown = text if len(text) <= 40 else text[:40] + "…"
            raise click.UsageError(f"task {number} ({shown}): {error}") from None
    return made


def _opened(path: str, name: str) -> FileIO:
    try:
        # Unbuffered, so that a read returns what there is; and not sys.stdin, on whose lock a thread that
        # still reads would have the interpreter abort at its end.
        return open(0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")
    except OSError as error:
        raise click.UsageError(f"cannot read {name}: {error.strerror}") from None


def _bar(file: FileIO, wait: bool) -> Any:
    """A progress bar over the file, where there is a terminal, and no results are to be printed on it."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size or not sys.stderr.isatty():
        return None
    if wait and sys.stdout.isatty():
        return None
    return click.progressbar(length=status.st_size, file=sys.stderr, label="pushing")
