"""Results on standard output, a JSON object a line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from redis_worker.broker.client import TaskClient


async def print_results(client: TaskClient, ids: Sequence[str], timeout: float | None, *, delete: bool = False) -> int:
    """Print the results of `ids` as they arrive, a JSON object a line. 0, or 1 if one failed or is missing."""
    from redis_worker.vocabulary.payload import dumps

    code = 0
    missing = dict.fromkeys(ids)
    try:
        async for result in client.results(ids, timeout, delete=delete):
            missing.pop(result.id, None)
            line: dict[str, Any] = {"id": result.id}
            if result.error is None:
                line |= {"status": "success", "result": result.value}
            else:
                line |= {"status": "error", "error": result.error}
                code = 1
            click.echo(dumps(line).decode())
    except TimeoutError:
        some = ", ".join(islice(missing, 3)) + ("…" if len(missing) > 3 else "")
        click.echo(f"Error: no result for {some}", err=True)
        return 1
    return code
