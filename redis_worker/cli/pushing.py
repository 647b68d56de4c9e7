"""The work of `push` and `publish`: sends payloads, from arguments or a file, and prints results as they arrive."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from io import FileIO
from typing import Any, NamedTuple

import click

from redis_worker.broker.client.publisher import Publisher
from redis_worker.broker.client.task_client import TaskClient
from redis_worker.cli.following import follow
from redis_worker.cli.payloads import Batch, Make, Payload, read_batches
from redis_worker.cli.printing import explained, print_results
from redis_worker.vocabulary.errors import RedisWorkerError
from redis_worker.vocabulary.priorities import DEFAULT
from redis_worker.vocabulary.text import visible

# With --wait, pushing pauses at this number of tasks without a result, to bound memory.
_UNANSWERED = 10_000


class Target(NamedTuple):
    """The destination of tasks or messages, with options."""

    url: str
    input_key: str
    output_key: str | None
    left: bool
    """Push to the head of the list."""
    wait: bool
    """Print the results instead of the ids."""
    delay: float | None = None
    """Delay in seconds."""
    at: datetime | None = None
    """Time to delay until."""
    topic: str | None = None
    """The topic of the list, for messages."""
    priority: str = DEFAULT
    """The priority of tasks."""

    @property
    def noun(self) -> str:
        """The word for a payload: task or message."""
        return "task" if self.topic is None else "message"


def send(texts: Sequence[str], path: str | None, make: Make, target: Target) -> int:
    """Push the payloads that `make` builds from `texts`, or from the lines of the file `path`. Return the exit code."""
    if not path:
        return asyncio.run(Pusher(target).run(iter([Batch(_payloads(texts, make, target.noun), 0)])))
    name = "standard input" if path == "-" else path
    with _opened(path, name) as file:
        bar = _bar(file, target.wait)
        ids = bar is None or not sys.stdout.isatty()
        pusher = Pusher(target, bar=bar, ids=ids, is_ready=lambda: bool(select.select([file], [], [], 0)[0]))
        return asyncio.run(pusher.run(read_batches(file, name, make)))


def _payloads(texts: Sequence[str], make: Make, noun: str) -> list[Payload]:
    made = []
    for number, text in enumerate(texts, 1):
        try:
            made.append(make(os.fsencode(text)))
        except ValueError as error:
            shown = text if len(text) <= 40 else text[:40] + "…"
            raise click.UsageError(f"{noun} {number} ({shown}): {error}") from None
    return made


def _opened(path: str, name: str) -> FileIO:
    try:
        # Unbuffered, so that a read returns the available bytes. Not sys.stdin: a thread still reading would hold
        # its lock and abort the interpreter at exit.
        return open(0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")
    except OSError as error:
        raise click.UsageError(f"cannot read {name}: {error.strerror}") from None


def _bar(file: FileIO, wait: bool) -> Any:
    """Return a progress bar for the file, if there is a terminal and no results are printed on it."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size or not sys.stderr.isatty():
        return None
    if wait and sys.stdout.isatty():
        return None
    return click.progressbar(length=status.st_size, file=sys.stderr, label="pushing")


class Pusher:
    """A sender of batches to one target."""

    def __init__(
        self, target: Target, *, bar: Any = None, ids: bool = True, is_ready: Callable[[], bool] = lambda: True
    ) -> None:
        """`bar` is a progress bar of the bytes read; `ids` controls whether ids are printed.

        `is_ready` returns False if the next batch would be waited for.
        """
        self._target = target
        self._is_ready = is_ready
        self._bar = bar
        self._ids = ids and not target.wait
        self._pushed = 0
        self._sent = 0
        """Payloads of the current push, not yet acknowledged by Redis."""
        self._code = 0
        self._unanswered = 0
        self._awaited: dict[str, None] = {}
        """The tasks without a result, the oldest first."""
        self._printing: set[asyncio.Task[None]] = set()

    async def run(self, batches: Iterator[Batch]) -> int:
        """Push all `batches`. Return the exit code."""
        target = self._target
        async with (
            TaskClient(target.url, target.input_key, target.output_key or "") as client,
            Publisher(target.url) as publisher,
        ):
            follows = target.wait and sys.stderr.isatty()
            following = asyncio.create_task(follow(client, self._awaited)) if follows else None
            if target.topic is None:
                self._send = partial(client.push_raw, left=target.left, priority=target.priority)
            else:  # a publisher registers the topic
                self._send = partial(publisher.push_raw, target.topic)
            try:
                with self._bar or nullcontext():
                    error = await self._push_all(client, batches)
                if error:
                    so_far = f"{self._so_far()}, and nothing after it" if self._pushed else "nothing was pushed"
                    click.echo(f"Error: {visible(str(error))}; {so_far}", err=True)
                    self._code = 1
                while self._printing:
                    await self._print_some()
            except RedisWorkerError:
                if self._pushed:
                    click.echo(f"Interrupted: {self._so_far()}", err=True)
                raise
            except asyncio.CancelledError:
                doubt = f", and perhaps {self._sent} more" if self._sent else ""
                click.echo(f"Interrupted: {self._so_far()}{doubt}", err=True)
                raise
            finally:
                left = [*self._printing, *([] if following is None else [following])]
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)
        if not (self._ids or target.wait or error):
            click.echo(f"{self._so_far()}; to get the ids, redirect the output")
        return self._code

    async def _push_all(self, client: TaskClient, batches: Iterator[Batch]) -> str | None:
        """Push all batches. Return the reason if reading stopped early."""
        while batch := next(batches, None) if self._is_ready() else await _next(batches):
            if batch.payloads:
                await self._push(client, batch)
            if self._bar:
                self._bar.update(batch.size)
            if batch.error:
                return batch.error
        return None

    async def _push(self, client: TaskClient, batch: Batch) -> None:
        ids = [item.id for item in batch.payloads]
        target = self._target
        if target.wait:
            with explained(target.url, f"cannot wait for results in {target.output_key!r}"):
                # Otherwise the result of an earlier task with the same id would end the wait.
                await client.delete(ids)
        with explained(target.url, f"cannot push to {target.input_key!r}"):
            self._sent = len(ids)
            await self._send([item.raw for item in batch.payloads], delay=target.delay, at=target.at)
        self._sent = 0
        self._pushed += len(ids)
        if target.wait:
            self._unanswered += len(ids)
            self._printing.add(asyncio.create_task(self._print(client, ids)))
            while self._unanswered > _UNANSWERED or any(task.done() for task in self._printing):
                await self._print_some()
        elif self._ids:
            click.echo("\n".join(map(visible, ids)))

    async def _print(self, client: TaskClient, ids: list[str]) -> None:
        with explained(self._target.url, f"cannot read results from {self._target.output_key!r}"):
            self._code = max(self._code, await print_results(client, ids, None, awaited=self._awaited))
        self._unanswered -= len(ids)

    async def _print_some(self) -> None:
        done, self._printing = await asyncio.wait(self._printing, return_when=asyncio.FIRST_COMPLETED)
        if errors := [error for task in done if (error := task.exception())]:
            raise errors[0]

    def _so_far(self) -> str:
        noun = self._target.noun
        return f"1 {noun} was pushed" if self._pushed == 1 else f"{self._pushed} {noun}s were pushed"


async def _next(batches: Iterator[Batch]) -> Batch | None:
    """Return the next batch, read in a daemon thread, so that Ctrl-C does not wait for the next line."""
    reading: Future[Batch | None] = Future()
    reading.set_running_or_notify_cancel()

    def read() -> None:
        try:
            reading.set_result(next(batches, None))
        except Exception as error:
            reading.set_exception(error)

    threading.Thread(target=read, daemon=True).start()
    return await asyncio.wrap_future(reading)
