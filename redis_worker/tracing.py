"""Spans of OpenTelemetry for submissions and runs, joined by the member `traceparent` of payloads (extra `otel`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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

    def instrument(self, queue: TaskQueue) -> None:
        """Have a queue make a span of each submission and of each run; call it once, before its worker starts."""

        @contextmanager
        def submission(calls: Sequence[Call[Any]]) -> Iterator[Mapping[str, Any]]:
            names = {call.function.name for call in calls}
            attributes = _attributes("send", queue.name) | {"messaging.batch.message_count": len(calls)}
            title = f"send {names.pop() if len(names) == 1 else queue.name}"
            with self._tracer.start_as_current_span(title, kind=SpanKind.PRODUCER, attributes=attributes):
                members: dict[str, Any] = {}
                _CONTEXT.inject(members)
                yield members

        queue.submitting(submission)
        queue.middleware(self.around)

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
