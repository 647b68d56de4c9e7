"""Checks of the keys derived from queues and cron jobs: their types and members."""

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
from redis_worker.broker.operator.doctor.finding import Finding, fault, findings_of, quoted, shown, warning
from redis_worker.broker.operator.supervisors import is_description

# Members checked per key; fewer dead letters, which may be large.
_MEMBERS, _LETTERS = 1000, 20

# The command that reads the first members of a key, by type; a hash returns pairs.
_READ: dict[str, tuple[str, tuple[Any, ...]]] = {
    "zset": ("ZRANGE", (0, _MEMBERS - 1)),
    "set": ("SRANDMEMBER", (_MEMBERS,)),
    "hash": ("HSCAN", (0, "COUNT", _MEMBERS)),
    "list": ("LRANGE", (0, _LETTERS - 1)),
    "string": ("GET", ()),
}


class _Form(NamedTuple):
    """Type of a key and form of its members."""

    type: str
    malformed: str
    """Description of members of another form."""
    fits: Callable[[bytes, bytes], bool]
    """Returns True if a member has the form; for a hash, called with field and value."""


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
_INSTANTS = _Form("zset", "members that are not instants", _matches(rb"-?\d{1,15}"))


def _forms(keys: Keys) -> dict[str, _Form]:
    return {
        keys.workers: _NAMES,
        keys.retired: _NAMES,
        keys.claimants: _NAMES,
        keys.presence: _Form("hash", "members that do not describe a worker", _is_object),
        keys.attempts: _Form("hash", "members that are not counts", _value_matches(rb"\d{1,10}")),
        keys.delayed: _Form("zset", "members without a token and a colon", lambda member, _: b":" in member),
        keys.begun: _Form("hash", "members that name no worker and message", _value_matches(rb"[^\n]*\n.*")),
        keys.dropped: _Form("string", "a value that is not a number", _matches(rb"\d{1,15}")),
        keys.dead: _Form("list", "members that are not dead letters", lambda member, _: is_letter(member)),
    }


_JOBS = "cron jobs"
_REGISTRIES = {
    QUEUES: ("known queues", _Form("set", "names that are not UTF-8", _is_text)),
    TOPICS: ("known topics", _Form("set", "names that are not UTF-8", _is_text)),
    SUPERVISORS: ("supervisors", _Form("hash", "members that do not describe a supervisor", is_description)),
    CRON: (_JOBS, _Form("hash", "names that are not UTF-8", _is_text)),
}


def _cron_forms(keys: CronKeys) -> dict[str, _Form]:
    return {
        keys.fired: _INSTANTS,
        keys.queued: _INSTANTS,
        keys.running: _NAMES,
        keys.runs: _Form("hash", "members that are not runs", _value_matches(rb"\S+ \d{1,15} \d{1,15} .*")),
        keys.record: _Form("hash", "counts or instants that are not numbers", _is_record),
        keys.ended: _Form("list", "names that are not UTF-8", _is_text),
    }


def _is_record(field: bytes, value: bytes) -> bool:
    is_number = field.startswith(b"count:") or field in (b"floor", b"next", b"instant", b"started", b"finished")
    return not is_number or not value or re.fullmatch(rb"-?\d{1,15}", value) is not None


async def examine_keys(connection: Connection, keys: Keys, subject: str, workers: Iterable[str]) -> list[Finding]:
    """Return a finding for each damaged key derived from a queue, including the keys of `workers`.

    Raises Disconnected or Refused.
    """
    held: dict[str, str] = {}
    for worker in workers:
        held |= {keys.inflight(worker): "hash", keys.arrived(worker): "list", keys.listed(worker): "list"}
        held |= {keys.bundles(worker): "hash"}
    return await _examine(connection, subject, keys.types | held, _forms(keys))


async def examine_registries(connection: Connection) -> list[Finding]:
    """Return findings for the registries of queues, topics, supervisors and cron jobs, and for the jobs' keys."""
    findings: list[Finding] = []
    for key, (subject, form) in _REGISTRIES.items():
        findings += await findings_of(subject, partial(_examine, connection, subject, {key: form.type}, {key: form}))
    if any(finding.subject == _JOBS and finding.level == "fault" for finding in findings):
        return findings
    return findings + await findings_of(_JOBS, partial(_examine_jobs, connection))


async def _examine_jobs(connection: Connection) -> list[Finding]:
    findings: list[Finding] = []
    known = await _members(connection, CRON, "hash")
    for name, stem in ((name.decode(), stem.decode()) for name, stem in known if _is_text(name, stem)):
        forms = _cron_forms(CronKeys(stem))
        types = {key: form.type for key, form in forms.items()}
        subject = f"cron job {shown(name)}"
        findings += await findings_of(subject, partial(_examine, connection, subject, types, forms))
    return findings


async def _examine(
    connection: Connection, subject: str, types: Mapping[str, str], forms: Mapping[str, _Form]
) -> list[Finding]:
    damaged = {error.key: error for error in await damaged_keys(connection, types)}
    findings = [
        fault(
            subject,
            f"the key {shown(key)} holds a {error.found}, not a {error.expected}",
            f"rename it with redis-cli RENAME, or redis-cli DEL {quoted(key)}: work that needs it then continues",
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
    what = f"the key {shown(key)} has {form.malformed}, which workers ignore: {some}"
    return [warning(subject, what, "delete them with redis-cli, unless another program needs them")]


async def _members(connection: Connection, key: str, kind: str) -> list[tuple[bytes, bytes]]:
    command, arguments = _READ[kind]
    reply = await connection.call(command, key, *arguments)
    if kind == "string":
        return [] if reply is None else [(reply, b"")]
    if kind == "hash":
        pairs = reply[1]
        return list(pairs.items() if isinstance(pairs, dict) else zip(pairs[::2], pairs[1::2], strict=True))
    return [(member, b"") for member in reply]
