"""The guard of a call: only the task itself fails, for every exception."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

from redis_worker.engine.execution import Answer, TimedOut, refusal, timed_out
from redis_worker.vocabulary.error_text import error_text, is_a
from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.payload import failure, read_object
from redis_worker.vocabulary.task import Delivery, Outcome

logger = library_logger(__name__)


class CallGuard:
    """A converter from a call's exceptions to its answer; the base of the handlers of tasks and batches."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.cancelled = False
        """True once the runner cancels its calls: later cancellations come from the runner, not from the task."""
        self._leftovers: dict[Delivery, asyncio.Future[Any]] = {}

    def limit(self, delivery: Delivery) -> float | None:  # noqa: ARG002 - for handlers whose tasks have their own
        """Return the time limit of a task, in seconds."""
        return self.timeout

    def on_message(self, delivery: Delivery, id: str, message: Any) -> None:
        """Take a message from a running task; for handlers whose tasks send some."""

    def caught(self, error: BaseException) -> tuple[Answer, asyncio.Future[Any] | None]:
        """Return the answer to a call that raised `error`, and the call itself if it continues.

        Raises `error` again if the runner or Ctrl-C caused it.
        """
        if is_a(error, TimedOut):
            return error.answer or timed_out(self.timeout), error.leftover
        if is_interrupt(error) or (self.cancelled and is_a(error, asyncio.CancelledError)):
            raise error
        return refusal("Processing error", error), None

    def leftover(self, delivery: Delivery) -> asyncio.Future[Any] | None:
        """Return the call of a task that goes on after its time limit (in a thread), and keeps its slot."""
        return self._leftovers.pop(delivery, None) if self._leftovers else None


def is_interrupt(error: BaseException) -> bool:
    """Return True if `error` may be a Ctrl-C in a program that leaves SIGINT to Python, not an error of a task."""
    return (
        is_a(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def id_in(raw: bytes) -> str | None:
    """Return the id of the task `raw`; None if there is none to be read."""
    try:
        return read_object(raw)[0]
    except Unreadable as unreadable:
        return unreadable.id
    except Exception:  # a bug, or what another reader reads
        return None


def escaped(delivery: Delivery, error: BaseException) -> Outcome:
    """Return the outcome of a task that a bug in the engine would otherwise leave in flight, held by nothing."""
    logger.error("a bug in redis_worker made a task fail; please report it", exc_info=error)
    text = f"Processing error: {error_text(error, named=True)}"
    id = delivery.label or id_in(delivery.raw)
    return Outcome(delivery, id, None if id is None else failure(text), text, dead=True, exception=error)
