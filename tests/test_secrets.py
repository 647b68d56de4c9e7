"""A secret in a URL, or in a variable of the environment, is shown nowhere, however wrong its place is."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from redis_worker import WorkerPool
from redis_worker.broker.connection.address import address_of, mask
from redis_worker.cli.main import _run
from redis_worker.embedded import EmbeddedServer
from redis_worker.file.mistakes import FileMistakes
from redis_worker.file.reading import read_plan
from redis_worker.file.resolving import resolve, resolved
from redis_worker.vocabulary.errors import RedisWorkerError
from tests.support import CommandProcess, wait_until

PLACES = [
    *("redis://:{s}@h", "redis://ann:{s}@h:1/0", "redis://{s}@h", "redis://{s}:@h", "redis://ann:{s}", "{s}"),
    *("redis://:a{s}b@h", "redis://:x@{s}@h", "redis://:x/{s}@h", "redis://:x?{s}@h", "redis://:x#{s}@h", ":{s}@h:1"),
    *("redis://:1/{s}@h", "redis://:1?a={s}@h", "redis://h:{s}", "redis://h:1{s}/0", "redis://[{s}@h", "{s}://h"),
    *("redis://h/{s}", "redis://h/0/{s}", "redis://h//{s}", "redis://h/0#{s}", "redis://h#{s}", "redis://h?{s}"),
    *("redis://h?{k}={s}", "redis://h?{k}=a@{s}", "redis://h/0?db=1&{k}={s}", "redis://h?db={s}", "http://:{s}@h"),
    *("redis://h?socket_timeout={s}", "redis://h?protocol={s}", "rediss://h?ssl_cert_reqs={s}", "redis://h?a;{k}={s}"),
    *("rediss://h?ssl_ca_certs=/{s}/x", "rediss://h?ssl_min_version={s}", "rediss://h?ssl_ciphers={s}"),
    *("redis+sentinel://:{s}@h/m/0", "redis+sentinel://h/m/{s}", "redis+sentinel://h/m?sentinel_{k}={s}"),
    *("redis+cluster://:{s}@a,b", "redis+cluster://h/{s}", "redis+cluster://h?{k}={s}", "redis+cluster://a:{s},b"),
    *("unix://:{s}@/run/x", "unix://{s}", "unix:///run/x?{k}={s}", "unix:///run/x?db={s}", "unix:///run/x#{s}"),
]
KEYS = ["password", "PASSWORD", "Password", "p%61ssword", "auth", "AUTH", "token", "secret", "pass", "username", "key"]
# Not of letters alone, which could be a word of a message.
SECRETS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8).map("s3Cr3t{}".format)


def forms(secret: str) -> set[str]:
    """The secret, as it may be shown."""
    return {secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1], secret.lower(), secret[:6], "s3Cr3t"}


def shows(text: str, secret: str) -> bool:
    return any(form in text for form in forms(secret))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from(KEYS), SECRETS, st.sampled_from(["plain", "quoted"]))
@example("redis://h?{k}={s}", "PASSWORD", "s3Cr3t", "plain")
@example("redis://h?{k}={s}", "auth", "s3Cr3t", "plain")
@example("redis://h/{s}", "", "s3Cr3t", "plain")
def test_a_url_is_shown_without_secrets(place: str, key: str, secret: str, how: str) -> None:
    assume(how == "quoted" or ":" not in secret)  # it would be a user's name, which is shown, and a password
    url = place.format(s=secret if how == "plain" else quote(secret, safe=""), k=key)
    assert not shows(mask(url), secret)
    try:
        name = address_of(url).name
    except RedisWorkerError:
        name = traceback.format_exc()
    assert not shows(name, secret)
    with contextlib.suppress(RedisWorkerError):
        pool = WorkerPool(url, "in", "out", "list", "sum")
        assert not shows(f"{pool.address} {pool!r}", secret)


FILE = """
[worker]
name = "{name}"
shutdown_timeout = "{v1}"
restart_backoff_max = "{v2}"
only = ["pools", "{v3}", "topics", "daemons", "cron"]
[redis]
url = "{url}"
[http]
enable = "{v4}"
host = "{v5}"
port = "{v6}"
token = "{v7}"
[pools.a]
input = "in"
output = "out"
processor = "{v8}"
parser = "{v9}"
concurrency = "{v10}"
execution = "{v11}"
lease = "{v12}"
burst = "{v13}"
result_ttl = "{v14}"
restart_backoff = "{v15}"
retry_backoff = "{v16}"
retry_backoff_max = "{v17}"
[topics.t]
handler = "{v18}"
batch = {{ size = "{v19}", within = "{v20}" }}
[daemons.d]
run = "{v21}"
arguments = {{ x = "{v22}" }}
processes = "{v23}"
[cron]
timezone = "{v24}"
[cron.j]
schedule = "{v25}"
job = "{v26}"
catchup = "{v27}"
[cron.k]
schedule = "* * * * *"
push = {{ input = "{v28}", task = ["{v29}"] }}
url = "{v30}"
overlap = "{v31}"
"""
RIGHT = {
    "name": "shop",
    "url": "redis://localhost",
    "v1": "3",
    "v2": "50",
    "v3": "pools",
    "v4": "true",
    "v5": "::1",
    "v6": "8080",
    "v7": "hush",
    "v8": "sum",
    "v9": "list",
    "v10": "3",
    "v11": "thread",
    "v12": "6",
    "v13": "no",
    "v14": "9",
    "v15": "2",
    "v16": "3",
    "v17": "4",
    "v18": "tests.parts:handle",
    "v19": "2",
    "v20": "3",
    "v21": "tests.parts:beat",
    "v22": "1",
    "v23": "1",
    "v24": "UTC",
    "v25": "* * * * *",
    "v26": "tests.parts:beat",
    "v27": "none",
    "v28": "in",
    "v29": "1",
    "v30": "redis://localhost",
    "v31": "skip",
}
WRONG = [
    "{s}",
    "{s}:{s}",
    "tests.parts:{s}",
    "{s}.py",
    "a/{s}",
    "-{n}",
    "{n}",
    "{n}.5",
    "{n}s",
    "redis://:{s}@h",
    "redis://{s}",
    "{s} *",
]


def said_of(text: str, environment: dict[str, str]) -> str:
    try:
        plan = resolved(lambda: read_plan("workers.toml", text, environment=environment))
    except FileMistakes as error:
        return f"{error} {error!r}"
    return repr(plan)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(RIGHT)), st.sampled_from(WRONG), st.sampled_from(["{}", "x{}", "{}:-d}"]), st.data())
def test_no_message_about_a_file_quotes_a_variable(place: str, wrong: str, around: str, data: Any) -> None:
    secret, number = data.draw(SECRETS.filter(str.strip)), str(data.draw(st.integers(10**6, 10**12)))
    value = wrong.format(s=secret, n=number)
    reference = "${SECRET" + ("}" if around != "{}:-d}" else ":-d}")
    text = FILE.format(**RIGHT | {place: ("x" if around == "x{}" else "") + reference})
    said = said_of(text, {"SECRET": value})
    assert not shows(said, secret)
    if place not in ("v6", "v10"):  # a right port, or number of tasks, is a setting, which is seen to work
        assert number not in said


def test_every_variable_wrong_at_once() -> None:
    secret = "s3Cr3t-7f"
    text = FILE.format(**{place: f"${{V_{place}}}" for place in RIGHT})
    with pytest.raises(FileMistakes) as caught:
        read_plan("workers.toml", text, environment={f"V_{place}": secret for place in RIGHT})
    assert not shows(str(caught.value), secret)
    assert len(caught.value.mistakes) > 10
    assert 'pools.a.concurrency: must be a whole number, got "${V_v10}"' in str(caught.value)
    assert "unset" not in str(caught.value)
    if caught.value.rest is not None:
        with contextlib.suppress(FileMistakes):
            resolve(caught.value.rest)


VARIABLES = {
    **dict.fromkeys(["REDIS_URL", "REDIS_WORKER_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_TLS"], "run"),
    **dict.fromkeys(["REDIS_WORKER_CONCURRENCY", "REDIS_WORKER_EXECUTION", "REDIS_WORKER_TIMEOUT"], "run"),
    **dict.fromkeys(["REDIS_WORKER_HTTP", "REDIS_WORKER_BURST", "REDIS_WORKER_WATCH", "REDIS_WORKER_LOG_LEVEL"], "run"),
}


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("value", ["s3Cr3t", ":s3Cr3t@h/x", "redis://h/s3Cr3t", "s3Cr3t,s3Cr3t 7"])
def test_no_message_about_the_environment_quotes_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(logging.getLogger("redis_worker"), "handlers", [])
    code = _run(["run", "--input", "a", "--output", "b", "--processor", "sum", "--connect-timeout", "0.1"])
    shown = capsys.readouterr()
    assert code in (2, 3)
    assert shown.err
    if not (name == "REDIS_HOST" and value == "s3Cr3t"):  # a host is shown
        assert "s3Cr3t" not in shown.err + shown.out


async def test_a_running_supervisor_shows_its_secrets_nowhere(first_server: EmbeddedServer, tmp_path: Path) -> None:
    """In its log, its command lines, its metrics, its announcement, or in Redis."""
    from redis.asyncio import Redis

    secret = f"s3Cr3t{secrets.token_hex(4)}"
    redis = Redis.from_url(first_server.url)
    name = f"shown-{secrets.token_hex(4)}"
    await redis.execute_command("ACL", "SETUSER", name, "on", f">{secret}", "~*", "&*", "+@all")
    url = first_server.url.replace("://", f"://{name}:${{PW}}@")
    file = tmp_path / "workers.toml"
    file.write_text(
        f'[worker]\nname = "{name}"\n[redis]\nurl = "{url}?client_name=${{PW}}"\n[http]\nport = 0\ntoken = "${{PW}}"\n'
        f'[pools.a]\ninput = "{name}:in"\noutput = "{name}:out"\nprocessor = "sum"\nprocesses = 1\n'
        f'[pools.b]\ninput = "{name}:in"\noutput = "{name}:out"\nprocessor = "sum"\n'
    )
    process = CommandProcess("serve", str(file), env={"PW": secret, "SHOP_URL": secret}, cwd=Path.cwd())
    try:
        await process.said("/metrics")
        await wait_until(lambda: redis.hlen("{redis_worker}:supervisors"))
        await wait_until(lambda: process.log.count(f"{name}:in ->") >= 2 or not process.alive, "both pools to start")
        assert process.alive, process.log
        shown = [process.log, *_command_lines(process.pid)]
        keys = [key async for key in redis.scan_iter(f"*{name}*")]
        shown += [repr(await redis.hgetall("{redis_worker}:supervisors"))]
        for key in keys:
            if await redis.type(key) == b"hash":
                shown.append(repr(await redis.hgetall(key)))
        for arguments in (["status", "--json"], ["check", str(file)], ["doctor"]):
            command = [sys.executable, "-m", "redis_worker", *arguments]
            environment = os.environ | {"PW": secret, "REDIS_URL": url.replace("${PW}", secret)}
            ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
            shown += [ended.stdout, ended.stderr]
        assert all(secret not in text for text in shown), [text for text in shown if secret in text]
    finally:
        process.process.terminate()
        await process.ended()
        process.close()
        await redis.delete(*[key async for key in redis.scan_iter(f"*{name}*")], "{redis_worker}:supervisors")
        await redis.execute_command("ACL", "DELUSER", name)
        await redis.aclose()


def _command_lines(pid: int) -> list[str]:
    """The command lines of a process and of its children."""
    found = [Path(f"/proc/{pid}/cmdline").read_bytes().decode()]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += _command_lines(int(child))
    return found
