"""Spans of OpenTelemetry for submissions and runs, joined by the member `traceparent` of payloads (extra `otel`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from redis_worker.broker.client.publisher import Publisher
from redis_worker.broker.client.sync_client import SyncPublisher, SyncTaskClient
from redis_worker.broker.client.task_client import TaskClient
from redis_worker.engine.middleware import CallNext, TaskCall
from redis_worker.functions.function import Call
from redis_worker.functions.queue import TaskQueue
from redis_worker.vocabulary.version import __version__

try:
    from opentelemetry.trace import SpanKind, get_tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    from redis_worker.vocabulary.errors import ConfigurationError

    raise ConfigurationError(
        "tracing needs the extra `otel` (opentelemetry-api is missing): pip install 'redis-worker[otel]'"
    ) from None

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_CONTEXT = TraceContextTextMapPropagator()


class Tracing:
    """Spans by one provider: `around` is a middleware for runs, `instrument` adds it and spans of submissions.

    Attributes are those of the semantic conventions for messaging
    (https://opentelemetry.io/docs/specs/semconv/messaging/), and `redis_worker.attempt`.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """`provider` makes the spans; None for the global one, which may be set later."""
        self._tracer = get_tracer("redis_worker", __version__, provider)

    def instrument(self, client: TaskQueue | TaskClient | SyncTaskClient | Publisher | SyncPublisher) -> None:
        """Have a queue make a span of each submission and of each run; call it once, before its worker starts.

        A client or a publisher makes spans of submissions; the workers of its tasks or messages need `around`.
        """
        if not isinstance(client, TaskQueue):
            client.submitting(self._submission)
            return

        def submission(calls: Sequence[Call[Any]]) -> AbstractContextManager[Mapping[str, Any]]:
            names = {call.function.name for call in calls}
            return self._submission(client.name, len(calls), names.pop() if len(names) == 1 else None)

        client.submitting(submission)
        client.middleware(self.around)

    @contextmanager
    def _submission(self, queue: str, count: int, name: str | None = None) -> Iterator[Mapping[str, Any]]:
        attributes = _attributes("send", queue) | {"messaging.batch.message_count": count}
        with self._tracer.start_as_current_span(f"send {name or queue}", kind=SpanKind.PRODUCER, attributes=attributes):
            members: dict[str, Any] = {}
            _CONTEXT.inject(members)
            yield members

    async def around(self, task: TaskCall, call_next: CallNext) -> Any:
        """Run the task in a span of its own; it is the child of its submission's span, if the payload names one."""
        members = task.members
        carrier = {name: members[name] for name in _CONTEXT.fields if isinstance(members.get(name), str)}
        with self._tracer.start_as_current_span(
            f"process {task.name}",
            context=_CONTEXT.extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes=_attributes("process", task.queue)
            | {"messaging.message.id": task.id, "redis_worker.attempt": task.attempt},
        ):
            return await call_next(task)


def _attributes(operation: str, queue: str) -> dict[str, str | int]:
    return {
        "messaging.system": "redis_worker",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": queue,
    }
