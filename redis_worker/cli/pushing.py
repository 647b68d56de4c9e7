"""What `redis-worker push` and `publish` do: batches of payloads to Redis, and results back as they arrive."""

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

# With --wait, pushing pauses while so many tasks are without a result: memory stays bounded.
_UNANSWERED = 10_000


class Target(NamedTuple):
    """Where tasks go, and how."""

    url: str
    input_key: str
    output_key: str | None
    left: bool
    """Push to the head of the list."""
    wait: bool
    """Print the results; otherwise the ids are printed."""
    delay: float | None = None
    """Have the tasks done after so many seconds."""
    at: datetime | None = None
    """Have them done at a time."""
    topic: str | None = None
    """The topic that the list belongs to, where it is messages that are pushed."""

    @property
    def what(self) -> str:
        """What is pushed."""
        return "task" if self.topic is None else "message"

    def client(self) -> TaskClient:
        """A new client."""
        if self.topic is None:
            return TaskClient(self.url, self.input_key, self.output_key or "")
        return _TopicClient(self.url, self.topic)


class _TopicClient(TaskClient):
    """Pushes to a topic, by way of a publisher, which makes the topic known."""

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
    """Pushes to one target."""

    def __init__(self, target: Target, *, bar: Any = None, ids: bool = True) -> None:
        """`bar`, a progress bar, is told how many bytes have been read; without `ids` these are not printed."""
        self._target = target
        self._bar = bar
        self._ids = ids and not target.wait
        self._pushed = 0
        self._sent = 0
        """How many of a push under way, which Redis has not acknowledged yet."""
        self._code = 0
        self._unanswered = 0
        self._printing: set[asyncio.Task[None]] = set()

    async def run(self, batches: Iterator[Batch]) -> int:
        """Push all `batches`. Returns the exit code."""
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
            click.echo(f"{self._so_far()}; redirect the output to have the ids")
        return self._code

    async def _push_all(self, client: TaskClient, batches: Iterator[Batch]) -> str | None:
        """Returns why not all could be read, if so."""
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
                # A result that an earlier task of the same id has left is not the one that is waited for.
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
        what = self._target.what
        return f"1 {what} was pushed" if self._pushed == 1 else f"{self._pushed} {what}s were pushed"


async def _next(batches: Iterator[Batch]) -> Batch | None:
    """The next batch, read in a thread that nobody waits for: Ctrl-C need not wait for a line to come."""
    reading: Future[Batch | None] = Future()
    reading.set_running_or_notify_cancel()

    def read() -> None:
        try:
            reading.set_result(next(batches, None))
        except Exception as error:
            reading.set_exception(error)

    threading.Thread(target=read, daemon=True).start()
    return await asyncio.wrap_future(reading)
