"""A hint for who names a topic where its list is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from shlex import quote
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from redis_worker.broker.client.access import Access


async def hint(access: Access, keys: Iterable[str]) -> None:
    """Say on standard error which list is meant, for those of `keys` that are topics and no queues."""
    for key in keys:
        if meant := await access.meant(key):
            click.echo(f"Hint: there is no queue {key}, but a topic of this name: --input {quote(meant)}", err=True)
