"""A hint about the names of topics given in place of the names of their lists."""

from __future__ import annotations

from collections.abc import Iterable
from shlex import quote
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from redis_worker.broker.client.access import Access


async def hint(access: Access, keys: Iterable[str]) -> None:
    """Print the list's name on standard error for each of `keys` that is a topic and not a queue."""
    for key in keys:
        if meant := await access.meant(key):
            click.echo(f"Hint: there is no queue {key}, but a topic of this name: --input {quote(meant)}", err=True)
