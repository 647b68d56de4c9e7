"""The guard of a call: whatever a task does, it alone gets an error."""

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
    """Turns what a call raises into its answer. Handlers of tasks and of batches are made of it."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self.cancelled = False
        """True once the runner cancels what runs: a cancellation is its doing from then on, and not the task's."""

    def caught(self, error: BaseException) -> tuple[Answer, asyncio.Future[Any] | None]:
        """Return the answer to a call that raised `error`, and the call itself where it goes on regardless.

        Raises `error` again where the runner or Ctrl-C caused it.
        """
        if is_a(error, TimedOut):
            return timed_out(self._timeout), error.leftover
        if is_interrupt(error) or (self.cancelled and is_a(error, asyncio.CancelledError)):
            raise error
        return refusal("Processing error", error), None


def is_interrupt(error: BaseException) -> bool:
    """Return True where `error` may be a Ctrl-C in a program that leaves SIGINT to Python, and not a task's doing."""
    return (
        is_a(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def escaped(delivery: Delivery, error: BaseException) -> Outcome:
    """Return the outcome of a task that a defect of the engine would leave in flight, where nothing holds it."""
    logger.error("a defect of redis_worker made a task fail; please report it", exc_info=error)
    text = f"Processing error: {error_text(error, named=True)}"
    try:
        id: str | None = read_object(delivery.raw)[0]
    except Unreadable as unreadable:
        id = unreadable.id
    except Exception:  # the defect may be in the reading itself
        id = None
    return Outcome(delivery, id, None if id is None else failure(text), text, dead=True, exception=error)
