"""The keys of each table of a file, and the kinds of their values."""

from __future__ import annotations

from dataclasses import fields
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from redis_worker.cron.settings import Catchup, Overlap
from redis_worker.file.document import TableKeys
from redis_worker.file.plan import Mode, Restart
from redis_worker.file.values import (
    Kind,
    choice,
    flag,
    got,
    json_value,
    name,
    names,
    seconds,
    secret,
    table,
    text,
    texts,
    url,
    whole,
    whole_seconds,
)
from redis_worker.kafka.settings import check_brokers
from redis_worker.service.kafka_options import KafkaOptions, Order
from redis_worker.service.options import UNDECLARED, PoolOptions, WorkerOptions
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import Execution

KINDS: Final = ("pools", "tasks", "topics", "kafka", "daemons", "cron")
"""The tables that contain entries."""

TABLES: Final = ("worker", "redis", "http", *KINDS)

_FOR_SERVE = "not a key of the file: an option of `redis-worker serve`, for all parts"
_ELSEWHERE = {
    "http": "one HTTP server answers for all parts, see the table [http]",
    "input_key": "unknown key, did you mean input?",
    "output_key": "unknown key, did you mean output?",
    **dict.fromkeys(("log_level", "log_format", "verbose", "watch", "embedded"), _FOR_SERVE),
}


def _kinds_of(options: type[PoolOptions | KafkaOptions], **special: Kind) -> dict[str, Kind]:
    """Return the kinds of the fields of `options`, which checks the ranges itself."""
    hints = get_type_hints(options)
    return {
        field.name: _checked(options, field.name, special.get(field.name) or _kind_of(hints[field.name]))
        for field in fields(options)
    }


def _kind_of(hint: Any) -> Kind:
    if float in get_args(hint):  # a Duration
        return seconds()
    if isinstance(hint, UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is Literal:
        return choice(*get_args(hint))
    kinds: dict[Any, Kind] = {bool: flag, int: whole(), str: text}
    return kinds[hint]


def _checked(options: type[PoolOptions | KafkaOptions], key: str, kind: Kind) -> Kind:
    """Return `kind` followed by the check of `options`."""

    def read(value: Any) -> Any:
        found = kind(value)
        try:
            options(**{key: found})
        except ConfigurationError as error:
            raise ValueError(got(str(error).removeprefix(f"{key} "), value)) from None
        return found

    return read


def _order(value: Any) -> Any:
    """Return an order; a boolean stands for one, see KafkaOptions."""
    return flag(value) if isinstance(value, bool) else choice(*get_args(Order))(value)


def _brokers(value: Any) -> str:
    """Return "host:port,host:port" of that text, or of a list."""
    return check_brokers(",".join(texts(value)))


def _columns(value: Any) -> Any:
    """Return a list of columns, or a table of their types."""
    return table(value) if isinstance(value, dict) else texts(value)


def _priorities(value: Any) -> Any:
    """Return a list of names, a table of weights, or a text that stands for either."""
    return table(value) if isinstance(value, dict) else names(value) if isinstance(value, list) else text(value)


def _sink(value: Any) -> Any:
    """Return a table, or the name of an object."""
    return table(value) if isinstance(value, dict) else text(value)


_RETRYING: dict[str, Kind] = {
    "timeout": seconds(above=0),
    "retries": whole(0),
    "retry_backoff": seconds(above=0),
    "retry_backoff_max": seconds(above=0),
}
RESTARTING: Final[dict[str, Kind]] = {
    "restart": choice(*get_args(Restart)),
    "max_restarts": whole(0),
    "restart_window": seconds(above=0),
    "restart_backoff": seconds(above=0),
    "restart_backoff_max": seconds(above=0),
    "hang_timeout": seconds(above=0),
}
"""TableKeys of a part, and of [worker] as defaults for all parts."""

SUPERVISION: Final[dict[str, Kind]] = {
    **RESTARTING,
    "critical": flag,
    "processes": whole(1),
    "shutdown_timeout": seconds(least=0),
}
"""The fields of Supervision."""

POOL_OPTIONS: Final = _kinds_of(PoolOptions, result_ttl=whole_seconds, priorities=_priorities) | _RETRYING

WORKER: Final = TableKeys(
    {
        "enable": flag,
        "mode": choice(*get_args(Mode)),
        "name": name,
        "only": names,
        "shutdown_timeout": SUPERVISION["shutdown_timeout"],
        "connect_timeout": POOL_OPTIONS["connect_timeout"],
        **RESTARTING,
    }
)
REDIS: Final = TableKeys({"url": url})
HTTP: Final = TableKeys({"enable": flag, "host": text, "port": whole(0, 65535), "token": secret, "origins": texts})
ENABLE: Final = TableKeys({"enable": flag})
"""The keys of [pools] itself."""

DAEMONS: Final = TableKeys({"enable": flag, "jobs": names})
"""The keys of [daemons] itself."""

POOL: Final = TableKeys(
    {
        "enable": flag,
        "input": text,
        "output": text,
        "processor": text,
        "parser": text,
        "lifespan": text,
        "url": url,
        **POOL_OPTIONS,
        **SUPERVISION,
    },
    ("input", "output", "processor"),
    _ELSEWHERE,
)
TASK_OPTIONS: Final = {key: kind for key, kind in POOL_OPTIONS.items() if key not in UNDECLARED}
TASKS: Final = TableKeys(
    {"enable": flag, "queue": text, "url": url, **TASK_OPTIONS, **SUPERVISION},
    ("queue",),
    {
        "http": _ELSEWHERE["http"],
        **dict.fromkeys(UNDECLARED, "each function, or their queue, declares it"),
        "forward": "functions wait for others instead",
    },
)
TOPIC_WORKER_OPTIONS: Final = tuple(option.name for option in fields(WorkerOptions) if option.name not in SUPERVISION)
TOPICS: Final = TableKeys(
    {
        "enable": flag,
        "url": url,
        "lifespan": text,
        **{key: POOL_OPTIONS[key] for key in TOPIC_WORKER_OPTIONS},
        **SUPERVISION,
    },
    (),
    _ELSEWHERE,
)
TOPIC: Final = TableKeys(
    {
        "enable": flag,
        "handler": text,
        "concurrency": whole(1),
        "execution": choice(*get_args(Execution)),
        **_RETRYING,
        "rate": text,
        "idempotent": flag,
        "remember": seconds(above=0),
        "batch": table,
    },
    ("handler",),
)
BATCH: Final = TableKeys({"size": whole(1), "within": seconds(least=0)})
KAFKA_OPTIONS: Final = {
    key: kind
    for key, kind in _kinds_of(KafkaOptions, ordered=_order).items()
    if key not in ("batch", "size", "within", "shutdown_timeout")  # `batch` is a table, the last one of the supervision
} | _RETRYING
KAFKA: Final = TableKeys(
    {
        "enable": flag,
        "brokers": _brokers,
        "group": text,
        "properties": table,
        "url": url,
        **{key: KAFKA_OPTIONS[key] for key in ("wait", "connect_timeout")},
    }
)
"""The keys of [kafka] itself: defaults of its parts."""

KAFKA_PART: Final = TableKeys(
    {
        **KAFKA.kinds,
        "topics": texts,
        "handler": text,
        "decode": text,
        "batch": table,
        "sink": _sink,
        "offsets": choice("kafka", "postgres"),
        **KAFKA_OPTIONS,
        **SUPERVISION,
    },
    ("topics", "handler"),
    {"http": _ELSEWHERE["http"]},
)
SINK: Final = TableKeys(
    {
        "type": choice("postgres"),
        "dsn": text,
        "table": text,
        "key": texts,
        "columns": _columns,
        "update": names,
        "version": text,
        "batch_size": whole(1),
        "flush_after": seconds(least=0),
        "timeout": seconds(above=0),
        "offsets_table": text,
    },
    ("table", "key"),
)
DAEMON: Final = TableKeys({"enable": flag, "run": text, "arguments": table, **SUPERVISION}, ("run",))
CRON: Final = TableKeys(
    {"enable": flag, "timezone": text, "jobs": names, "url": url, "shutdown_timeout": SUPERVISION["shutdown_timeout"]}
)
JOB: Final = TableKeys(
    {
        "enable": flag,
        "schedule": text,
        "timezone": text,
        "job": text,
        "lifespan": text,
        "push": table,
        "arguments": table,
        "url": url,
        "overlap": choice(*get_args(Overlap)),
        "catchup": choice(*get_args(Catchup)),
        "catchup_window": seconds(least=0),
        **_RETRYING,
    },
    ("schedule",),
)
PUSH: Final = TableKeys({"input": text, "task": json_value}, ("input", "task"))
