"""What is to run: the settings of a file, read and found right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from redis_worker.cron.settings import JobSettings
from redis_worker.file.substitution import Variables

Mode = Literal["standalone", "embedded"]
Restart = Literal["always", "on-failure", "never"]
# So many of the parts that do not run are named where none runs.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Supervision:
    """How a part is looked after. All times are in seconds."""

    restart: Restart = "always"
    critical: bool = False
    """When it is given up, the process ends, instead of going on with the rest."""
    max_restarts: int = 10
    """So many failures within `restart_window`, and the next one is its last: it is given up as failed."""
    restart_window: float = 600.0
    restart_backoff: float = 1.0
    """The first pause before it is started again; it doubles with each failure, and begins anew after a long life."""
    restart_backoff_max: float = 60.0
    shutdown_timeout: float = 30.0
    """How long it may take to stop."""
    processes: int | None = None
    """In so many processes of its own; None: in the event loop of the supervisor."""
    hang_timeout: float = 30.0
    """A process whose event loop has not answered for so long is replaced."""
    reports: bool = False
    """Each process of a pool logs its beginning, its progress and its end."""
    awaits_change: bool = False
    """When it has failed for good, it waits to be replaced by another revision, and the supervisor with it."""
    revision: int = 0
    """Another number makes it another part, which a reload starts in its place."""


@dataclass(frozen=True, slots=True)
class PoolPart:
    """A worker pool."""

    name: str
    url: str = field(repr=False)
    input_key: str
    output_key: str
    processor: str
    parser: str = "list"
    concurrency: int = 4
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of PoolOptions; its `shutdown_timeout` is that of the supervision."""
    supervision: Supervision = Supervision()


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """A handler, and the topic or pattern it is for."""

    pattern: str
    handler: str
    """`module:function`."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options of Handlers.handler, or of Handlers.batch_handler."""
    batch: bool = False


@dataclass(frozen=True, slots=True)
class TopicsPart:
    """All topics of the file: one topic worker."""

    name: str
    url: str = field(repr=False)
    topics: tuple[TopicSettings, ...]
    options: dict[str, Any] = field(default_factory=dict)
    """Of TopicWorker; its `shutdown_timeout` is that of the supervision."""
    supervision: Supervision = Supervision()


@dataclass(frozen=True, slots=True)
class DaemonPart:
    """A coroutine function, or a plain one, that takes a stop event and runs until it is set."""

    name: str
    run: str
    """`module:function`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Passed on to it by name."""
    supervision: Supervision = Supervision()


@dataclass(frozen=True, slots=True)
class JobPart:
    """A cron job."""

    name: str
    url: str = field(repr=False)
    settings: JobSettings
    supervision: Supervision = Supervision()


Part: TypeAlias = PoolPart | TopicsPart | DaemonPart | JobPart


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where to answer HTTP."""

    host: str = "127.0.0.1"
    port: int = 8084
    token: str | None = field(default=None, repr=False)
    """Who asks for more than the state of health must show it; None: nobody need."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a file says, but for what is disabled in it."""

    path: str
    name: str
    url: str | None = field(repr=False)
    """Where Redis is; None where the file does not say and no part needs it."""
    parts: tuple[Part, ...]
    """In the order of the file."""
    http: HttpSettings | None = None
    enable: bool = True
    mode: Mode | None = None
    """Where it is to run; None: wherever it is asked to."""
    connect_timeout: float = 10.0
    """How long to wait for Redis at start; 0 is for ever."""
    shutdown_timeout: float = 30.0
    """How long all parts together may take to stop."""
    left_out: tuple[tuple[str, str], ...] = ()
    """The parts that do not run, by their names in the file, and why not."""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """Where everything stands in the file, by its path as TOML writes it: `pools.fibonacci.input`."""

    variables: Variables = field(default_factory=dict, compare=False, repr=False)
    """The variables in the file, whose values no message quotes."""

    def why_not_here(self, *, standalone: bool) -> str | None:
        """Why nothing of it runs in this process, which is `standalone` or a host application; None where it does."""
        if not self.enable:
            return f"{self.path}: worker.enable is false: nothing is run"
        if self.mode == "standalone" and not standalone:
            return f'{self.path}: worker.mode is "standalone": nothing is run here; run redis-worker serve {self.path}'
        if self.mode == "embedded" and standalone:
            return f'{self.path}: worker.mode is "embedded": nothing is run here, but in the application that embeds it'
        return None

    def why_nothing(self, *, standalone: bool) -> str | None:
        """Return why this process would run no part at all; None where it runs one."""
        if (why := self.why_not_here(standalone=standalone)) is not None:
            return why
        if self.parts:
            return None
        reasons = [f"{name} ({reason})" for name, reason in self.left_out]
        more = f" and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        left_out = f"; left out: {', '.join(reasons[:_SHOWN])}{more}" if reasons else "; the file describes no part"
        return f"{self.path}: nothing would run{left_out}"
