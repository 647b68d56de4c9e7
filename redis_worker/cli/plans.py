"""What commands on a file share: its options, and how what would run is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from redis_worker.cli.options import option, text
from redis_worker.vocabulary.text import visible

if TYPE_CHECKING:
    from redis_worker.file.plan import JobPart, Part, Plan, PoolPart, TopicsPart
    from redis_worker.service.routing import Route
    from redis_worker.vocabulary.processor import Declaration

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = (("day", 86_400), ("h", 3600), ("min", 60), ("s", 1))


class _Names(click.types.StringParamType):
    """Names with commas between them; in the environment as on the command line."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:  # type: ignore[override]
        if isinstance(value, list):
            return value
        return [text(name).strip() for name in super().convert(value, param, ctx).split(",")]

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv] if rv else []


def _joined(context: click.Context, parameter: click.Parameter, value: tuple[list[str], ...]) -> tuple[str, ...]:  # noqa: ARG001 - click's signature
    return tuple(name for names in value for name in names)


def file_argument(function: F) -> F:
    """`FILE`: the argument `file`."""
    return click.argument("file", default="workers.toml", envvar="REDIS_WORKER_CONFIG")(function)


def plan_options(function: F) -> F:
    """`FILE`, `--only` and `--except`: the arguments `file`, `only` and `without`."""
    many: dict[str, Any] = {"type": _Names(), "multiple": True, "metavar": "NAME", "callback": _joined}
    what = "parts, topics or kinds (pools, topics, daemons, cron), with commas; may be repeated."
    for decorate in (
        option("--except", "without", help=f"Leave these out: {what}", **many),
        option("--only", help=f"Run only these, whatever the file says itself: {what}", **many),
        file_argument,
    ):
        function = decorate(function)
    return function


def file_url_option(function: F) -> F:
    """`-u/--url`, which goes before the file; REDIS_URL and its companions come after it, and need no option."""
    return option(
        "-u",
        "--url",
        envvar="REDIS_WORKER_SERVE_URL",
        metavar="URL",
        help="Where Redis is, in place of [redis] url; or where Handlers are to work. Default: the environment.",
    )(function)


def no_file_options(place: str, only: Sequence[str], without: Sequence[str], watch: bool) -> None:
    """See that no option is given that is for files only. Raises click.UsageError."""
    for name, given in (("--only", only), ("--except", without), ("--watch", watch)):
        if given:
            raise click.UsageError(f"{name} is for a file; {place} is a worker declared in Python")


def describe(plan: Plan) -> Iterator[str]:
    """What would run, when jobs are next due, and what does not run, a line each."""
    if plan.mode is not None:
        yield f'mode = "{plan.mode}": {_MODES[plan.mode]}'
    if not plan.parts:
        yield f"{plan.name}: nothing would run"
    else:
        yield f"{plan.name}: these would run, in this order"
        yield from columns([row for part in plan.parts for row in (described(part), *_handlers(part))])
    if plan.http is not None:
        secured = "" if plan.http.token is None else ", with a token"
        yield f"HTTP would be answered on {plan.http.host}, port {plan.http.port}{secured}"
    if plan.left_out:
        yield "these would not"
        yield from columns([[name, reason] for name, reason in plan.left_out])


_MODES = {
    "standalone": "it runs as a service of its own, and not inside a host application",
    "embedded": "it runs inside a host application, and `redis-worker serve` does not run it",
}


def described(part: Part) -> list[str]:
    """The kind of a part, its name, and what it does."""
    from redis_worker.file.plan import DaemonPart, JobPart, PoolPart, TopicsPart

    match part:
        case PoolPart():
            cells = ["pool", part.name, _pool(part)]
        case TopicsPart():
            cells = ["topics", part.name, _topics(part)]
        case DaemonPart():
            cells = ["daemon", part.name, part.run]
        case JobPart():
            cells = ["cron job", part.name, _job(part)]
    count = part.supervision.processes
    if count is not None:
        cells[2] += f", in {count} process{'es' * (count != 1)} of its own"
    return cells


def _handlers(part: Part) -> Iterator[list[str]]:
    """A row for each handler of `part`, with what its decorator declares and the file says."""
    from redis_worker.file.plan import TopicsPart
    from redis_worker.service.handlers import Handlers
    from redis_worker.supervisor.wiring import add_handlers

    if isinstance(part, TopicsPart):
        handlers = Handlers()
        add_handlers(handlers, part)
        yield from (["", "", told_route(route)] for route in handlers.routes())


def told_route(route: Route) -> str:
    """Return the topics of a route, and how its messages are handled."""
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
    from redis_worker.broker.connection.address import mask
    from redis_worker.registry import find_processor
    from redis_worker.vocabulary.processor import declaration_of

    declared = declaration_of(
        find_processor(part.processor), timeout=part.options.get("timeout"), retries=part.options.get("retries")
    )
    how = ", ".join([part.processor, f"{part.concurrency} at once", *_trying(declared)])
    return f"{part.input_key} -> {part.output_key}, {how}, on {mask(part.url)}"


def _topics(part: TopicsPart) -> str:
    from redis_worker.broker.connection.address import mask

    return f"{', '.join(topic.pattern for topic in part.topics)}, on {mask(part.url)}"


def _job(part: JobPart) -> str:
    from redis_worker.cron.settings import declared_by
    from redis_worker.registry import find_function

    settings = part.settings
    if settings.push is not None or settings.job is None:
        what = f"a task for {settings.push.input}" if settings.push else ""
    else:
        what = ", ".join([settings.job, *_trying(declared_by(settings, find_function("job", settings.job)))])
    return f"{settings.schedule} ({settings.timezone}): {what}, next {next_firing(part, datetime.now(UTC))}"


def next_firing(part: JobPart, now: datetime) -> str:
    """When a job is due next, by the clocks of its zone, and how long that is from `now`."""
    from redis_worker.cron.schedule import Schedule

    due = Schedule(part.settings.schedule, part.settings.timezone).next(now)
    return f"{due.isoformat(' ', 'seconds')}, in {_span((due - now).total_seconds())}"


def _span(seconds: float) -> str:
    """A length of time by its two largest units."""
    rest, said = max(1, round(seconds)), list[str]()
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        if count or said:
            said.append(f"{count} {unit}{'s' * (unit == 'day' and count != 1)}" if count else "")
    return " ".join(part for part in said[:2] if part)


def columns(rows: list[list[str]]) -> Iterator[str]:
    """Rows of texts, aligned and indented, without what a terminal would obey."""
    clean = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
