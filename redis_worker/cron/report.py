"""What happens to a cron job, as log lines, and for whoever counts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

logger = logging.getLogger("redis_worker")


OnOutcome = Callable[[str, float], None]
"""Is told the outcome of each run and how many seconds it took, in the event loop."""


class Report:
    """Logs what happens to the job `name`, and tells `on_outcome` of each run and of each instant skipped."""

    def __init__(self, name: str, on_outcome: OnOutcome | None) -> None:
        self._name = name
        self._on_outcome = on_outcome

    def ended(self, instant: datetime, outcome: str, error: str | None, seconds: float) -> None:
        """A run has ended."""
        level = logging.INFO if outcome == "success" else logging.WARNING
        self._say(level, f"{instant.isoformat()}: {outcome} in {seconds:.3f} s{f': {error}' if error else ''}")
        self._tell(outcome, seconds)

    def raised(self, error: BaseException) -> None:
        """The job has raised `error`, of which a line will be logged."""
        logger.debug("cron job %s: it raised", self._name, exc_info=error, extra={"job": self._name})

    def again(self, error: str | None, delay: float) -> None:
        """It failed, and is tried again."""
        self._say(logging.WARNING, f"failed, to be tried again in {delay:.1f} s: {error}")

    def skipped(self, instant: datetime, why: str) -> None:
        """An instant was let pass."""
        self._say(logging.INFO, f"{instant.isoformat()} is skipped: {why}")
        self._tell("skipped", 0.0)

    def missed(self, number: str, first: datetime, last: datetime, what: str) -> None:
        """Instants were missed."""
        self._say(logging.WARNING, f"missed {number} from {first.isoformat()} to {last.isoformat()}: {what}")

    def lost(self, worker: str) -> None:
        """The process of a run is gone."""
        self._say(logging.WARNING, f"the run on {worker} is lost: its process is gone, or was cut off from Redis")

    def presumed_lost(self) -> None:
        """A run of this process was taken for lost."""
        self._say(logging.WARNING, "a run of this process was presumed lost, so that another one may run beside it")

    def unrecorded(self, outcome: str, error: Exception) -> None:
        """The outcome of a run could not be written."""
        self._say(logging.WARNING, f"the outcome {outcome} could not be recorded: {error}")

    def damaged(self, error: Exception) -> None:
        """A key of the job holds another type than it should: what needs it waits."""
        self._say(logging.ERROR, str(error))

    def away(self, error: Exception) -> None:
        """Redis cannot be reached."""
        self._say(logging.WARNING, f"Redis is away ({error})")

    def back(self, seconds: float) -> None:
        """It can again."""
        self._say(logging.WARNING, f"Redis is back after {seconds:.1f} s")

    def _tell(self, outcome: str, seconds: float) -> None:
        try:
            if self._on_outcome is not None:
                self._on_outcome(outcome, seconds)
        except Exception as error:
            self._say(logging.WARNING, f"who is told of outcomes has raised {type(error).__name__}: {error}")

    def _say(self, level: int, text: str) -> None:
        logger.log(level, "cron job %s: %s", self._name, text, extra={"job": self._name})
