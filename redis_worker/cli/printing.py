"""Results on standard output, a JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import click

from redis_worker.broker.client.task_client import TaskClient
from redis_worker.broker.connection.address import mask
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.payload import dumps, loads
from redis_worker.vocabulary.text import visible

# In JSON these occur only between tokens, where a blank is equivalent.
_BETWEEN = str.maketrans("\n\r\t", "   ")


async def fetch_results(url: str, output_key: str, ids: Sequence[str], timeout: float, delete: bool) -> int:
    """Print the results of `ids`. Return the exit code."""
    async with TaskClient(url, "", output_key) as client:
        with explained(url, f"cannot read results from {output_key!r}"):
            return await print_results(client, ids, timeout, delete=delete)


async def print_results(
    client: TaskClient,
    ids: Sequence[str],
    timeout: float | None,
    *,
    delete: bool = False,
    awaited: dict[str, None] | None = None,
) -> int:
    """Print results as they arrive, a JSON object a line. Return 0, or 1 if a task failed or has no result.

    `awaited` gets `ids`, and loses each as it arrives.
    """
    code = 0
    missing = {} if awaited is None else awaited
    missing.update(dict.fromkeys(ids))
    try:
        async for result in client.results(ids, timeout, delete=delete):
            missing.pop(result.id, None)
            line: dict[str, Any] = {"id": result.id}
            if result.error is None:
                line |= {"status": "success", "result": result.value}
            else:
                line |= {"status": "error", "error": result.error}
                code = 1
            print_json(dumps(line))
    except TimeoutError:
        some = ", ".join(islice(missing, 3)) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        click.echo(f"Error: no result for {visible(some)}", err=True)
        return 1
    return code


def print_json(line: bytes) -> None:
    r"""Print JSON on one line, as UTF-8 on any terminal, with control characters escaped.

    `line` may be anything, because any program may have written it; bytes that are not UTF-8 print as `\xff`.
    """
    text = line.decode(errors="backslashreplace")
    if not text.isprintable() and _is_json(line):
        text = text.translate(_BETWEEN)
    click.echo(visible(text).encode())


def _is_json(line: bytes) -> bool:
    try:
        loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@contextmanager
def explained(url: str, failure: str) -> Iterator[None]:
    """Add the failed action, and the server's address, to errors."""
    try:
        yield
    except Disconnected as error:
        raise Disconnected(
            f"{failure}: no Redis at {mask(url)} ({error}); is it running, and is the address right?"
        ) from None
    except Refused as error:
        raise Refused(f"{failure}: {error}") from None
