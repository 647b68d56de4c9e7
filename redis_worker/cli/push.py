"""`redis-worker push`: put tasks on a queue."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

from redis_worker.cli.options import ENVIRONMENT, option, redis_url, url_option
from redis_worker.cli.printing import print_results

EPILOG = f"""
\b
Examples:
  redis-worker push --input fib:input '[30]' '[31]'
  redis-worker push --input fib:input --output fib:output --wait '{{"id":"t1","task":[30]}}'
  redis-worker push --input fib:input --file tasks.jsonl

An object that has a member "task" is taken for a whole payload; anything else is the task itself.

{ENVIRONMENT}
"""

_BATCH = 500


class Payload(NamedTuple):
    """A payload ready to be pushed."""

    id: str
    raw: bytes


@click.command(epilog=EPILOG)
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@option("--input", "input_key", required=True, metavar="KEY", help="The list to push to.")
@option("--output", "output_key", metavar="KEY", help="The hash to read results from, with --wait.")
@option("--id", "id", metavar="ID", envvar=None, help="The id of a single task; one is made up otherwise.")
@option("--file", "path", metavar="PATH", help="Push a file of tasks, one JSON a line; - is standard input.")
@option("--left", is_flag=True, help="Push to the head of the list: the last one pushed is taken first.")
@option("--wait", is_flag=True, help="Print the results as they arrive; exit 1 if a task failed.")
@url_option
def push(
    tasks: tuple[str, ...],
    input_key: str,
    output_key: str | None,
    id: str | None,
    path: str | None,
    left: bool,
    wait: bool,
    url: str | None,
) -> int:
    """Put tasks on a queue. Prints their ids or, with --wait, their results."""
    if bool(tasks) == bool(path):
        raise click.UsageError("give tasks as arguments, or a file of them with --file PATH, not both")
    if wait and not output_key:
        raise click.UsageError("--wait reads the results from the hash named by --output KEY")
    if id is not None and len(tasks) != 1:
        raise click.UsageError("--id goes with exactly one task")
    arguments = [_argument(number, text, id) for number, text in enumerate(tasks, 1)]
    with ExitStack() as stack:
        payloads = _lines(stack, path) if path else iter(arguments)
        push = _Push(redis_url(url), input_key, output_key, left)
        return asyncio.run(push.run(payloads, wait))


def payload(text: bytes, id: str | None = None) -> Payload:
    """The payload that `text` is, or is the task of. Raises ValueError."""
    from redis_worker.broker.client import new_id
    from redis_worker.vocabulary.payload import dumps, json_type, loads, read_task

    try:
        value = loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}; a text needs quotes of its own, as in '\"text\"'") from None
    if not (isinstance(value, dict) and "task" in value):
        import time

        value = {"id": new_id() if id is None else id, "task": value, "emit_ts": time.time()}
        return Payload(str(value["id"]), dumps(value))
    given = value.get("id")
    if id is not None and given is not None and str(given) != id:
        raise ValueError(f"the payload has the id {given!r}, and --id says {id!r}")
    if given is None:
        value = {"id": new_id() if id is None else id, **{k: v for k, v in value.items() if k != "id"}}
        text = dumps(value)
    elif isinstance(given, bool) or not isinstance(given, (str, int)):
        raise ValueError(f"the id is {json_type(given)}, not a string or an integer")
    return Payload(read_task(text).id, text)


def _argument(number: int, text: str, id: str | None) -> Payload:
    try:
        return payload(text.encode(errors="surrogateescape"), id)
    except ValueError as error:
        raise click.UsageError(f"task {number} ({text[:40]}): {error}") from None


def _lines(stack: ExitStack, path: str) -> Iterator[Payload]:
    """The payloads in a file of JSON lines, read as they are needed."""
    file: BinaryIO
    if path == "-":
        name, file, length = "standard input", sys.stdin.buffer, None
    else:
        name = path
        try:
            file = stack.enter_context(open(path, "rb"))  # noqa: SIM115 - the stack closes it
        except OSError as error:
            raise click.UsageError(f"cannot read {path}: {error.strerror}") from None
        length = Path(path).stat().st_size or None
    lines: Iterable[bytes] = file
    if length and sys.stderr.isatty():
        bar = stack.enter_context(click.progressbar(length=length, file=sys.stderr, label="pushing"))
        lines = _showing(lines, bar)
    return _payloads(name, lines)


def _showing(lines: Iterable[bytes], bar: Any) -> Iterator[bytes]:
    for line in lines:
        yield line
        bar.update(len(line))


def _payloads(name: str, lines: Iterable[bytes]) -> Iterator[Payload]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield payload(line.strip())
        except ValueError as error:
            raise BadLine(f"{name}:{number}: {error}") from None


class BadLine(Exception):
    """A line that is no task; what came before it is good."""


class _Push:
    def __init__(self, url: str, input_key: str, output_key: str | None, left: bool) -> None:
        self._url = url
        self._input = input_key
        self._output = output_key
        self._left = left
        self._pushed = 0

    async def run(self, payloads: Iterator[Payload], wait: bool) -> int:
        from redis_worker.broker.client import TaskClient

        ids: list[str] = []
        async with TaskClient(self._url, self._input, self._output or "") as client:
            try:
                async for batch in _batches(payloads):
                    await client.push_raw([item.raw for item in batch], left=self._left)
                    self._pushed += len(batch)
                    if wait:
                        ids += [item.id for item in batch]
                    else:
                        click.echo("\n".join(item.id for item in batch))
            except BadLine as error:
                click.echo(
                    f"Error: {error}; the {self._pushed} tasks before it were pushed, and nothing after it", err=True
                )
                return 1
            return await print_results(client, ids, None) if wait else 0


async def _batches(payloads: Iterator[Payload]) -> Any:
    """Batches of payloads; those before a bad line come before its error."""
    while True:
        batch: list[Payload] = []
        error: BadLine | None = None
        try:
            for item in islice(payloads, _BATCH):
                batch.append(item)
        except BadLine as bad:
            error = bad
        if batch:
            yield batch
        if error is not None:
            raise error
        if not batch:
            return
