"""Whether what a file names is there and fits, and what `redis-worker check` says of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from redis_worker.cli.describing import next_firing
from redis_worker.cron.settings import JobSettings
from redis_worker.file.mistakes import FileMistakes
from redis_worker.file.plan import JobPart
from redis_worker.file.reading import read_plan
from redis_worker.file.resolving import resolve
from tests.support import PATIENCE, ROOT

URL = "redis://there:6379/0"
POOL = '[pools.a]\ninput = "in"\noutput = "out"\n'
MODULE = """
import asyncio

async def daemon(stop): ...
async def table_daemon(stop, table, *, every=1): ...
def deaf(): ...
def handle(message): ...
async def handle_async(message): ...
async def job(): ...
def job_at(instant, table=None): ...
number = 8
"""

Resolve = Callable[..., list[str]]


@pytest.fixture
def mistakes_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolve]:
    """What is wrong with what a text names, which may lie in the module `t_parts`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "t_parts.py").write_text(MODULE)

    def resolved(text: str) -> list[str]:
        plan = read_plan("workers.toml", text, environment={}, default_url=lambda: URL)
        try:
            resolve(plan)
        except FileMistakes as error:
            return str(error).splitlines()
        return []

    yield resolved
    sys.modules.pop("t_parts", None)


def daemon(run: str, more: str = "") -> str:
    return f'[daemons.d]\nrun = "t_parts:{run}"\n{more}\n'.replace("\n\n", "\n")


def topic(handler: str, more: str = "") -> str:
    return f'[topics.t]\nhandler = "t_parts:{handler}"\n{more}\n'.replace("\n\n", "\n")


def job(function: str, more: str = "", schedule: str = "*/5 * * * *") -> str:
    return f'[cron.j]\nschedule = "{schedule}"\njob = "{function}"\n{more}\n'.replace("\n\n", "\n")


@pytest.mark.parametrize(
    "text",
    [
        POOL + 'processor = "sum"',
        POOL + 'processor = "t_parts:handle"\nexecution = "process"\ntimeout = 3\nretries = 2',
        topic("handle", "timeout = 3"),
        topic("handle_async", "batch = { size = 3 }\n[topics]\nconcurrency = 3"),
        daemon("daemon"),
        daemon("table_daemon", 'arguments = { table = "orders" }'),
        job("t_parts:job"),
        job("t_parts:job_at"),
        job("t_parts:job_at", "arguments = { table = 1 }", "0 */5 * * * *"),
        '[cron.j]\nschedule = "0 0 * * *"\npush = { input = "a", task = 1 }',
        "[http]\nport = 0",
        '[daemons.d]\nenable = false\nrun = "t_absent:run"\n[cron]\nenable = false\n' + job("t_absent:f", "", "never"),
        '[worker]\nonly = ["d"]\n[pools.a]\ninput = "i"\noutput = "o"\nprocessor = "t_absent:f"\n' + daemon("daemon"),
    ],
)
def test_what_is_there_and_fits(mistakes_of: Resolve, text: str) -> None:
    assert mistakes_of(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            POOL + 'processor = "fibonaci"',
            "4: pools.a.processor: unknown processor 'fibonaci': did you mean fibonacci?",
        ),
        (POOL + 'parser = "lst"\nprocessor = "sum"', "4: pools.a.parser: unknown parser 'lst': did you mean list?"),
        (POOL + 'processor = "t_absent:f"', "4: pools.a.processor: the processor 't_absent:f': no module named 't_ab"),
        ('[pools.a]\ninput = "x"\noutput = "x"\nprocessor = "sum"', "3: pools.a.output: the input list and the output"),
        (POOL + 'processor = "sum"\ntimeout = 3', "5: pools.a.timeout: processor sum: an inline call cannot"),
        (POOL + 'execution = "async"\nprocessor = "sum"', "4: pools.a.execution: processor sum: a plain fun"),
        (POOL + 'retries = 1\ndelivery = "at-most-once"\nprocessor = "sum"', "4: pools.a.retries: retries need at-le"),
        (POOL + 'processor = "sum"\nretry_backoff = 61', "5: pools.a.retry_backoff: processor sum: the retry"),
        (topic("hndle"), "2: topics.t.handler: the handler 't_parts:hndle': module t_parts has no function 'hndle'"),
        (topic("number"), "2: topics.t.handler: the handler 't_parts:number': number in module t_parts is of type int"),
        (topic("deaf"), "2: topics.t.handler: a handler takes one message, deaf takes nothing"),
        (topic("handle_async", 'execution = "thread"'), "3: topics.t.execution: handler handle_async: a coroutine"),
        ('[topics.t]\nhandler = "handle"', "2: topics.t.handler: the handler 'handle': write it as module:function"),
        (daemon("deaf"), "2: daemons.d.run: the daemon 't_parts:deaf' takes nothing, and is called with a stop event"),
        (
            daemon("table_daemon"),
            "2: daemons.d.run: the daemon 't_parts:table_daemon' takes stop, table, every (by",
        ),
        (daemon("daemon", "arguments = { x = 1 }"), "3: daemons.d.arguments: the daemon 't_parts:daemon' takes stop"),
        ('[daemons.d]\nrun = "t_absent:f"', "2: daemons.d.run: the daemon 't_absent:f': no module named 't_absent' in"),
        (job("t_parts:jbo"), "3: cron.j.job: the job 't_parts:jbo': module t_parts has no function 'jbo'; did you me"),
        (job("t_parts:job", "arguments = { x = 1 }"), "4: cron.j.arguments: the job 't_parts:job' has no argument 'x'"),
        (
            job("t_parts:table_daemon"),
            "3: cron.j.job: the job 't_parts:table_daemon' needs the argument 'table': set it",
        ),
        (job("t_parts:job", "retry_backoff = 61"), "4: cron.j.retry_backoff: the cron job 'j': the retry backoff must"),
        (job("t_parts:job", "", "* * *"), "2: cron.j.schedule: the schedule '* * *'"),
        (job("t_parts:job", "", "61 * * * *"), "2: cron.j.schedule: the schedule '61 * * * *'"),
        (job("t_parts:job", 'timezone = "Asia/Shangai"'), "4: cron.j.timezone: unknown time zone 'Asia/Shangai'"),
        ('[cron]\ntimezone = "X"\n' + job("t_parts:job"), "2: cron.timezone: unknown time zone 'X'"),
    ],
)
def test_what_is_not_there_or_does_not_fit(mistakes_of: Resolve, text: str, expected: str) -> None:
    shown = mistakes_of(text)
    assert len(shown) == 1, shown
    assert shown[0].startswith(f"workers.toml:{expected}"), shown[0]


def test_all_that_does_not_fit_is_told_at_once(mistakes_of: Resolve) -> None:
    text = job("t_absent:f", 'timezone = "X"', "*") + daemon("x") + topic("x") + POOL + 'processor = "x"\nparser = "y"'
    assert [line.split(": ")[:2] for line in mistakes_of(text)] == [
        ["workers.toml:2", "cron.j.schedule"],
        ["workers.toml:3", "cron.j.job"],
        ["workers.toml:4", "cron.j.timezone"],
        ["workers.toml:6", "daemons.d.run"],
        ["workers.toml:8", "topics.t.handler"],
        ["workers.toml:12", "pools.a.processor"],
        ["workers.toml:13", "pools.a.parser"],
    ]


@pytest.mark.parametrize(
    ("text", "missing", "expected"),
    [
        ("[http]", "aiohttp", "1: http: HTTP and metrics need the extra `web` (aiohttp is missing): pip install"),
        (
            job("t_parts:job"),
            "cronsim",
            "2: cron.j.schedule: cron jobs need the extra `cron` (cronsim is missing): pip",
        ),
    ],
)
def test_an_extra_that_is_not_installed(
    mistakes_of: Resolve, monkeypatch: pytest.MonkeyPatch, text: str, missing: str, expected: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for name in ("redis_worker.http.server", "redis_worker.cron.schedule"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    [shown] = mistakes_of(text)
    assert shown.startswith(f"workers.toml:{expected}")


# --- the command ---


class Ended(NamedTuple):
    """A command that has come to its end."""

    code: int
    out: str
    err: str


Check = Callable[..., Ended]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs `redis-worker check` in a folder of its own, in which there are the module and the file."""
    (tmp_path / "t_parts.py").write_text(MODULE)

    def run(text: str | None, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        if text is not None:
            (tmp_path / "workers.toml").write_text(text)
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-m", "redis_worker", "check", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | dict(env or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


FILE = (
    '[worker]\nname = "shop"\n[redis]\nurl = "redis://:hush@there:6379/0"\n'
    + '[pools.sums]\ninput = "in"\noutput = "out"\nprocessor = "sum"\nprocesses = 2\n'
    + topic("handle")
    + daemon("daemon")
    + job("t_parts:job", 'timezone = "Asia/Shanghai"')
    + '[cron.k]\nenable = false\nschedule = "*"\njob = "t_absent:f"\n[http]\ntoken = "hush"\n'
)


def test_what_would_run_is_told(check: Check) -> None:
    ended = check(FILE)
    assert (ended.code, ended.err) == (0, "")
    when = r"20\d\d-\d\d-\d\d \d\d:\d[05]:00\+08:00, in ([1-4] min( \d+ s)?|5 min|\d+ s)"
    expected = [
        "shop: these would run, in this order",
        r"  pool      sums    in -> out, sum, 4 at once, on redis://:\*\*\*@there:6379/0, in 2 processes of its own",
        r"  topics    topics  t, on redis://:\*\*\*@there:6379/0",
        "                    t: handle, 4 at once, 3 retries",
        "  daemon    d       t_parts:daemon",
        rf"  cron job  j       \*/5 \* \* \* \* \(Asia/Shanghai\): t_parts:job, next {when}",
        "it would serve HTTP on 127.0.0.1, port 8084, with a token",
        "these would not run",
        "  cron.k  enable = false",
    ]
    lines = ended.out.splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert "hush" not in ended.out


def test_mistakes_are_told_a_line_each(check: Check) -> None:
    ended = check(FILE.replace("processor =", "procesor =") + "prot = 1")
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.splitlines() == [
        "workers.toml:5: pools.sums: the key processor is missing",
        "workers.toml:8: pools.sums.procesor: unknown key, did you mean processor?",
        "workers.toml:24: http.prot: unknown key, did you mean port?",
    ]


def test_what_is_named_is_looked_for(check: Check) -> None:
    ended = check(FILE.replace("t_parts:daemon", "t_parts:demon"))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("workers.toml:13: daemons.d.run: the daemon 't_parts:demon': module t_parts has no fun")
    assert ended.err.count("\n") == 1


def test_no_file(check: Check) -> None:
    assert check(None) == (2, "", "workers.toml: cannot be read: No such file or directory\n")
    assert check(None, "other.toml").err == "other.toml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "env", "expected"),
    [
        (("--only", "sums,d"), {}, ["sums", "d"]),
        (("--only", "sums", "--only", "cron"), {}, ["sums", "j"]),
        (("--except", "cron,topics"), {}, ["sums", "d"]),
        (("--except", "daemons", "--except", "pools.sums"), {}, ["topics", "j"]),
        ((), {"REDIS_WORKER_ONLY": "t, j", "REDIS_WORKER_EXCEPT": "j"}, ["topics"]),
        ((), {"REDIS_WORKER_ONLY": "", "REDIS_WORKER_EXCEPT": ""}, ["sums", "topics", "d", "j"]),
    ],
)
def test_what_is_to_run_can_be_said(
    check: Check, arguments: tuple[str, ...], env: Mapping[str, str], expected: list[str]
) -> None:
    ended = check(FILE, *arguments, env=env)
    assert ended.code == 0, ended.err
    shown = re.findall(r"^  (?:pool|topics|daemon|cron job) +(\w+)", ended.out, re.MULTILINE)
    assert shown == expected


def test_the_file_can_be_said_in_the_environment(check: Check, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(daemon("daemon"))
    ended = check(None, env={"REDIS_WORKER_CONFIG": "other.toml"})
    assert ended.out == "other: these would run, in this order\n  daemon  d  t_parts:daemon\n"


def test_names_that_there_are_not(check: Check) -> None:
    ended = check(FILE, "--only", "smus", "--except", "x")
    assert ended.code == 2
    assert ended.err.splitlines()[1] == "workers.toml: --only: the file has nothing named 'smus', did you mean sums?"
    assert check(FILE, "--only", "a,,b").err.endswith("'--only': it must not be empty.\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "workers: nothing would run\n"),
        (
            "[worker]\nenable = false\n" + daemon("daemon"),
            "nothing would run\nthese would not run\n  daemons.d  worker.enable",
        ),
        (
            '[worker]\nmode = "embedded"',
            'mode = "embedded": runs inside a host application; `redis-worker serve`',
        ),
        ('[worker]\nmode = "standalone"', 'mode = "standalone": runs as a separate service, not inside'),
    ],
)
def test_files_that_run_nothing(check: Check, text: str, expected: str) -> None:
    ended = check(text)
    assert ended.code == 0
    assert expected in ended.out


def test_the_example_works() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "redis_worker", "check", "examples/workers.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("  cron job  ") == 2


@pytest.mark.parametrize(
    ("now", "schedule", "expected"),
    [
        ("2026-11-22T12:00:00", "0 13 * * *", "2026-11-22 13:00:00+00:00, in 1 h"),
        ("2026-11-22T12:00:01", "0 12 * * *", "2026-11-23 12:00:00+00:00, in 23 h 59 min"),
        ("2026-11-22T12:00:00", "0 13 25 12 *", "2026-12-25 13:00:00+00:00, in 33 days 1 h"),
        ("2026-11-22T12:00:00", "5 12 23 11 *", "2026-11-23 12:05:00+00:00, in 1 day"),
        ("2026-11-22T12:00:00.9", "1 0 12 * * *", "2026-11-22 12:00:01+00:00, in 1 s"),
    ],
)
def test_when_a_job_is_due(now: str, schedule: str, expected: str) -> None:
    part = JobPart("j", URL, JobSettings("j", "a", schedule, job="m:f"))
    assert next_firing(part, datetime.fromisoformat(now).replace(tzinfo=UTC)) == expected
