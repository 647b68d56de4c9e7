"""What can go wrong, by what one can do about it."""

from __future__ import annotations

from redis_worker.vocabulary.duration import END_OF_TIME, Duration, seconds_of


class RedisWorkerError(Exception):
    """The base of every error this library raises on purpose; its text is one clear sentence."""


class ConfigurationError(RedisWorkerError):
    """What was asked for cannot be done as asked: an unknown name, a value out of range, a missing extra."""


class Disconnected(RedisWorkerError):
    """The queue cannot be reached just now; trying again may help, and what was claimed is safe."""


class Refused(RedisWorkerError):
    """The server answers, and says no for good: a wrong password, a key of the wrong type, a missing right."""


class Unacceptable(Refused):
    """The server refuses a command for what is in it, most often for its size; with less in it, it may be taken."""


class WrongType(Refused):
    """A key holds another type than it should. Other keys can be used."""


class DamagedKey(WrongType):
    """A key derived from a queue holds another type than it should. Work that does not need the key goes on."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        """`found` and `expected` are types as the command TYPE gives them."""
        super().__init__(
            f"the key {key!r} holds a {found}, not a {expected}: move it away (RENAME) or delete it (DEL); "
            "the work that needs it goes on then"
        )
        self.key = key
        self.found = found
        self.expected = expected


class Unreachable(RedisWorkerError):
    """No server answered within the connect timeout at start."""


class Unreadable(RedisWorkerError):
    """A raw task that cannot be answered: no JSON, no object, or no usable id. It goes to the dead letters.

    So does a message with an `id` and without data.
    """

    def __init__(self, reason: str, id: str | None = None) -> None:
        super().__init__(reason)
        self.id = id


class RaisedInProcess(RedisWorkerError):
    """An error that a task raised in a process of its own; its text is the traceback there."""

    def __init__(self, trace: str, place: str) -> None:
        super().__init__(trace)
        self.place = place
        """The type of the error and the line that raised it."""


class ProcessDied(RedisWorkerError):
    """A process that ran a task died of it, each time it was tried."""


class PartFailed(RedisWorkerError):
    """A part of a supervisor has failed for good, or the process of its own that it ran in has."""


class Retry(RedisWorkerError):
    """Raised by a processor: try the task again, after `delay` (a Duration) or, without it, after the usual backoff.

    The retry counts as one of the pool's retries; a pool that has none grants ten. A delay that cannot be used fails
    the task, with a sentence.
    """

    delay: Duration | None = None

    def __init__(self, reason: str = "asked to be tried again", *, delay: Duration | None = None) -> None:
        super().__init__(reason)
        self.delay = delay

    def seconds(self) -> float | None:
        """Return the delay in seconds; None for the usual backoff. Raises ValueError where it cannot be used."""
        if self.delay is None:
            return None
        try:
            seconds = seconds_of(self.delay)
        except ValueError as error:
            raise ValueError(f"the delay of a Retry {error}, or a timedelta") from None
        if not 0 <= seconds <= END_OF_TIME:
            raise ValueError(f"the delay of a Retry must be from 0 to {END_OF_TIME:g} seconds")
        return seconds


class Reject(RedisWorkerError):
    """Raised by a processor: give the task up at once; it gets an error result and a dead letter."""

    def __init__(self, reason: str = "rejected") -> None:
        super().__init__(reason)


class TaskError(RedisWorkerError):
    """The error result of a task, raised by the client where its value was awaited.

    `id` is the task's id, `error` the text of the result, for example ``Processing error: …``.
    """

    def __init__(self, id: str, error: str) -> None:
        super().__init__(f"task {id}: {error}")
        self.id = id
        self.error = error
