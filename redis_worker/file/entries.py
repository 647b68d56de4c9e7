"""The entries of a file (pools, topics, Kafka parts, daemons, cron jobs), read and checked one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from redis_worker.file.document import Document, Table, TableKeys
from redis_worker.file.kafka_entries import read_inner
from redis_worker.file.plan import Supervision
from redis_worker.file.schema import (
    BATCH,
    CRON,
    DAEMON,
    DAEMONS,
    ENABLE,
    JOB,
    KAFKA,
    KAFKA_PART,
    KINDS,
    POOL,
    PUSH,
    TASKS,
    TOPIC,
    TOPICS,
)
from redis_worker.file.substitution import Substituted
from redis_worker.file.values import json_value, shown
from redis_worker.file.values import name as check_name
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.message import check_prefix, check_topic

_OWN = {"pools": ENABLE, "tasks": ENABLE, "topics": TOPICS, "kafka": KAFKA, "daemons": DAEMONS, "cron": CRON}
_INNER = {"pools": POOL, "tasks": TASKS, "topics": TOPIC, "kafka": KAFKA_PART, "daemons": DAEMON, "cron": JOB}
# Settings of the outer tables that are tables themselves, and so are no entries.
_TABLES = {"kafka": ("properties",)}
_RETRY, _RESTART = ("retry_backoff", "retry_backoff_max"), ("restart_backoff", "restart_backoff_max")
# Options for running code; a pushed task has none.
_CALL_OPTIONS = ("arguments", "lifespan", "timeout", "retries", *_RETRY)


@dataclass(slots=True)
class Entry:
    """A pool, a topic, a Kafka part, a daemon or a job, as written in a file."""

    kind: str
    """The table that contains it."""
    name: str
    table: Table
    reason: str | None = None
    """Why it does not run; None if it runs."""

    @property
    def settings(self) -> dict[str, Any]:
        """Its valid values, by key."""
        return self.table.settings

    @property
    def qualified(self) -> str:
        """Its name with its kind, as in `pools.fibonacci`."""
        return f"{self.kind}.{self.name}"

    @property
    def uses_redis(self) -> bool:
        """True if it needs the file's Redis server: a Kafka part does for a dead-letter list only.

        A queue of functions names its server itself.
        """
        return "dead_list" in self.table if self.kind == "kafka" else self.kind not in ("daemons", "tasks")

    @property
    def own_url(self) -> bool:
        """True if it has a Redis URL of its own, valid or not."""
        return "url" in self.table


def read_entries(document: Document, root: Table, worker: Mapping[str, Any]) -> tuple[dict[str, Table], list[Entry]]:
    """Return the tables of KINDS, by name, and the entries in them; record mistakes.

    The entries are in the order of the file. `worker` holds the valid values of [worker], the defaults of every
    part's supervision.
    """
    groups, entries = {}, []
    for kind in KINDS:
        table, inner_tables = root.table(kind).split(_TABLES.get(kind, ()))
        groups[kind] = table.read(_OWN[kind])
        for inner_table in inner_tables:
            _read(inner_table, kind, table)
            entries.append(Entry(kind, inner_table.name, inner_table))
            _check_name(entries[-1])
            _check_backoffs(entries[-1], worker)
    _check_backoff(groups["topics"], _RESTART, _supervision(worker))
    entries.sort(key=lambda entry: document.line(entry.table.path))
    _check_unique(document, entries)
    for entry in entries:
        entry.reason = _disabled(entry, groups[entry.kind])
    return groups, entries


def check_worker(table: Table) -> None:
    """Record a mistake if the restart backoffs of [worker] contradict each other."""
    _check_backoff(table, _RESTART, _supervision({}))


def _read(table: Table, kind: str, group: Table) -> None:
    settings = table.read(_with_hints(_INNER[kind], table)).settings
    if kind == "topics" and "batch" in settings:
        settings["batch"] = table.table("batch").read(BATCH).settings
    if kind == "kafka":
        read_inner(table)
    if kind == "daemons" and "processes" in settings:
        _check_arguments(table, settings.get("arguments", {}))
    if kind == "cron":
        _check_job(table)
        if "push" in settings:
            settings["push"] = table.table("push").read(PUSH).settings
        settings.setdefault("timezone", group.settings.get("timezone", "UTC"))


def _with_hints(keys: TableKeys, table: Table) -> TableKeys:
    """Return `keys` with a message for each subtable that looks like a part with a dot in its name."""
    inner = {
        key: f'write a name with a dot in quotes: [{table.path[0]}."{table.name}.{key}"]'
        for key, value in table.values.items()
        if isinstance(value, dict) and key not in keys.kinds and _is_deep(value, keys)
    }
    return TableKeys(keys.kinds, () if inner else keys.required, {**keys.elsewhere, **inner})


def _is_deep(value: dict[str, Any], keys: TableKeys) -> bool:
    return any(key in value or any(isinstance(item, dict) for item in value.values()) for key in keys.required)


def _check_arguments(table: Table, arguments: Mapping[str, Any]) -> None:
    """Record a mistake for each argument that cannot be passed to another process."""
    for key, value in arguments.items():
        try:
            json_value(value)
        except ValueError as error:
            table.table("arguments").blame(key, f"{error}: with `processes`, arguments are passed as JSON")


def _check_job(table: Table) -> None:
    if "job" in table and "push" in table:
        table.blame("push", "excludes job: a cron job runs code or pushes a task")
    elif "job" not in table and "push" not in table:
        table.document.blame(table.path, "one of the keys job and push is required")
    if "push" in table:
        for key in _CALL_OPTIONS:
            if key in table:
                table.blame(key, "is for job only: with push, set it on the pool that runs the task")


def _check_name(entry: Entry) -> None:
    try:
        check_name(entry.name)
        if entry.kind == "topics":
            check_prefix(entry.name)
            if not any(character in entry.name for character in "*?["):
                check_topic(entry.name)
        elif entry.name in KINDS:
            raise ValueError(f"a part cannot be named {entry.name}: the name selects all of [{entry.name}]")
    except ConfigurationError as error:
        entry.table.document.blame(entry.table.path, str(error))
    except ValueError as error:
        message = str(error)
        entry.table.document.blame(entry.table.path, f"its name {message}" if message.startswith("must") else message)


def _check_unique(document: Document, entries: list[Entry]) -> None:
    taken: dict[str, Entry] = {}
    for entry in entries:
        if entry.kind == "topics":
            continue
        first = taken.setdefault(entry.name, entry)
        if first is not entry:
            line = document.line(first.table.path)
            document.blame(entry.table.path, f"the name is taken by {first.qualified} in line {line}")


def _check_backoffs(entry: Entry, worker: Mapping[str, Any]) -> None:
    # No defaults: if the file sets only one, the function may declare the other.
    _check_backoff(entry.table, _RETRY, {})
    if entry.kind != "cron":
        _check_backoff(entry.table, _RESTART, _supervision(worker))


def _supervision(worker: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: worker.get(field.name, field.default) for field in fields(Supervision)}


def _check_backoff(table: Table, keys: tuple[str, str], defaults: Mapping[str, Any]) -> None:
    """Record a mistake if the first delay is longer than the longest one."""
    given = [key for key in keys if key in table.settings]
    first, most = (table.settings.get(key, defaults.get(key)) for key in keys)
    if not given or first is None or most is None or first <= most:
        return
    first, most = _given(table, keys[0], first), _given(table, keys[1], most)
    if given[0] == keys[0]:
        table.blame(keys[0], f"must be at most {keys[1]}, which is {most}, got {first}")
    else:
        table.blame(keys[1], f"must be at least {keys[0]}, which is {first}, got {most}")


def _given(table: Table, key: str, number: float) -> str:
    """Return the number of `key` in the table, or else in [worker]; a variable is shown by its name."""
    raw = table.values.get(key, table.document.value(("worker", key)))
    return shown(raw) if isinstance(raw, Substituted) else f"{number:g}"


def _disabled(entry: Entry, group: Table) -> str | None:
    if entry.settings.get("enable") is False:
        return "enable = false"
    return f"{entry.kind}.enable = false" if group.settings.get("enable") is False else None


def names_of(entries: list[Entry]) -> Iterator[str]:
    """Yield every name that `only` accepts."""
    for entry in entries:
        yield entry.name
        yield entry.qualified
    yield from dict.fromkeys(entry.kind for entry in entries)
