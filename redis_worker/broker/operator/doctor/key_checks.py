"""Checks of the keys derived from queues and cron jobs: does each hold what it should?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import orjson

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import damaged_keys, readable
from redis_worker.broker.keys import CRON, QUEUES, SUPERVISORS, TOPICS, CronKeys, Keys
from redis_worker.broker.operator.dead_letters import is_letter
from redis_worker.broker.operator.doctor.finding import Finding, fault, looked_at, quoted, shown, warning
from redis_worker.broker.operator.supervisors import is_description

# So many members of a key are looked at, and so many dead letters, which may be large.
_MEMBERS, _LETTERS = 1000, 20

# How the first members of a key are read, by its type; of a hash, they come in pairs.
_READ: dict[str, tuple[str, tuple[Any, ...]]] = {
    "zset": ("ZRANGE", (0, _MEMBERS - 1)),
    "set": ("SRANDMEMBER", (_MEMBERS,)),
    "hash": ("HSCAN", (0, "COUNT", _MEMBERS)),
    "list": ("LRANGE", (0, _LETTERS - 1)),
    "string": ("GET", ()),
}


class _Form(NamedTuple):
    """What the members of a key look like."""

    type: str
    what: str
    """What one is that does not look so."""
    fits: Callable[[bytes, bytes], bool]
    """Whether a member does; of a hash, its field and value."""


def _matches(pattern: bytes) -> Callable[[bytes, bytes], bool]:
    return lambda member, _: re.fullmatch(pattern, member) is not None


def _value_matches(pattern: bytes) -> Callable[[bytes, bytes], bool]:
    return lambda _, value: re.fullmatch(pattern, value, re.DOTALL) is not None


def _is_text(*names: bytes) -> bool:
    return not readable(names)[1]


def _is_object(_: bytes, value: bytes) -> bool:
    try:
        return isinstance(orjson.loads(value), dict)
    except ValueError:
        return False


_NAMES = _Form("zset", "names that are not UTF-8", _is_text)
_INSTANTS = _Form("zset", "members that are no instants", _matches(rb"-?\d{1,15}"))


def _forms(keys: Keys) -> dict[str, _Form]:
    return {
        keys.workers: _NAMES,
        keys.retired: _NAMES,
        keys.claimants: _NAMES,
        keys.presence: _Form("hash", "members that are no descriptions of a worker", _is_object),
        keys.attempts: _Form("hash", "members that are no counts", _value_matches(rb"\d{1,10}")),
        keys.delayed: _Form("zset", "members without a token and a colon", lambda member, _: b":" in member),
        keys.begun: _Form("hash", "members that name no worker and message", _value_matches(rb"[^\n]*\n.*")),
        keys.dropped: _Form("string", "something else than a number", _matches(rb"\d{1,15}")),
        keys.dead: _Form("list", "members that are no dead letters", lambda member, _: is_letter(member)),
    }


_SUBJECTS = {QUEUES: "known queues", TOPICS: "known topics", SUPERVISORS: "supervisors", CRON: "cron jobs"}
_REGISTRIES = {
    QUEUES: _Form("set", "names that are not UTF-8", _is_text),
    TOPICS: _Form("set", "names that are not UTF-8", _is_text),
    SUPERVISORS: _Form("hash", "members that are no descriptions of a supervisor", is_description),
    CRON: _Form("hash", "names that are not UTF-8", _is_text),
}


def _cron_forms(keys: CronKeys) -> dict[str, _Form]:
    return {
        keys.fired: _INSTANTS,
        keys.queued: _INSTANTS,
        keys.running: _NAMES,
        keys.runs: _Form("hash", "members that are no runs", _value_matches(rb"\S+ \d{1,15} \d{1,15} .*")),
        keys.record: _Form("hash", "counts or instants that are no numbers", _is_record),
        keys.ended: _Form("list", "names that are not UTF-8", _is_text),
    }


def _is_record(field: bytes, value: bytes) -> bool:
    is_number = field.startswith(b"count:") or field in (b"floor", b"next", b"instant", b"started", b"finished")
    return not is_number or not value or re.fullmatch(rb"-?\d{1,15}", value) is not None


async def examine_keys(connection: Connection, keys: Keys, subject: str, workers: Iterable[str]) -> list[Finding]:
    """A finding for each derived key of a queue that is damaged, those of `workers` included; none where none is.

    Raises Disconnected or Refused.
    """
    lists = {name: "list" for worker in workers for name in (keys.inflight(worker), keys.arrived(worker))}
    return await _examine(connection, subject, keys.types | lists, _forms(keys))


async def examine_registries(connection: Connection) -> list[Finding]:
    """The same for the registries of queues, topics, supervisors and cron jobs, and for the keys of these jobs."""
    findings: list[Finding] = []
    for key, form in _REGISTRIES.items():
        subject = _SUBJECTS[key]
        findings += await looked_at(subject, partial(_examine, connection, subject, {key: form.type}, {key: form}))
    if any(finding.subject == _SUBJECTS[CRON] and finding.level == "fault" for finding in findings):
        return findings
    return findings + await looked_at(_SUBJECTS[CRON], partial(_examine_jobs, connection))


async def _examine_jobs(connection: Connection) -> list[Finding]:
    findings: list[Finding] = []
    known = await _members(connection, CRON, "hash")
    for name, stem in ((name.decode(), stem.decode()) for name, stem in known if _is_text(name, stem)):
        forms = _cron_forms(CronKeys(stem))
        types = {key: form.type for key, form in forms.items()}
        subject = f"cron job {shown(name)}"
        findings += await looked_at(subject, partial(_examine, connection, subject, types, forms))
    return findings


async def _examine(
    connection: Connection, subject: str, types: Mapping[str, str], forms: Mapping[str, _Form]
) -> list[Finding]:
    damaged = {error.key: error for error in await damaged_keys(connection, types)}
    findings = [
        fault(
            subject,
            f"the key {shown(key)} holds a {error.found}, not a {error.expected}",
            f"redis-cli RENAME it to another name, or redis-cli DEL {quoted(key)}: the work that needs it then goes on",
        )
        for key, error in damaged.items()
    ]
    for key, form in forms.items():
        if key not in damaged:
            findings += await _malformed(connection, subject, key, form)
    return findings


async def _malformed(connection: Connection, subject: str, key: str, form: _Form) -> list[Finding]:
    strange = [member for member, value in await _members(connection, key, form.type) if not form.fits(member, value)]
    if not strange:
        return []
    some = ", ".join(ascii(member[:80])[1:] for member in sorted(strange)[:3]) + (", …" if len(strange) > 3 else "")
    what = f"the key {shown(key)} has {form.what}, which are left alone: {some}"
    return [warning(subject, what, "delete them with redis-cli, unless a program of yours has put them there")]


async def _members(connection: Connection, key: str, kind: str) -> list[tuple[bytes, bytes]]:
    command, arguments = _READ[kind]
    reply = await connection.call(command, key, *arguments)
    if kind == "string":
        return [] if reply is None else [(reply, b"")]
    if kind == "hash":
        pairs = reply[1]
        return list(pairs.items() if isinstance(pairs, dict) else zip(pairs[::2], pairs[1::2], strict=True))
    return [(member, b"") for member in reply]
