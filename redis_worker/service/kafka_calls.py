"""The calls of a Kafka worker's handler: with one message, or with a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis_worker.engine.awaitables import Deferred, is_awaitable, resolved
from redis_worker.engine.batches import failure_of, failures
from redis_worker.vocabulary.error_text import is_a


def answers(returned: Any, messages: Sequence[Any]) -> list[Any]:
    """Return what a batch handler returned, one entry for each of `messages`: its value, or its failure.

    Raises TypeError or ValueError where `returned` is neither None, nor a list with an entry for each message (a row, a
    list of rows, None, or an exception), nor a mapping from ids of failed messages to reasons.
    """
    if returned is None or isinstance(returned, Mapping):
        return list(failures(returned, messages))
    if type(returned) is not list or len(returned) != len(messages):
        got = f"{len(returned)} entries" if type(returned) is list else repr(type(returned).__name__)
        raise TypeError(
            f"a batch handler returns None, a list with an entry for each of its {len(messages)} messages, or "
            f"{{id: reason}} of what has failed; got {got}"
        )
    if not any(issubclass(kind, BaseException) for kind in set(map(type, returned))):
        return returned
    return [failure_of(entry) if is_a(entry, BaseException) else entry for entry in returned]


# Classes, not closures: a handler may be pickled for another process.


class BatchCall:
    """A call of a plain batch handler; an awaitable value is deferred."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, messages: Sequence[Any]) -> Any:
        value = self._function(messages)
        if is_awaitable(value):
            return Deferred(value, lambda returned: answers(returned, messages))
        return answers(value, messages)


class BatchCoroutine(BatchCall):
    """A call of a batch handler that is a coroutine function."""

    async def __call__(self, messages: Sequence[Any]) -> list[Any]:
        return answers(await resolved(self._function(messages)), messages)
