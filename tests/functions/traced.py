"""A traced queue, for a worker that is a process of its own: it writes its spans to a file, a line each."""

from __future__ import annotations

import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from redis_worker import Retry, TaskQueue, current_task
from redis_worker.tracing import Tracing

queue = TaskQueue(
    os.environ.get("SHOP_URL", "redis://localhost"),
    os.environ.get("SHOP_QUEUE", "shop"),
    results=os.environ.get("SHOP_RESULTS", "shop:results"),
)


@queue.task(retries=1, retry_backoff=0.01)
async def charge(order: int) -> str:
    """Return the id of the trace, at the second attempt."""
    if current_task().attempt == 1:
        raise Retry(f"order {order}")
    return format(trace.get_current_span().get_span_context().trace_id, "032x")


@queue.lifespan
async def resources():
    """Write to the file while the worker runs."""
    with Path(os.environ["SHOP_SPANS"]).open("a", buffering=1) as file:
        exporter = ConsoleSpanExporter(out=file, formatter=lambda span: f"{span.to_json(indent=None)}\n")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        yield
        provider.shutdown()


provider = TracerProvider()
Tracing(provider).instrument(queue)
