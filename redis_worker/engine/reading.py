"""The decoders of a delivery: into the processor's arguments, or into an Outcome if it cannot be run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis_worker.engine.awaitables import unawaited
from redis_worker.engine.execution import refusal
from redis_worker.engine.guard import is_interrupt
from redis_worker.ports import Parser
from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.message import Message, read_message
from redis_worker.vocabulary.payload import MissingTask, failure, read_task
from redis_worker.vocabulary.task import Delivery, Outcome

Read = Callable[[Delivery], tuple[str, Any] | Outcome]
"""Returns the id of a task and the argument of its processor, or an outcome."""


class TaskReader:
    """A decoder of tasks; the parser makes the arguments."""

    def __init__(self, parser: Parser, max_deliveries: int) -> None:
        self._parser = parser
        self._max_deliveries = max_deliveries

    def read(self, delivery: Delivery) -> tuple[str, list[Any]] | Outcome:
        """Return the task's id and arguments, or an outcome. The hot path."""
        try:
            id, payload = read_task(delivery.raw, delivery.plain)
        except Unreadable as error:
            return Outcome(delivery, None, None, str(error), dead=True)
        except MissingTask as missing:
            return refused(delivery, missing.id, missing)
        if delivery.deaths >= self._max_deliveries:
            return condemned(delivery, id)
        try:
            arguments = self._parser(payload)
        except BaseException as error:
            if is_interrupt(error):
                raise
            return refused(delivery, id, error)
        if type(arguments) is not list and (mistake := unawaited(arguments, "the parser")):
            return refused(delivery, id, mistake)
        return id, arguments


class MessageReader:
    """A decoder of messages of a topic."""

    def __init__(self, topic: str, max_deliveries: int) -> None:
        self._topic = topic
        self._max_deliveries = max_deliveries

    def read(self, delivery: Delivery) -> tuple[str, Message] | Outcome:
        """Return the message's id and the message, or an outcome."""
        try:
            message = read_message(delivery.raw, self._topic, delivery.attempt, delivery.plain)
        except Unreadable as error:
            return Outcome(delivery, error.id, None, str(error), dead=True)
        if delivery.done:
            return Outcome(delivery, message.id, b"", skipped=True)
        if delivery.deaths >= self._max_deliveries:
            return condemned(delivery, message.id)
        return message.id, message


def condemned(delivery: Delivery, id: str) -> Outcome:
    """Return the outcome of a task that has been the death of too many workers."""
    times = delivery.deaths
    text = f"Processing error: given up: {times} worker{'s' * (times > 1)} died while holding the task"
    return Outcome(delivery, id, failure(text), text, dead=True)


def refused(delivery: Delivery, id: str, error: BaseException) -> Outcome:
    """Return the outcome of a task that the parser refused with `error`."""
    answer = refusal("Parse error", error)
    return Outcome(delivery, id, answer.result, answer.error, exception=error)
