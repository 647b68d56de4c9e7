"""The check of the processors, handlers, jobs, schedules and extras that a plan names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from redis_worker.cron.function import Function
from redis_worker.cron.report import Report
from redis_worker.cron.schedule import Schedule
from redis_worker.cron.settings import ATTEMPT_OPTIONS, declared_by
from redis_worker.file.daemon_signature import daemon_problem
from redis_worker.file.document import dotted
from redis_worker.file.kafka_parts import inspection, kafka_worker_of, settings_of, sink_of
from redis_worker.file.kafka_servers import ask
from redis_worker.file.lines import KeyPath
from redis_worker.file.mistakes import NO_LINE, FileMistakes, Mistake
from redis_worker.file.plan import (
    DaemonPart,
    JobPart,
    KafkaPart,
    Part,
    Plan,
    PoolPart,
    SinkSettings,
    TasksPart,
    TopicSettings,
    TopicsPart,
)
from redis_worker.file.queues import function_worker_of
from redis_worker.file.substitution import unquoted
from redis_worker.registry import find_function, find_lifespan, find_object, find_parser, find_processor
from redis_worker.service.declared_options import Declared, inheriting
from redis_worker.service.handlers import Handlers
from redis_worker.service.pool import WorkerPool
from redis_worker.service.topic_worker import TopicWorker
from redis_worker.vocabulary.errors import ConfigurationError

# Keys of a part that may be set for all parts of its kind.
_SHARED = ("timezone", "brokers", "group", "properties")
# A DSN that is right, to find out if another one is at fault.
_ANY_DSN = "postgresql://localhost/db"
# The time limit for the servers of Kafka parts, in seconds.
_PATIENCE = 5.0

_Problem = tuple[KeyPath, str]
"""The path at fault, and the message."""


def resolve(plan: Plan) -> None:
    """Import and check every function that the plan names; start and connect nothing. Raises FileMistakes.

    The modules are imported exactly as when the plan runs.
    """
    problems = [problem for part in plan.parts for problem in _problems(part)]
    if plan.http is not None:
        problems += _http_problems()
    if problems:
        raise FileMistakes(plan.path, [_mistake(plan, path, text) for path, text in problems])


async def server_mistakes(plan: Plan, timeout: float = _PATIENCE) -> list[Mistake]:
    """Ask the servers of the Kafka parts, each for `timeout` seconds; return what they object to, by the key's line."""
    answers = await asyncio.gather(*(ask(part, timeout) for part in plan.parts if isinstance(part, KafkaPart)))
    parts = [part for part in plan.parts if isinstance(part, KafkaPart)]
    return [
        _mistake(plan, ("kafka", part.name, *answer.key), str(answer.error))
        for part, of_part in zip(parts, answers, strict=True)
        for answer in of_part
        if answer.error is not None
    ]


def resolved(read: Callable[[], Plan]) -> Plan:
    """Return the plan of `read`, resolved. Raises FileMistakes with the mistakes of both steps."""
    try:
        plan = read()
    except FileMistakes as error:
        if error.rest is None:
            raise
        try:
            resolve(error.rest)
        except FileMistakes as more:
            raise FileMistakes(error.name, [*error.mistakes, *more.mistakes]) from None
        raise
    resolve(plan)
    return plan


def _problems(part: Part) -> Iterator[_Problem]:
    match part:
        case PoolPart():
            yield from _pool_problems(part)
        case TasksPart():
            yield from _tasks_problems(part)
        case TopicsPart():
            yield from _topics_problems(part)
        case KafkaPart():
            yield from _kafka_problems(part)
        case DaemonPart():
            yield from _daemon_problems(part)
        case JobPart():
            yield from _check_job(part)


def _mistake(plan: Plan, path: KeyPath, text: str) -> Mistake:
    shared = (path[0], path[-1])
    if len(path) == 3 and path[-1] in _SHARED and dotted(path) not in plan.lines and dotted(shared) in plan.lines:
        path = shared
    where = path
    # The mistake of a missing key has the line of its table.
    while where and dotted(where) not in plan.lines:
        where = where[:-1]
    return Mistake(plan.lines.get(dotted(where), NO_LINE), f"{dotted(path)}: {unquoted(text, path, plan.variables)}")


def _pool_problems(part: PoolPart) -> Iterator[_Problem]:
    table = ("pools", part.name)
    if part.input_key == part.output_key:
        yield (*table, "output"), "the input list and the output hash have the same name"
        return
    found: dict[str, Any] = {}
    for key, find, name in (("processor", find_processor, part.processor), ("parser", find_parser, part.parser)):
        try:
            found[key] = find(name)
        except ConfigurationError as error:
            yield (*table, key), str(error)
    yield from _lifespan_problems((*table, "lifespan"), part.lifespan)
    if len(found) < 2:
        return

    def build(options: Mapping[str, Any]) -> None:
        keys = part.input_key, part.output_key
        WorkerPool(part.url, *keys, found["parser"], found["processor"], part.concurrency, **options)

    yield from _build_problems((*table, "processor"), part.options, build)


def _tasks_problems(part: TasksPart) -> Iterator[_Problem]:
    blamed = ("tasks", part.name, "queue")
    yield from _build_problems(blamed, part.options, lambda options: function_worker_of(part, **options))


def _topics_problems(part: TopicsPart) -> Iterator[_Problem]:
    for topic in part.topics:
        yield from _topic_problems(topic)
    yield from _lifespan_problems(("topics", "lifespan"), part.lifespan)
    yield from _build_problems(("topics",), part.options, lambda options: TopicWorker(part.url, **options))


def _topic_problems(topic: TopicSettings) -> Iterator[_Problem]:
    blamed = ("topics", topic.pattern, "handler")
    try:
        function = find_function("handler", topic.handler)
    except ConfigurationError as error:
        yield blamed, str(error)
        return

    def build(options: Mapping[str, Any]) -> None:
        handler_options = dict(options)
        batch = handler_options.pop("batch", False)
        Handlers().add(topic.pattern, function, inheriting(function, topic.pattern, Declared(batch, handler_options)))

    options = topic.options | ({"batch": True} if topic.batch else {})
    yield from _build_problems(blamed, options, build)


def _kafka_problems(part: KafkaPart) -> Iterator[_Problem]:
    table = ("kafka", part.name)
    problems = [*_named_problems(table, part), *_group_problems(table, part), *_sink_problems(table, part.sink)]
    yield from problems
    if not problems:
        yield from _build_problems(
            (*table, "handler"), part.options, lambda options: kafka_worker_of(replace(part, options=dict(options)))
        )


def _named_problems(table: KeyPath, part: KafkaPart) -> Iterator[_Problem]:
    """Yield an error for each name of `part` that names nothing."""
    for key, find, noun, name in (
        ("handler", find_function, "handler", part.handler),
        ("decode", find_object, "decoder", part.decode),
    ):
        try:
            if name is not None:
                find(noun, name)
        except ConfigurationError as error:
            yield (*table, key), str(error)


def _group_problems(table: KeyPath, part: KafkaPart) -> Iterator[_Problem]:
    """Yield the error in the topics, the properties or the extra, if there is one."""

    def build(options: Mapping[str, Any]) -> None:
        inspection().check_properties(settings_of(replace(part, **{"properties": {}, **options})))

    yield from _build_problems((*table, "topics"), {"properties": part.properties}, build)


def _sink_problems(table: KeyPath, sink: SinkSettings | str | None) -> Iterator[_Problem]:
    if isinstance(sink, SinkSettings):

        def build(settings: Mapping[str, Any]) -> None:
            options = dict(settings)
            sink_of(replace(sink, dsn=options.pop("dsn", _ANY_DSN), options=options))

        yield from _build_problems((*table, "sink", "table"), {"dsn": sink.dsn, **sink.options}, build)
    elif sink is not None:
        yield from _build_problems((*table, "sink"), {}, lambda _: sink_of(sink))


def _daemon_problems(part: DaemonPart) -> Iterator[_Problem]:
    table = ("daemons", part.name)
    try:
        function = find_function("daemon", part.run)
    except ConfigurationError as error:
        yield (*table, "run"), str(error)
        return
    if problem := daemon_problem(part, function):
        yield (*table, "arguments" if part.arguments else "run"), problem


def _check_job(part: JobPart) -> Iterator[_Problem]:
    """Yield the problems of a job's schedule and function."""
    table, settings = ("cron", part.name), part.settings
    yield from _schedule_problems(table, settings.schedule, settings.timezone)
    if settings.job is None:
        return
    try:
        function = find_function("job", settings.job)
    except ConfigurationError as error:
        yield (*table, "job"), str(error)
        return

    def build(options: Mapping[str, Any]) -> None:
        settable: dict[str, Any] = {**dict.fromkeys(ATTEMPT_OPTIONS), **options}
        declared_by(replace(settings, **settable), function)

    options = {key: value for key in ATTEMPT_OPTIONS if (value := getattr(settings, key)) is not None}
    yield from _build_problems((*table, "job"), options, build)
    try:
        Function(settings.job, settings.arguments, settings.timeout, Report(settings.name, None))
    except ConfigurationError as error:
        yield (*table, "arguments" if settings.arguments else "job"), str(error)


def _schedule_problems(table: KeyPath, expression: str, timezone: str) -> Iterator[_Problem]:
    reported = set()
    for key, fields, zone in (("schedule", expression, "UTC"), ("timezone", "* * * * *", timezone)):
        try:
            Schedule(fields, zone)
        except ConfigurationError as error:
            # A missing extra is reported once.
            if str(error) not in reported:
                yield (*table, key), str(error)
            reported.add(str(error))


def _lifespan_problems(path: KeyPath, place: str | None) -> Iterator[_Problem]:
    try:
        find_lifespan(place)
    except ConfigurationError as error:
        yield path, str(error)


def _http_problems() -> Iterator[_Problem]:
    try:
        import redis_worker.http.server  # noqa: F401 - it needs the extra
    except ImportError as error:
        message = f"HTTP and metrics need the extra `web` ({error.name} is missing): pip install 'redis-worker[web]'"
        yield ("http",), message


def _build_problems(
    blamed: KeyPath, options: Mapping[str, Any], build: Callable[[Mapping[str, Any]], object]
) -> Iterator[_Problem]:
    """Yield the error of `build` at the option without which it succeeds, or else at `blamed`."""
    try:
        build(options)
    except ConfigurationError as error:
        table = blamed[:-1] or blamed
        guilty = [key for key in reversed(tuple(options)) if _builds(build, options, key)]
        yield (*table, guilty[0]) if guilty else blamed, str(error)


def _builds(build: Callable[[Mapping[str, Any]], object], options: Mapping[str, Any], without: str) -> bool:
    try:
        build({key: value for key, value in options.items() if key != without})
    except ConfigurationError:
        return False
    return True
