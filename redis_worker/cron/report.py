"""The events of a cron job, as log lines and as calls of `on_outcome`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from redis_worker.engine.awaitables import unawaited
from redis_worker.engine.guard import is_interrupt
from redis_worker.vocabulary.error_text import error_text

logger = logging.getLogger("redis_worker")


OnOutcome = Callable[[str, float], None]
"""Called in the event loop with the outcome of each run, and its duration in seconds."""


class Report:
    """The reporter of the job `name`: logs events, and calls `on_outcome` for each run and each skipped instant."""

    def __init__(self, name: str, on_outcome: OnOutcome | None) -> None:
        self._name = name
        self._on_outcome = on_outcome

    def ended(self, instant: datetime, outcome: str, error: str | None, seconds: float) -> None:
        """Report the end of a run."""
        level = logging.INFO if outcome == "success" else logging.WARNING
        self._log(level, f"{instant.isoformat()}: {outcome} in {seconds:.3f} s{f': {error}' if error else ''}")
        self._notify(outcome, seconds)

    def raised(self, error: BaseException) -> None:
        """Log the traceback of `error` at DEBUG; `ended` or `again` logs its text."""
        logger.debug("cron job %s: it raised", self._name, exc_info=error, extra={"job": self._name})

    def again(self, error: str | None, delay: float) -> None:
        """Report a failure that is retried."""
        self._log(logging.WARNING, f"failed, retrying in {delay:.1f} s: {error}")

    def skipped(self, instant: datetime, reason: str) -> None:
        """Report a skipped instant."""
        self._log(logging.INFO, f"{instant.isoformat()}: skipped, {reason}")
        self._notify("skipped", 0.0)

    def missed(self, number: str, first: datetime, last: datetime, result: str) -> None:
        """Report missed instants, and their result."""
        self._log(logging.WARNING, f"missed {number} from {first.isoformat()} to {last.isoformat()}: {result}")

    def lost(self, worker: str) -> None:
        """Report that a run's process is dead or disconnected."""
        self._log(logging.WARNING, f"the run on {worker} is lost: its process is gone, or was cut off from Redis")

    def presumed_lost(self) -> None:
        """Report that a run of this process was presumed lost."""
        self._log(logging.WARNING, "a run of this process was presumed lost: another run may overlap it")

    def unrecorded(self, outcome: str, error: Exception) -> None:
        """Report an outcome that could not be recorded."""
        self._log(logging.WARNING, f"the outcome {outcome} could not be recorded: {error}")

    def _notify(self, outcome: str, seconds: float) -> None:
        try:
            if self._on_outcome is not None and (error := unawaited(self._on_outcome(outcome, seconds), "it")):
                raise error
        except BaseException as error:
            if is_interrupt(error):
                raise
            self._log(logging.WARNING, f"the on_outcome callback raised {error_text(error, named=True)}")

    def _log(self, level: int, text: str) -> None:
        logger.log(level, "cron job %s: %s", self._name, text, extra={"job": self._name})
