"""The calls of a queue's functions: in a child process, and with middleware around them, wherever they run."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from redis_worker.engine.child_calls import send_to_parent
from redis_worker.engine.execution import Answer, Coroutines, Encode, Execution, Inline, Threads, unencoded
from redis_worker.engine.middleware import Middlewares, TaskCall
from redis_worker.engine.processes import Processes
from redis_worker.engine.starts import receiver
from redis_worker.engine.thread_pool import OwnThreads, ThreadPool
from redis_worker.functions.current import CurrentTask
from redis_worker.functions.function import AnyFunction
from redis_worker.functions.reading import Received
from redis_worker.functions.signature import Arguments
from redis_worker.functions.values import result_of
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.task import RUNNING


def call(received: Received) -> Any:
    """Call the function of a task. A coroutine function returns its coroutine."""
    positional, named = received.arguments
    return received.function.__wrapped__(*positional, **named)


class Sent(NamedTuple):
    """A task as a child process gets it, which inherits no context."""

    function: AnyFunction
    arguments: Arguments
    description: CurrentTask

    def current(self) -> CurrentTask:
        """See Running."""
        return replace(self.description, running=self)

    def is_cancelled(self) -> bool:
        """Return False: the process is killed."""
        return False

    def report(self, done: float, total: float | None, message: str | None) -> None:
        """See Running. The parent takes it."""
        send_to_parent((done, total, message))


def sent(received: Received) -> Sent:
    """Return a task as a child process gets it."""
    return Sent(received.function, received.arguments, replace(received.current(), running=None))


def call_in_child(sent: Sent) -> Any:
    """Call the function of a task in a child process."""
    RUNNING.set(sent)
    positional, named = sent.arguments
    return sent.function.__wrapped__(*positional, **named)


class InProcesses:
    """Calls of a plain function in child processes, which the functions of a queue share."""

    def __init__(self, processes: Processes, timeout: float | None) -> None:
        self._processes = processes
        self._timeout = timeout

    async def call(self, arguments: Received) -> Answer:
        report = receiver(lambda report: arguments.report(*report))
        return await self._processes.call(sent(arguments), report, self._timeout)

    def close(self) -> None:
        self._processes.close()


class Surrounded:
    """Calls with middleware around each of them."""

    def __init__(self, execution: Execution, middlewares: Middlewares) -> None:
        """`execution` does not encode."""
        self._execution = execution
        self._middlewares = middlewares

    async def call(self, arguments: Received) -> Answer:
        def inner(task: TaskCall) -> Awaitable[Answer]:
            return self._execution.call(replace(arguments, arguments=task.arguments))

        delivery, name = arguments.delivery, arguments.function.name
        queue, values = arguments.side.queue, arguments.arguments
        task = TaskCall(arguments.id, queue, name, delivery.attempt, values, delivery.raw)
        return await self._middlewares.call(task, inner, result_of)

    def close(self) -> None:
        self._execution.close()


def encode_in(middlewares: Middlewares) -> Encode:
    """Return the encoding where the functions are called: middleware gets their values, and its own is encoded."""
    return unencoded if middlewares else result_of


class Executions(dict[AnyFunction, Execution]):
    """The calls of a queue's functions, by function, with middleware around them if there is any."""

    def __init__(
        self,
        functions: Iterable[AnyFunction],
        middlewares: Middlewares,
        threads: ThreadPool | OwnThreads,
        processes: Processes | None = None,
        call: Callable[[Any], Any] = call,
    ) -> None:
        """Without `processes`, in tests of a program, all plain functions run in threads; they have `encode_in`."""
        self._call = call
        self._encode = encode_in(middlewares)
        self._threads = threads
        self._processes = processes
        places = {function: self._place(function) for function in functions}
        if middlewares:
            super().__init__({function: Surrounded(place, middlewares) for function, place in places.items()})
        else:
            super().__init__(places)

    def _place(self, function: AnyFunction) -> Execution:
        timeout = function.declaration.timeout
        match function.declaration.execution:
            case "async":
                return Coroutines(self._call, timeout, self._encode)
            case "inline" if self._processes is not None:
                return Inline(self._call, self._encode)
            case "process" if self._processes is not None:
                return InProcesses(self._processes, timeout)
            case _:
                return Threads(self._call, timeout, self._threads, self._encode)

    def close(self) -> None:
        """Stop the calls that can be stopped."""
        self._threads.close()
        if self._processes is not None:
            self._processes.close()


def check_sent(functions: Iterable[AnyFunction]) -> None:
    """Raise ConfigurationError if a child process would not find one of its functions."""
    for function in functions:
        if function.declaration.execution != "process":
            continue
        try:
            pickle.dumps(function)
        except Exception as error:
            raise ConfigurationError(
                f"function {function.name} cannot be sent to a process ({error}); define it at the top level of a "
                "module"
            ) from None
