"""The configuration file and `.env`: a plan, or all mistakes in sentences."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self
from unittest.mock import patch

from redis_worker.cli.describing import describe
from redis_worker.environment import environment_and_file, url_of
from redis_worker.file.mistakes import FileMistakes
from redis_worker.file.plan import Plan
from redis_worker.file.reading import read_plan
from redis_worker.file.resolving import resolved
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.text import visible_lines
from tests.fuzz.inputs import PIECES, any_bytes, json_value, mutated
from tests.fuzz.running import OBEYED, Target, Violation

EXAMPLE = (Path(__file__).parents[2] / "examples" / "workers.toml").read_bytes()
_TABLES = [
    *(
        "worker",
        "redis",
        "http",
        "pools",
        "pools.a",
        "pools.a.b",
        "topics",
        'topics."x.*"',
        "daemons",
        "daemons.d",
        "cron",
    ),
    *("cron.j", "cron.k", 'pools."\\u001b"', "pools.pools", "unknown"),
]
_KEYS = [
    *(
        "enable",
        "name",
        "mode",
        "only",
        "shutdown_timeout",
        "connect_timeout",
        "restart",
        "max_restarts",
        "restart_window",
    ),
    *("restart_backoff", "restart_backoff_max", "hang_timeout", "url", "host", "port", "token", "input", "output"),
    *("processor", "parser", "concurrency", "delivery", "execution", "timeout", "max_deliveries", "lease", "retries"),
    *("retry_backoff", "retry_backoff_max", "dead_limit", "result_ttl", "burst", "max_tasks", "processes", "critical"),
    *(
        "handler",
        "batch",
        "idempotent",
        "run",
        "arguments",
        "schedule",
        "job",
        "push",
        "timezone",
        "catchup",
        "overlap",
        "x",
    ),
]
_VALUES = [
    *("true", "false", "0", "1", "-1", "1.5", "1e400", "nan", "inf", "9223372036854775808", "0x10", "1_0", '""', '" "'),
    *('"90s"', '"1.5m"', '"-1s"', '"1e9d"', '"9999999999999d"', '"${X}"', '"${Y:-3}"', '"$${"', '"${"', '"${X:-${Y}}"'),
    *(
        '"sum"',
        '"list"',
        '"no.such:thing"',
        '"a:b:c"',
        '":"',
        '"redis://h"',
        '"redis://:pw@h:x"',
        '"unix://"',
        '"redis+cluster://a,b"',
    ),
    *(
        '"* * * * *"',
        '"0 0 30 2 *"',
        '"*/0 * * * *"',
        '"@daily"',
        '"99 * * * *"',
        '"* * * * * *"',
        '"UTC"',
        '"No/Zone"',
        '"../../etc"',
    ),
    *(
        "[]",
        '["a"]',
        "[1, true]",
        "{}",
        "{ size = 2, within = 0.5 }",
        '{ input = "a", task = [1] }',
        "1979-05-27T07:32:00Z",
        "07:32:00",
    ),
    *("'''\n\x7f'''", '"\\u202e"', '"\\U0001F4A9"', "'" + "x" * 5000 + "'", "[" * 200 + "]" * 200),
]
_ENVIRONMENT = {"X": "s3Cr3t", "Y": ""}
_DOTENV = b"REDIS_URL=redis://h\nREDIS_HOST='h'\nA=\"b${REDIS_HOST}\"\nexport B=c # d\nREDIS_PORT=1\n"


def toml(random: Random) -> bytes:
    """Return valid TOML, of known tables and keys, with values that do not always fit."""
    if random.random() < 0.2:
        return EXAMPLE
    lines: list[str] = []
    for table in random.sample(_TABLES, random.randrange(1, 5)):
        lines.append(f"[{table}]")
        for key in random.sample(_KEYS, random.randrange(6)):
            value = random.choice(_VALUES) if random.random() < 0.9 else json_value(random).decode()
            lines.append(f"{key} = {value}")
    return "\n".join(lines).encode()


class Files(Target):
    """Files named workers.toml and .env in a folder of their own."""

    name = "files"
    batch = 50
    share = 0.015

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self._before = os.getcwd()
        # redis-py looks its version up for each connection that an address is tried out with: most of the time.
        self._quick = patch("redis.utils.get_lib_version", lambda: "8")
        self._quick.start()
        os.chdir(self._folder.name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._quick.stop()
        os.chdir(self._before)
        self._folder.cleanup()

    def make(self, random: Random) -> bytes:
        if random.random() < 0.1:
            return b"#.env\n" + mutated(random, _DOTENV, PIECES)
        kind = random.random()
        if kind < 0.4:
            return toml(random)
        return mutated(random, toml(random), [EXAMPLE]) if kind < 0.95 else any_bytes(random)

    def feed(self, inputs: Sequence[bytes]) -> None:
        for raw in inputs:
            try:
                _read_env(raw) if raw.startswith(b"#.env\n") else _read_toml(raw)
            except Violation:
                raise
            except Exception as error:
                raise Violation(f"it raises {error!r}", raw) from error


def _read_toml(raw: bytes) -> None:
    try:
        lines = list(describe(resolved(lambda: _plan(raw))))
    except FileMistakes as error:
        lines = str(error).splitlines()
        if not error.mistakes or len(lines) != len(error.mistakes):
            raise Violation(f"{len(error.mistakes)} mistakes in {len(lines)} lines: {lines}", raw) from error
    for line in lines:
        if OBEYED.search(visible_lines(line)):
            raise Violation(f"a line is not harmless: {line!r}", raw)
        if "s3Cr3t" in line and b"s3Cr3t" not in raw:
            raise Violation(f"a line quotes a variable: {line!r}", raw)


def _plan(raw: bytes) -> Plan:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        Path("workers.toml").write_bytes(raw)
        return read_plan("workers.toml", environment=_ENVIRONMENT)
    return read_plan("workers.toml", text, environment=_ENVIRONMENT)


def _read_env(raw: bytes) -> None:
    Path(".env").write_bytes(raw)
    try:
        url_of(environment_and_file(_ENVIRONMENT))
    except ConfigurationError as error:
        if not str(error):
            raise Violation("an error without a text", raw) from error
    finally:
        os.unlink(".env")
