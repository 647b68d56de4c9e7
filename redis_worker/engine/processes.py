"""Calls in child processes, one at a time in each: for batches, and where slots are shared."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

from redis_worker.engine.child import Answered, Child, packed
from redis_worker.engine.execution import Answer, Encode, TimedOut, refusal
from redis_worker.engine.streams import open_streams
from redis_worker.vocabulary.errors import ConfigurationError, ProcessDied
from redis_worker.vocabulary.payload import success


def check_processor(processor: Callable[[Any], Any]) -> None:
    """Prepare for children that call `processor`. Raises ConfigurationError where it cannot be sent to one."""
    try:
        pickle.dumps(processor)
    except Exception as error:
        raise ConfigurationError(
            f"the processor cannot be sent to a process ({error}); define it at the top level of a module"
        ) from None
    open_streams()  # a socket to a process must not get the number of a standard stream


def died(tries: int) -> Answer:
    """Return the answer to a call whose process died each of `tries` times."""
    times = f"{tries} times" if tries > 1 else "once"
    return refusal("Processing error", ProcessDied(f"the process that ran the task died, {times}"))


class Processes:
    """Calls of a plain function, with one process for each slot: a crash affects one call.

    Each process leads a group that ends with it: at a time limit, at the end of the worker and when it is killed, the
    programs that the function started end too.
    """

    def __init__(
        self, processor: Callable[[Any], Any], timeout: float | None, max_deliveries: int, encode: Encode = success
    ) -> None:
        """Raises ConfigurationError."""
        check_processor(processor)
        self._processor = processor
        self._encode = encode
        self._timeout = timeout
        self._tries = max_deliveries
        self._places: set[_Place] = set()

    async def call(
        self, arguments: Any, on_message: Callable[[Any], None] = lambda _: None, timeout: float | None = None
    ) -> Answer:
        """See Execution. `on_message` is called with each message from the call before its answer.

        `timeout` is the limit of this call, where calls differ.
        """
        try:
            data = packed(arguments)
        except BaseException as error:
            return refusal("Processing error", error)
        for _ in range(self._tries):
            answer = await self._try(data, on_message, self._timeout if timeout is None else timeout)
            if answer is not None:
                return answer
        return died(self._tries)

    async def _try(self, arguments: bytes, on_message: Callable[[Any], None], timeout: float | None) -> Answer | None:
        free = (place for place in self._places if place.answer.done() and place.child.lives)
        place = next(free, None) or _Place(self._processor, self._encode, self._places)
        place.child.on_message = lambda _, message: on_message(message)
        place.answer = asyncio.get_running_loop().create_future()
        try:
            if not place.child.is_ready:  # apart from the call: the time limit is one of the task, not of the start
                await asyncio.shield(place.child.start())
            place.child.send([(0, arguments)])
            if not (await asyncio.wait({place.answer}, timeout=timeout))[0]:
                raise TimedOut
            return place.answer.result()
        finally:
            if not place.answer.done():
                place.child.kill()

    def close(self) -> None:
        for place in tuple(self._places):
            place.child.close()
            place.died()


class _Place:
    """A child, and the answer to the call that it runs."""

    def __init__(self, processor: Callable[[Any], Any], encode: Encode, places: set[_Place]) -> None:
        places.add(self)
        self._places = places
        self.child = Child(processor, encode, self.answered, self.died)
        self.answer: asyncio.Future[Answer | None]
        """None if the process died."""

    def answered(self, answers: list[Answered]) -> None:
        if not self.answer.done():
            self.answer.set_result(answers[0].answer)

    def died(self) -> None:
        self._places.discard(self)
        if not self.answer.done():
            self.answer.set_result(None)
