"""Implementation of `push` and `publish`: sends batches of payloads and prints results as they arrive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from datetime import datetime
from typing import Any, NamedTuple

import click

from redis_worker.broker.client.publisher import Publisher
from redis_worker.broker.client.task_client import TaskClient
from redis_worker.broker.keys import topic_list
from redis_worker.cli.payloads import Batch
from redis_worker.cli.printing import explained, print_results
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import RedisWorkerError
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

    @property
    def noun(self) -> str:
        """The word for a payload: task or message."""
        return "task" if self.topic is None else "message"

    def client(self) -> TaskClient:
        """Return a new client."""
        if self.topic is None:
            return TaskClient(self.url, self.input_key, self.output_key or "")
        return _TopicClient(self.url, self.topic)


class _TopicClient(TaskClient):
    """A client that pushes to a topic through a publisher, which registers the topic."""

    def __init__(self, url: str, topic: str) -> None:
        super().__init__(url, topic_list(topic), "")
        self._topic = topic
        self._publisher = Publisher(url)

    async def close(self) -> None:
        await self._publisher.close()
        await super().close()

    async def push_raw(
        self,
        payloads: Sequence[bytes],
        *,
        left: bool = False,
        delay: Duration | None = None,
        at: datetime | None = None,
    ) -> None:
        assert not left  # messages are only ever appended
        await self._publisher.push_raw(self._topic, payloads, delay=delay, at=at)


class Pusher:
    """A sender of batches to one target."""

    def __init__(self, target: Target, *, bar: Any = None, ids: bool = True) -> None:
        """`bar` is a progress bar of the bytes read; `ids` controls whether ids are printed."""
        self._target = target
        self._bar = bar
        self._ids = ids and not target.wait
        self._pushed = 0
        self._sent = 0
        """Payloads of the current push, not yet acknowledged by Redis."""
        self._code = 0
        self._unanswered = 0
        self._printing: set[asyncio.Task[None]] = set()

    async def run(self, batches: Iterator[Batch]) -> int:
        """Push all `batches`. Return the exit code."""
        target = self._target
        async with target.client() as client:
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
                for task in self._printing:
                    task.cancel()
                await asyncio.gather(*self._printing, return_exceptions=True)
        if not (self._ids or target.wait or error):
            click.echo(f"{self._so_far()}; to get the ids, redirect the output")
        return self._code

    async def _push_all(self, client: TaskClient, batches: Iterator[Batch]) -> str | None:
        """Push all batches. Return the reason if reading stopped early."""
        while batch := await _next(batches):
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
            raws = [item.raw for item in batch.payloads]
            await client.push_raw(raws, left=target.left, delay=target.delay, at=target.at)
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
            self._code = max(self._code, await print_results(client, ids, None))
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
