"""The exceptions of the library, by the remedy they need."""

from __future__ import annotations

from redis_worker.vocabulary.duration import END_OF_TIME, Duration, seconds_of


class RedisWorkerError(Exception):
    """Base of all errors that the library raises on purpose; the text is one clear sentence."""


class ConfigurationError(RedisWorkerError):
    """An impossible request: an unknown name, a value out of range, a missing extra."""


class Disconnected(RedisWorkerError):
    """An unreachable queue: a retry may help, and claimed tasks are safe."""


class Refused(RedisWorkerError):
    """A permanent refusal by the server: a wrong password, a key of the wrong type, a missing right."""


class Unacceptable(Refused):
    """A command refused for its content, most often for its size; a smaller one may be accepted."""


class WrongType(Refused):
    """A key of the wrong type. Other keys can be used."""


class DamagedKey(WrongType):
    """A key of the wrong type that belongs to a queue. Other work continues."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        """`found` and `expected` are types as the command TYPE names them."""
        super().__init__(
            f"the key {key!r} holds a {found}, not a {expected}: move it away (RENAME) or delete it (DEL); "
            "the work that needs it continues then"
        )
        self.key = key
        self.found = found
        self.expected = expected


class Unreachable(RedisWorkerError):
    """No answer from a server within the connect timeout at start."""


class Unreadable(RedisWorkerError):
    """A raw task without a possible result: no JSON, no object, or no usable id. It becomes a dead letter.

    So does a message with an `id` and without data.
    """

    def __init__(self, reason: str, id: str | None = None) -> None:
        super().__init__(reason)
        self.id = id


class LifespanFailed(RedisWorkerError):
    """A lifespan that raised at its start or at its end."""


class RaisedInProcess(RedisWorkerError):
    """An error that a task raised in a child process; the text is the traceback there."""

    def __init__(self, trace: str, place: str) -> None:
        super().__init__(trace)
        self.place = place
        """The type of the error, and the line that raised it."""


class ProcessDied(RedisWorkerError):
    """The death of the process that ran a task, at every attempt."""


class PartFailed(RedisWorkerError):
    """The permanent failure of a supervisor's part, or of its process."""


class Retry(RedisWorkerError):
    """Raised by a processor: retry the task after `delay` (a Duration), or after the usual backoff.

    It counts as one of the pool's retries; a pool without retries grants ten. An invalid delay fails the task.
    """

    delay: Duration | None = None

    def __init__(self, reason: str = "retry requested", *, delay: Duration | None = None) -> None:
        super().__init__(reason)
        self.delay = delay

    def seconds(self) -> float | None:
        """Return the delay in seconds; None for the usual backoff. Raises ValueError if it is invalid."""
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
    """Raised by a processor: fail the task without a retry, with an error result and a dead letter."""

    def __init__(self, reason: str = "rejected") -> None:
        super().__init__(reason)


class TaskError(RedisWorkerError):
    """The error result of a task, raised by the client that awaits its value.

    `id` is the task's id, `error` the text of the result, for example ``Processing error: …``.
    """

    def __init__(self, id: str, error: str) -> None:
        super().__init__(f"task {id}: {error}")
        self.id = id
        self.error = error
