"""The description of a plan, in lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from redis_worker.broker.connection.address import mask
from redis_worker.cron.schedule import Schedule
from redis_worker.cron.settings import declared_by
from redis_worker.file.plan import (
    DaemonPart,
    JobPart,
    KafkaPart,
    Part,
    Plan,
    PoolPart,
    SinkSettings,
    TasksPart,
    TopicsPart,
)
from redis_worker.file.queues import function_worker_of
from redis_worker.registry import find_function, find_processor
from redis_worker.service.handlers import Handlers
from redis_worker.service.kafka_options import KafkaOptions
from redis_worker.service.routing import Route
from redis_worker.supervisor.wiring import add_handlers
from redis_worker.vocabulary.processor import Declaration, declaration_of
from redis_worker.vocabulary.text import visible

_UNITS = (("day", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def describe(plan: Plan) -> Iterator[str]:
    """Yield a line for each part that would run, with the next instant of jobs, and for each part left out."""
    if plan.mode is not None:
        yield f'mode = "{plan.mode}": {_MODES[plan.mode]}'
    if not plan.parts:
        yield f"{plan.name}: nothing would run"
    else:
        yield f"{plan.name}: these would run, in this order"
        yield from columns([row for part in plan.parts for row in (described(part), *_handlers(part))])
    if plan.http is not None:
        secured = "" if plan.http.token is None else ", with a token"
        yield f"it would serve HTTP on {plan.http.host}, port {plan.http.port}{secured}"
    if plan.left_out:
        yield "these would not run"
        yield from columns([[name, reason] for name, reason in plan.left_out])


_MODES = {
    "standalone": "runs as a separate service, not inside a host application",
    "embedded": "runs inside a host application; `redis-worker serve` does not run it",
}


def described(part: Part) -> list[str]:
    """Return the kind, the name and the description of a part."""
    match part:
        case PoolPart():
            cells = ["pool", part.name, _pool(part)]
        case TasksPart():
            cells = ["tasks", part.name, function_worker_of(part, **part.options).summary]
        case TopicsPart():
            cells = ["topics", part.name, _topics(part)]
        case KafkaPart():
            cells = ["kafka", part.name, _kafka(part)]
        case DaemonPart():
            cells = ["daemon", part.name, part.run]
        case JobPart():
            cells = ["cron job", part.name, _job(part)]
    count = part.supervision.processes
    if count is not None:
        cells[2] += f", in {count} process{'es' * (count != 1)} of its own"
    return cells


def _handlers(part: Part) -> Iterator[list[str]]:
    """Yield a row for each handler of `part`, with the settings of its decorator and of the file."""
    if isinstance(part, TopicsPart):
        handlers = Handlers()
        add_handlers(handlers, part)
        yield from (["", "", describe_route(route)] for route in handlers.routes())


def describe_route(route: Route) -> str:
    """Return the topics, the handler and the settings of a route."""
    how = [route.declaration.name, f"{route.concurrency} at once", *_trying(route.declaration)]
    if route.batching is not None:
        how.insert(1, f"in batches of up to {route.batching.size} within {route.batching.within:g} s")
    if not route.declaration.retries:
        how.append("no retries")
    if route.remember:
        how.append(f"idempotent for {_span(route.remember)}")
    return f"{route.pattern}: {', '.join(how)}"


def _trying(declared: Declaration) -> Iterator[str]:
    if declared.timeout is not None:
        yield f"timeout {declared.timeout:g} s"
    if declared.retries:
        yield f"{declared.retries} {'retry' if declared.retries == 1 else 'retries'}"


def _pool(part: PoolPart) -> str:
    declared = declaration_of(
        find_processor(part.processor), timeout=part.options.get("timeout"), retries=part.options.get("retries")
    )
    how = ", ".join([part.processor, f"{part.concurrency} at once", *_trying(declared)])
    return f"{part.input_key} -> {part.output_key}, {how}, on {mask(part.url)}"


def _topics(part: TopicsPart) -> str:
    return f"{', '.join(topic.pattern for topic in part.topics)}, on {mask(part.url)}"


def _kafka(part: KafkaPart) -> str:
    options = KafkaOptions(**part.options)
    declared = declaration_of(
        find_function("handler", part.handler), "handler", timeout=options.timeout, retries=options.retries
    )
    how = [part.handler, f"{options.concurrency} at once", *_trying(declared)]
    if options.ordered != "none":
        how.append(f"ordered by {options.ordered}")
    target = part.sink.table if isinstance(part.sink, SinkSettings) else part.sink
    flow = ", ".join(part.topics) + (f" -> {target}" if target else "")
    return f"{flow}, {', '.join(how)}, group {part.group}, on {part.brokers}"


def _job(part: JobPart) -> str:
    settings = part.settings
    if settings.push is not None or settings.job is None:
        action = f"a task for {settings.push.input}" if settings.push else ""
    else:
        action = ", ".join([settings.job, *_trying(declared_by(settings, find_function("job", settings.job)))])
    return f"{settings.schedule} ({settings.timezone}): {action}, next {next_firing(part, datetime.now(UTC))}"


def next_firing(part: JobPart, now: datetime) -> str:
    """Return the next instant of a job, in its time zone, and the time until then."""
    due = Schedule(part.settings.schedule, part.settings.timezone).next(now)
    return f"{due.isoformat(' ', 'seconds')}, in {_span((due - now).total_seconds())}"


def _span(seconds: float) -> str:
    """Return a duration in its two largest units."""
    rest, parts = max(1, round(seconds)), list[str]()
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        if count or parts:
            parts.append(f"{count} {unit}{'s' * (unit == 'day' and count != 1)}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def columns(rows: list[list[str]]) -> Iterator[str]:
    """Yield rows of text, aligned and indented, with control characters escaped."""
    clean = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
