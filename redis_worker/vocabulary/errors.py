"""What can go wrong, by what one can do about it."""

from __future__ import annotations


class RedisWorkerError(Exception):
    """The base of every error this library raises on purpose; its text is one clear sentence."""


class ConfigurationError(RedisWorkerError):
    """What was asked for cannot be done as asked: an unknown name, a value out of range, a missing extra."""


class Disconnected(RedisWorkerError):
    """The queue cannot be reached just now; trying again may help, and what was claimed is safe."""


class Refused(RedisWorkerError):
    """The server answers, and says no for good: a wrong password, a key of the wrong type, a missing right."""


class Unreachable(RedisWorkerError):
    """No server answered within the connect timeout at start."""


class Unreadable(RedisWorkerError):
    """A raw task that cannot be answered: no JSON, no object, or no usable id. It goes to the dead letters."""


class ProcessDied(RedisWorkerError):
    """A process that ran a task died of it, each time it was tried."""


class TaskError(RedisWorkerError):
    """The error result of a task, raised by the client where its value was awaited.

    `id` is the task's id, `error` the text of the result, for example ``Processing error: …``.
    """

    def __init__(self, id: str, error: str) -> None:
        super().__init__(f"task {id}: {error}")
        self.id = id
        self.error = error
