"""The plan: the valid settings of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from redis_worker.cron.settings import JobSettings
from redis_worker.file.substitution import Variables
from redis_worker.service.options import POOL_DEFAULTS
from redis_worker.vocabulary.duration import seconds_of

Mode = Literal["standalone", "embedded"]
Restart = Literal["always", "on-failure", "never"]
# The number of left-out parts that a message names.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Supervision:
    """The supervision settings of a part. All times are in seconds."""

    restart: Restart = "always"
    critical: bool = False
    """If the part is given up, end the process instead of continuing with the other parts."""
    max_restarts: int = 10
    """Failures allowed within `restart_window`; after one more the part is given up as failed."""
    restart_window: float = 600.0
    restart_backoff: float = 1.0
    """The first pause before a restart; it doubles with each failure, and is reset after a long run."""
    restart_backoff_max: float = 60.0
    shutdown_timeout: float = seconds_of(POOL_DEFAULTS.shutdown_timeout)
    """The time limit for stopping."""
    processes: int | None = None
    """The number of processes of its own; None runs it in the supervisor's event loop."""
    hang_timeout: float = 30.0
    """Replace a process whose event loop has not answered for so long."""
    reports: bool = False
    """Each process of a pool logs its start, its progress and its end."""
    awaits_change: bool = False
    """After a final failure the part, and the supervisor with it, waits for another revision to replace it."""
    revision: int = 0
    """Another number makes it another part, which a reload starts in place of this one."""


@dataclass(frozen=True, slots=True)
class PoolPart:
    """A worker pool."""

    name: str
    url: str = field(repr=False)
    input_key: str
    output_key: str
    processor: str
    parser: str = "list"
    concurrency: int = POOL_DEFAULTS.concurrency
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of PoolOptions; `shutdown_timeout` is taken from the supervision."""
    supervision: Supervision = Supervision()
    lifespan: str | None = None
    """`module:function`."""


@dataclass(frozen=True, slots=True)
class TasksPart:
    """A worker on a queue of functions."""

    name: str
    queue: str
    """`module:name` of a TaskQueue."""
    url: str | None = field(default=None, repr=False)
    """The Redis URL; None for that of the queue."""
    concurrency: int = POOL_DEFAULTS.concurrency
    options: dict[str, Any] = field(default_factory=dict)
    """Options of FunctionWorker; `shutdown_timeout` is taken from the supervision."""
    supervision: Supervision = Supervision()


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """A handler with its topic or pattern."""

    pattern: str
    handler: str
    """`module:function`."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options of Handlers.handler, or of Handlers.batch_handler."""
    batch: bool = False


@dataclass(frozen=True, slots=True)
class TopicsPart:
    """All topics of the file, run by one topic worker."""

    name: str
    url: str = field(repr=False)
    topics: tuple[TopicSettings, ...]
    options: dict[str, Any] = field(default_factory=dict)
    """Options of TopicWorker; `shutdown_timeout` is taken from the supervision."""
    supervision: Supervision = Supervision()
    lifespan: str | None = None
    """`module:function`."""


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """A table of PostgreSQL that rows are written to."""

    dsn: str = field(repr=False)
    table: str
    key: list[str]
    """The columns that identify a row."""
    options: dict[str, Any] = field(default_factory=dict)
    """Other arguments of UpsertSink."""


@dataclass(frozen=True, slots=True)
class KafkaPart:
    """A Kafka worker."""

    name: str
    brokers: str
    topics: list[str]
    group: str
    handler: str
    """`module:function`."""
    decode: str | None = None
    """`module:name` of a function or a type."""
    sink: SinkSettings | str | None = None
    """A table, or `module:name` of a Sink or of a function that returns one."""
    url: str | None = field(default=None, repr=False)
    """The Redis URL for a dead-letter list; None without such a list."""
    properties: dict[str, Any] = field(default_factory=dict, repr=False)
    """Properties of librdkafka."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of KafkaOptions; `shutdown_timeout` is taken from the supervision."""
    supervision: Supervision = Supervision()


@dataclass(frozen=True, slots=True)
class DaemonPart:
    """A coroutine function or plain function that takes a stop event and runs until it is set."""

    name: str
    run: str
    """`module:function`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the call."""
    supervision: Supervision = Supervision()


@dataclass(frozen=True, slots=True)
class JobPart:
    """A cron job."""

    name: str
    url: str = field(repr=False)
    settings: JobSettings
    supervision: Supervision = Supervision()


Part: TypeAlias = PoolPart | TasksPart | TopicsPart | KafkaPart | DaemonPart | JobPart


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The address, the token and the origins of the HTTP server."""

    host: str = "127.0.0.1"
    port: int = 8084
    token: str | None = field(default=None, repr=False)
    """Required for every request beyond the health checks; None requires no token."""
    origins: Sequence[str] = ()
    """Origins of foreign pages that may connect to `/ws`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a file, without its disabled parts."""

    path: str
    name: str
    url: str | None = field(repr=False)
    """The Redis URL; None if the file has none and no part needs it."""
    parts: tuple[Part, ...]
    """In the order of the file."""
    http: HttpSettings | None = None
    enable: bool = True
    mode: Mode | None = None
    """Where the plan may run; None allows both."""
    connect_timeout: float = seconds_of(POOL_DEFAULTS.connect_timeout)
    """How long to wait for Redis at start; 0 waits for ever."""
    shutdown_timeout: float = seconds_of(POOL_DEFAULTS.shutdown_timeout)
    """The time limit for stopping all parts."""
    left_out: tuple[tuple[str, str], ...] = ()
    """The parts that do not run: their names in the file, and the reasons."""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """The line of each key, by its path as TOML writes it: `pools.fibonacci.input`."""
    variables: Variables = field(default_factory=dict, compare=False, repr=False)
    """The variables in the file; messages never quote their values."""

    def why_not_here(self, *, standalone: bool) -> str | None:
        """Return why the plan does not run in this process, `standalone` or a host application; None if it runs."""
        if not self.enable:
            return f"{self.path}: worker.enable is false: nothing runs"
        if self.mode == "standalone" and not standalone:
            return f'{self.path}: worker.mode is "standalone": nothing runs here; run redis-worker serve {self.path}'
        if self.mode == "embedded" and standalone:
            return f'{self.path}: worker.mode is "embedded": nothing runs here, only in the application that embeds it'
        return None

    def why_nothing(self, *, standalone: bool) -> str | None:
        """Return why this process would run no part; None if it runs one."""
        if (why := self.why_not_here(standalone=standalone)) is not None:
            return why
        if self.parts:
            return None
        reasons = [f"{name} ({reason})" for name, reason in self.left_out]
        more = f" and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        left_out = f"; left out: {', '.join(reasons[:_SHOWN])}{more}" if reasons else "; the file describes no part"
        return f"{self.path}: nothing would run{left_out}"
