"""Gathering: calls of many tasks, answered together by one function."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Gathering(Generic[Item, Answer]):
    """Items of one event loop that wait for each other. One call of the function at a time: items keep their order."""

    def __init__(
        self, answer: Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]], size: int, seconds: float
    ) -> None:
        """`answer` is called with up to `size` items once so many wait, or the first has waited for `seconds`."""
        self._answer = answer
        self._size = size
        self._seconds = seconds
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._full = asyncio.Event()
        self._hurried = False
        self._batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        """Items that are being answered."""
        self._work: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """Return the answer to `item`, or raise the exception in its place.

        If cancelled early, the item is left out; once nobody waits, the work is given up.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) >= self._size:
            self._full.set()
        if self._work is None:
            self._work = asyncio.create_task(self._run())
        try:
            return await future
        except asyncio.CancelledError:
            if self._work is not None and all(future.done() for _, future in (*self._batch, *self._waiting)):
                self._work.cancel()
            raise

    async def finish(self) -> None:
        """Answer what waits without waiting for more; return when that is done."""
        while self._work is not None:
            self._hurried = True
            self._full.set()
            await asyncio.wait({self._work})
        self._hurried = False

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        latest = now() + self._seconds
        try:
            while self._waiting:
                await self._filled(latest)
                latest = now() + self._seconds
                self._batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
                if len(self._waiting) < self._size and not self._hurried:
                    self._full.clear()
                if batch := [(item, future) for item, future in self._batch if not future.done()]:
                    await self._settle(batch)
        finally:
            self._work = None
            self._waiting, self._batch = [], []

    async def _filled(self, latest: float) -> None:
        try:
            async with asyncio.timeout_at(latest):
                await self._full.wait()
        except TimeoutError:
            pass

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._answer([item for item, _ in batch])
        except Exception as error:
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
