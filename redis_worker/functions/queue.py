"""The queue of functions: registers them, submits calls, and makes their workers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from redis_worker.engine.lifespan import Lifespan, LifespanFunction
from redis_worker.engine.middleware import Middleware
from redis_worker.functions.declared import Around, DeclaredFunctions
from redis_worker.functions.function import Call, TaskFunction
from redis_worker.functions.handle import Handle
from redis_worker.functions.inputs import Input, inputs_in
from redis_worker.functions.limits import declared_limits
from redis_worker.functions.testing import Testing
from redis_worker.functions.transport import Submission, Unique
from redis_worker.functions.worker import FunctionWorker
from redis_worker.service.options import POOL_DEFAULTS
from redis_worker.vocabulary.duration import Duration, seconds_of
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.ids import id_text, new_id
from redis_worker.vocabulary.payload import dumps
from redis_worker.vocabulary.priorities import DEFAULT
from redis_worker.vocabulary.processor import Execution, declaration_of

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
L = TypeVar("L", bound=LifespanFunction)
M = TypeVar("M", bound=Middleware)


class Decorator(Protocol):
    """The decorator of a function, async or plain."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> TaskFunction[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskFunction[P, R, R]: ...


class TaskQueue(DeclaredFunctions):
    """A queue whose tasks are calls of its functions.

    queue = TaskQueue("redis://localhost", "mail")

    @queue.task(retries=3, timeout=30)
    async def send_mail(to: str, body: str) -> int: ...

    handle = await send_mail.submit("a@example.com", body="hi")
    print(await handle.result(timeout=10))

    `redis-worker run shop.tasks:queue` runs a worker. One queue serves any number of event loops, threads, and the
    children of a fork. See DeclaredFunctions for its arguments.
    """

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> TaskFunction[P, R, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        execution: Execution | None = None,
        retry_backoff: Duration | None = None,
        retry_backoff_max: Duration | None = None,
        priority: str = DEFAULT,
        rate: str | None = None,
        concurrency: int | None = None,
        per_key: int | None = None,
        in_order: bool = False,
    ) -> Decorator: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        execution: Execution | None = None,
        retry_backoff: Duration | None = None,
        retry_backoff_max: Duration | None = None,
        priority: str = DEFAULT,
        rate: str | None = None,
        concurrency: int | None = None,
        per_key: int | None = None,
        in_order: bool = False,
    ) -> Any:
        """Register the decorated function under `name`, by default its own; it stays a plain function for calls.

        A coroutine function runs on the event loop; a plain one in a thread, or by `execution` "process" or "inline".
        `timeout` limits one run; `retries` follow a failure, after `retry_backoff` (1 s) that doubles up to
        `retry_backoff_max` (60 s). `priority` is one of those of the queue, for each submission that names no other.
        Limits hold over all workers of the queue: `rate`, as "100/m", for the starts in any period of that length,
        `concurrency` for the tasks at a time, `per_key` for those of the same `key`; with `in_order`,
        these run one after the other, as they were submitted. Raises ConfigurationError for
        options that do not fit, for a name that is taken, and for an annotation whose type has no form in JSON.
        """

        def register(function: Callable[..., Any]) -> TaskFunction[..., Any, Any]:
            declaration = declaration_of(
                *(function, "function"),
                name=name,
                retries=retries,
                timeout=timeout,
                execution=execution,
                retry_backoff=retry_backoff,
                retry_backoff_max=retry_backoff_max,
            )
            if declaration.name in self.functions:
                raise ConfigurationError(f"the queue {self.name} has two functions named {declaration.name}")
            limits = declared_limits(declaration.name, rate, concurrency, per_key, in_order)
            made = self.functions[declaration.name] = TaskFunction(self, function, declaration, limits, priority)
            return made

        return register if function is None else register(function)

    def lifespan(self, function: L) -> L:
        """Register an asynchronous generator function that yields what the functions need, as a pool of connections.

        It starts before the first task in each worker process, and in each child process of execution="process"; its
        rest runs after the last result is written (a child process is killed). Functions get what it yields as
        `current_task().resources`. Raises ConfigurationError.
        """
        if self.lifetime is not None:
            raise ConfigurationError(f"the queue {self.name} has a lifespan already: {self.lifetime.name}")
        self.lifetime = Lifespan(function)
        return function

    def middleware(self, function: M) -> M:
        """Register a coroutine function `(task, call_next)`, called around each call in a worker: the innermost so far.

        Raises ConfigurationError.
        """
        self.middlewares.add(function)
        return function

    def submitting(self, function: Around) -> Around:
        """Register a function that returns a context manager around each submission.

        It gets the calls, and what the context manager yields are further members of their payloads.
        """
        self.around_submissions.append(function)
        return function

    def handle(self, id: str | int) -> Handle[Any]:
        """Return the handle of a task by its id; its result is the JSON value. See also TaskFunction.handle."""
        return Handle(self, id)

    async def submit_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Submit calls of any functions of this queue, hundreds in a round trip; return their handles in order.

        Raises Disconnected and Refused.
        """
        calls = list(calls)
        if not self.around_submissions:
            return await self._submit(calls, {})
        members = dict[str, Any]()
        with ExitStack() as stack:
            for around in self.around_submissions:
                members |= stack.enter_context(around(calls))
            return await self._submit(calls, members)

    async def _submit(self, calls: Sequence[Call[R]], members: Mapping[str, Any]) -> list[Handle[R]]:
        ids = await self.transport.send([self._submission(call, members) for call in calls])
        return [Handle[R](self, id, call.function.signature.result) for id, call in zip(ids, calls, strict=True)]

    def submit_many_sync(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Submit as `submit_many` does, from code without an event loop."""
        return self.run_sync(self.submit_many, list(calls))

    def _submission(self, call: Call[Any], members: Mapping[str, Any]) -> Submission:
        """Return the task of a call: every payload is made here."""
        options = call.options
        id = call.id or (new_id() if options.id is None else options.id)
        unique = None
        order = call.function.limits.order_of(call.function.name, options.key)
        if options.is_unique or order:
            id, unique = id_text(id), _unique(call)
        payload = {"id": id, "task": {"name": call.function.name, **call.arguments}, "emit_ts": time.time()}
        payload |= {**options.members(), **members}
        if order:
            payload["unique"] = True  # its record names the task before it
        raw = dumps(payload)
        after = self._after(id_text(id), call, raw)
        when = options.delay, options.at
        if order and (after or when != (None, None)):
            raise ConfigurationError(
                f"the tasks of {call.function.name} with a key run in the order of their submission: leave out "
                "after, inputs, delay and at"
            )
        return Submission(id_text(id), raw, *when, unique, options.priority, after, options.on_failure == "run", order)

    def _after(self, id: str, call: Call[Any], raw: bytes) -> tuple[str, ...]:
        """Return the ids of the tasks that a call waits for. Raises ConfigurationError."""
        inputs = inputs_in(raw)
        if not inputs and not call.options.awaited:
            return ()
        if call.options.delay is not None or call.options.at is not None:
            raise ConfigurationError("a task that waits for others runs once they are answered: leave out delay and at")
        inputs += [Input(handle.queue.name, handle.id) for handle in call.options.awaited]
        for queue, other in inputs:
            if queue != self.name:
                raise ConfigurationError(
                    f"the task {other} is of the queue {queue}: a task waits for tasks of its own queue, {self.name}"
                )
            if other == id:
                raise ConfigurationError(f"the task {id} would wait for itself")
        return tuple(dict.fromkeys(other for _, other in inputs))

    def run_sync(self, call: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of this queue, or of one of its handles, in a background thread; return its result.

        Raises ConfigurationError in a running event loop, which it would block.
        """
        return self._background.run(call, *args, **kwargs)

    async def close(self) -> None:
        """Close the connections opened here; later calls open new ones."""
        await self.transport.close()

    def close_sync(self) -> None:
        """Close the connections of the calls that end in _sync, which then end too."""
        self._background.close()

    def worker(self, concurrency: int = POOL_DEFAULTS.concurrency, **options: Any) -> FunctionWorker:
        """Return a worker on this queue, used as a WorkerPool is: `async with queue.worker(): ...`.

        `options` are those of FunctionWorker. Raises ConfigurationError.
        """
        return FunctionWorker(self, concurrency, **options)

    async def serve(self, concurrency: int = POOL_DEFAULTS.concurrency, **options: Any) -> bool:
        """Run a worker as a program: `asyncio.run(queue.serve())`. Returns and raises as WorkerPool.serve does."""
        return await self.worker(concurrency, **options).serve()

    def testing(self, resources: Any = None) -> Testing:
        """Return a context manager in which submitted tasks run at once, in this process and without a server.

        Retries and errors are as in life, without delays. `with` has the functions find `resources`; `async with`
        starts the lifespan, if `resources` is None.
        """
        return Testing(self, resources)


def _unique(call: Call[Any]) -> Unique:
    """Return the way in which a call is unique."""
    unique, function = call.options.unique, call.function
    if unique is False:
        return Unique()
    arguments = function.signature.complete(call.arguments["args"], call.arguments["kwargs"])
    digest = sha256(json.dumps([function.name, arguments], sort_keys=True).encode()).hexdigest()
    return Unique(digest, 0 if unique is True else math.ceil(seconds_of(unique) * 1000))
