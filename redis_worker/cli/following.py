"""The progress of awaited tasks, on standard error: a line for each new report."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import islice

import click

from redis_worker.broker.client.task_client import TaskClient
from redis_worker.functions.progress import Progress, read_progress
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.text import visible

# Seconds between looks, and tasks looked at: the oldest, which run first.
_EVERY, _MOST = 0.5, 20


async def follow(client: TaskClient, awaited: Mapping[str, None]) -> None:
    """Print new reports of the first tasks in `awaited`, until cancelled; nothing more once that is refused."""
    last: dict[str, Progress] = {}
    while True:
        await asyncio.sleep(_EVERY)
        ids = [*islice(awaited, _MOST)]
        try:
            reports = [read_progress(await client.progress(id)) for id in ids]
        except Disconnected:
            continue
        except Refused:
            return
        for id, report in zip(ids, reports, strict=True):
            if report is not None and report != last.get(id):
                click.echo(visible(f"{id}: {report}"), err=True)
        last = {id: report for id, report in zip(ids, reports, strict=True) if report is not None}
