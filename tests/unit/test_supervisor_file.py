"""A file of parts: what it comes to, and all that can be wrong with it."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_worker import ConfigurationError
from redis_worker.cron.settings import JobSettings, Push
from redis_worker.file import schema
from redis_worker.file.mistakes import FileMistakes
from redis_worker.file.plan import (
    DaemonPart,
    HttpSettings,
    JobPart,
    Plan,
    PoolPart,
    Supervision,
    TopicSettings,
    TopicsPart,
)
from redis_worker.file.reading import read_plan
from tests.support import PATIENCE, ROOT

URL = "redis://there:6379/0"
POOL = '[pools.a]\ninput = "in"\noutput = "out"\nprocessor = "sum"\n'
TOPIC = '[topics.t]\nhandler = "m:f"\n'
DAEMON = '[daemons.d]\nrun = "m:f"\n'
JOB = '[cron.j]\nschedule = "* * * * *"\njob = "m:f"\n'
ALL = POOL + TOPIC + DAEMON + JOB


def plan_of(text: str, environment: Mapping[str, str] | None = None, **selection: Any) -> Plan:
    """The plan in a text, in which no line is indented by intention."""
    variables = {} if environment is None else environment
    return read_plan("workers.toml", dedent(text), environment=variables, default_url=lambda: URL, **selection)


def mistakes_of(text: str, environment: Mapping[str, str] | None = None, **selection: Any) -> list[str]:
    with pytest.raises(FileMistakes) as caught:
        plan_of(text, environment, **selection)
    assert isinstance(caught.value, ConfigurationError)
    shown = str(caught.value).splitlines()
    assert len(shown) == len(caught.value.mistakes)
    return shown


def names(plan: Plan) -> list[str]:
    return [part.name for part in plan.parts]


# --- what a file comes to ---


def test_a_file_with_all_there_is() -> None:
    plan = plan_of(
        """
        [worker]
        name = "shop"
        mode = "embedded"
        shutdown_timeout = "1m"
        connect_timeout = 3
        max_restarts = 5
        restart = "on-failure"

        [redis]
        url = "redis://here"

        [http]
        host = "::"
        port = 0
        token = "hush"

        [pools.fibonacci]
        input = "fib:input"
        output = "fib:output"
        processor = "fibonacci"
        parser = "any"
        concurrency = 8
        lease = "1.5m"
        result_ttl = "24h"
        timeout = 0.5
        restart = "never"
        shutdown_timeout = 4
        critical = true
        processes = 2

        [topics]
        concurrency = 50
        shutdown_timeout = 6

        [topics."order.reminder"]
        handler = "shop.handlers:remind"
        retries = 3

        [daemons.consumer]
        run = "shop.jobs:consume"
        arguments = { table = "orders", limits = [1, 2] }

        [topics."email.*"]
        handler = "shop.handlers:send"
        batch = { size = 10, within = "500ms" }
        idempotent = true

        [cron]
        timezone = "Asia/Shanghai"
        url = "redis://elsewhere"

        [cron.sync_user]
        schedule = "*/5 * * * *"
        job = "shop.jobs:sync_user"
        timeout = 60
        overlap = "queue"

        [cron.nightly]
        schedule = "0 2 * * *"
        timezone = "UTC"
        push = { input = "fib:input", task = [30, { deep = true }] }
        catchup = "last"
        """
    )
    usual = {"restart": "on-failure", "max_restarts": 5}
    topics = (
        TopicSettings("order.reminder", "shop.handlers:remind", {"retries": 3}),
        TopicSettings("email.*", "shop.handlers:send", {"idempotent": True, "size": 10, "within": 0.5}, True),
    )
    jobs = (
        JobSettings(
            "sync_user", "shop", "*/5 * * * *", "Asia/Shanghai", "shop.jobs:sync_user", timeout=60.0, overlap="queue"
        ),
        JobSettings("nightly", "shop", "0 2 * * *", push=Push("fib:input", [30, {"deep": True}]), catchup="last"),
    )
    expected = Plan(
        "workers.toml",
        "shop",
        "redis://here",
        (
            PoolPart(
                *("fibonacci", "redis://here", "fib:input", "fib:output", "fibonacci", "any", 8),
                {"connect_timeout": 3.0, "lease": 90.0, "result_ttl": 86400, "timeout": 0.5},
                Supervision("never", critical=True, max_restarts=5, shutdown_timeout=4.0, processes=2),
            ),
            TopicsPart(
                *("topics", "redis://here", topics, {"connect_timeout": 3.0, "concurrency": 50}),
                Supervision(**usual, shutdown_timeout=6.0),
            ),
            DaemonPart(*("consumer", "shop.jobs:consume", {"table": "orders", "limits": [1, 2]}), Supervision(**usual)),
            *(JobPart(job.name, "redis://elsewhere", job, Supervision(**usual)) for job in jobs),
        ),
        HttpSettings("::", 0, "hush"),
        mode="embedded",
        connect_timeout=3.0,
        shutdown_timeout=60.0,
    )
    assert plan == expected
    assert isinstance(plan.parts[0].options["result_ttl"], int)  # type: ignore[union-attr]
    assert plan.lines["pools.fibonacci.concurrency"] == 23
    assert plan.lines['topics."order.reminder".handler'] == 37
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_what_is_not_said_has_its_default() -> None:
    plan = plan_of(POOL)
    assert plan.name == "workers"
    assert (plan.http, plan.mode, plan.enable, plan.left_out) == (None, None, True, ())
    assert plan.parts == (PoolPart("a", URL, "in", "out", "sum"),)
    assert plan_of("") == Plan("workers.toml", "workers", None, ())
    assert plan_of("[http]").http == HttpSettings()


def test_lines_are_no_part_of_a_comparison() -> None:
    assert plan_of(POOL) == plan_of("# more\n\n" + POOL)


@pytest.mark.parametrize(
    ("worker", "pool", "restart"),
    [
        ("", "", "always"),
        ("", "burst = true", "on-failure"),
        ("", 'burst = true\nrestart = "always"', "always"),
        ('restart = "always"', "burst = true", "on-failure"),
        ('restart = "never"', "burst = true", "never"),
        ('restart = "never"', "", "never"),
        ('restart = "never"', 'restart = "on-failure"', "on-failure"),
    ],
)
def test_when_a_pool_is_started_again(worker: str, pool: str, restart: str) -> None:
    assert plan_of(f"[worker]\n{worker}\n{POOL}{pool}").parts[0].supervision.restart == restart


def test_parts_have_the_order_of_the_file() -> None:
    text = """
        [cron.j]
        schedule = "* * * * *"
        job = "m:f"
        [pools]
        z = { input = "a", output = "b", processor = "c" }
        [daemons.d]
        run = "m:f"
        [pools.b]
        input = "a"
        output = "b"
        processor = "c"
        [topics.t]
        handler = "m:f"
        [daemons.a]
        run = "m:f"
        [topics.u]
        handler = "m:f"
        """
    assert names(plan_of(text)) == ["j", "z", "d", "b", "topics", "a"]


# --- what can be wrong ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (POOL + "concurency = 8", "5: pools.a.concurency: unknown key, did you mean concurrency?"),
        (POOL + "xxxxx = 8", "5: pools.a.xxxxx: unknown key, use one of enable, input, "),
        (POOL + "concurrency = 0", "5: pools.a.concurrency: must be at least 1, got 0"),
        (POOL + 'concurrency = "8"', '5: pools.a.concurrency: must be a whole number, got "8"'),
        (POOL + "concurrency = true", "5: pools.a.concurrency: must be a whole number, got true"),
        (POOL + "concurrency = 8.0", "5: pools.a.concurrency: must be a whole number, got 8.0"),
        (POOL + "burst = 1", "5: pools.a.burst: must be true or false, got 1"),
        (POOL + 'burst = "true"', '5: pools.a.burst: must be true or false, got "true"'),
        (POOL + "lease = 1", "5: pools.a.lease: must be at least 2, got 1.0"),
        (POOL + "lease = nan", "5: pools.a.lease: must be a number of seconds, or a text as"),
        (POOL + "lease = inf", "5: pools.a.lease: is beyond all time: inf"),
        (POOL + 'lease = "soon"', '"24h", got "soon"'),
        (POOL + "timeout = 0", "5: pools.a.timeout: must be above 0 seconds, got 0"),
        (POOL + "connect_timeout = -1", "5: pools.a.connect_timeout: must not be negative, got -1.0"),
        (POOL + "shutdown_timeout = -1", "5: pools.a.shutdown_timeout: must be at least 0 seconds, got -1"),
        (POOL + "retries = -1", "5: pools.a.retries: must be at least 0, got -1"),
        (POOL + 'result_ttl = "1500ms"', '5: pools.a.result_ttl: must be whole seconds, got "1500ms"'),
        (POOL + 'delivery = "once"', "5: pools.a.delivery: must be one of at-least-once, at-most-once, got"),
        (POOL + 'restart = "alway"', 'got "alway"; did you mean always?'),
        (POOL + "processes = 0", "5: pools.a.processes: must be at least 1, got 0"),
        (POOL + "max_restarts = -1", "5: pools.a.max_restarts: must be at least 0, got -1"),
        (POOL + "restart_backoff = 90", "5: pools.a.restart_backoff: must be at most restart_backoff_max, which is 60"),
        (POOL + "restart_backoff_max = 0.5", "5: pools.a.restart_backoff_max: must be at least restart_backoff, which"),
        (
            POOL + "retry_backoff = 9\nretry_backoff_max = 8",
            "5: pools.a.retry_backoff: must be at most retry_backoff_m",
        ),
        (POOL + 'url = "redis://u:hush@h:x"', "5: pools.a.url: the Redis URL 'redis://u:***@***' is not valid"),
        (POOL + "url = 8", "5: pools.a.url: must be a text in quotes, got 8"),
        (POOL + 'http = "8084"', "5: pools.a.http: one HTTP server answers for all parts, see the table [http]"),
        (POOL + 'log_level = "info"', "5: pools.a.log_level: not a key of the file: an option of `redis-worker serve`"),
        (POOL + "verbose = true", "5: pools.a.verbose: not a key of the file: an option of `redis-worker serve`"),
        (POOL + "[pools.a.lease]\nx = 1", "5: pools.a.lease: must be a number of seconds, or a text as"),
        ('[pools.a]\ninput = "in"\nprocessor = "sum"', "1: pools.a: the key output is missing"),
        ('\n[pools."b c"]\ninput = ""\noutput = "o"\nprocessor = "s"', '3: pools."b c".input: must not be empty'),
        (
            'pools = { a = { input = "i", output = "o", processor = "p", inptu = 1 } }',
            "1: pools.a.inptu: unknown key, did you mean input?",
        ),
        ("[[pools]]\nx = 1", "1: pools: must be a table, got a list"),
        ("[pools]\na = 1", "2: pools.a: unknown key, the only one is enable"),
        ("[pool.a]\nx = 1", "1: pool: unknown table, did you mean pools?"),
        ("\nname = 8", "2: name: unknown key outside of all tables, use one of worker, redis, "),
        ("pools = 8", "1: pools: must be a table, got 8"),
        ('[worker]\nmode = "alone"', "2: worker.mode: must be one of standalone, embedded, got"),
        ('[worker]\nname = " a"', '2: worker.name: must be printable, without leading or trailing blanks, got " a"'),
        ("[worker]\nonly = [1]", "2: worker.only: must be a list of names, as"),
        ('[worker]\nonly = [\n"a",\n"d"]\n' + POOL, "4: worker.only[1]: the file has nothing named 'd', use one of"),
        ("[worker]\nrestart_backoff = 61", "2: worker.restart_backoff: must be at most restart_backoff_max, which is"),
        ("[worker]\nlease = 61", "2: worker.lease: unknown key"),
        ('[redis]\nurl = "localhost"', "2: redis.url: the Redis URL must begin with one of redis://"),
        ('[redis]\nurl = ""', "2: redis.url: must not be empty"),
        ("[http]\nport = 65536", "2: http.port: must be at most 65535, got 65536"),
        ('[http]\nhost = "a b"', '2: http.host: must be a host or an IP address, got "a b"'),
        ('[http]\ntoken = ""', "2: http.token: must be a text in quotes, not empty"),
        ('[http]\ntoken = "hush hush"', "2: http.token: must be of printable ASCII characters without blanks"),
        ("[topics.t]\nretries = 1", "1: topics.t: the key handler is missing"),
        ('[topics."a b"]\nhandler = "m:f"', "1: topics.\"a b\": 'a b' is not a valid topic: a topic has no spaces"),
        (
            '[topics.a.b]\nhandler = "m:f"',
            '1: topics.a.b: write a name with a dot in quotes: [topics."a.b"]',
        ),
        (TOPIC + "concurrency = 0", "3: topics.t.concurrency: must be at least 1, got 0"),
        (TOPIC + 'execution = "auto"', "3: topics.t.execution: must be one of async, inline, thread, process"),
        (TOPIC + "batch = 100", "3: topics.t.batch: must be a table, as { a = 1 }, got 100"),
        (TOPIC + "batch = {size = 0}", "3: topics.t.batch.size: must be at least 1, got 0"),
        (TOPIC + "batch = {siez = 9}", "3: topics.t.batch.siez: unknown key, did you mean size?"),
        ("[topics]\nretries = 3", "2: topics.retries: unknown key"),
        ("[topics]\ndead_limit = 0", "2: topics.dead_limit: must be at least 1, got 0"),
        ("[daemons.d]", "1: daemons.d: the key run is missing"),
        (DAEMON + "arguments = [1]", "3: daemons.d.arguments: must be a table, as { a = 1 }, got a list"),
        (DAEMON + "timeout = 1", "3: daemons.d.timeout: unknown key"),
        ('[cron.j]\njob = "m:f"', "1: cron.j: the key schedule is missing"),
        ('[cron.j]\nschedule = "* * * * *"', "1: cron.j: one of the keys job and push is required"),
        (JOB + 'push = { input = "a", task = 1 }', "4: cron.j.push: excludes job"),
        ('[cron.j]\nschedule = "*"\npush = { input = "a" }', "3: cron.j.push: the key task is missing"),
        (
            '[cron.j]\nschedule = "*"\npush = { input = "a", task = [1979-05-27] }',
            "3: cron.j.push.task: must be a JSON",
        ),
        (
            '[cron.j]\nschedule = "*"\narguments = {}\npush = { input = "a", task = 1 }',
            "3: cron.j.arguments: is for job",
        ),
        (JOB + 'overlap = "skp"', 'got "skp"; did you mean skip?'),
        (
            JOB + "retry_backoff = 61\nretry_backoff_max = 60",
            "4: cron.j.retry_backoff: must be at most retry_backoff_max, which is 60",
        ),
        (JOB + "critical = true", "4: cron.j.critical: unknown key"),
        ('[cron]\njobs = ["i"]\n' + JOB, "2: cron.jobs[0]: unknown job 'i', the only one is j"),
        ("[cron]\ntimzone = 8", "2: cron.timzone: unknown key, did you mean timezone?"),
        (POOL + '[daemons.a]\nrun = "m:f"', "5: daemons.a: the name is taken by pools.a in line 1"),
        (
            '[daemons.topics]\nrun = "m:f"',
            "1: daemons.topics: a part cannot be named topics: the name selects all of",
        ),
        (
            '[daemons." a"]\nrun = "m:f"',
            '1: daemons." a": its name must be printable, without leading or trailing blanks',
        ),
        ('[daemons.""]\nrun = "m:f"', '1: daemons."": its name must not be empty'),
        ("[pools.a]\ninput = 'x'; output = 'y'", "2: Expected newline or end of document after a statement, at column"),
        ("a = 1\n\na = 2", "3: Cannot overwrite a value"),
        ("a = [1,\n2", "2: "),
    ],
)
def test_a_mistake_has_its_line(text: str, expected: str) -> None:
    shown = mistakes_of(text)
    assert len(shown) == 1, shown
    assert shown[0].startswith("workers.toml:")
    assert expected in shown[0].removeprefix("workers.toml:"), shown[0]
    assert "hush" not in shown[0]


def test_all_mistakes_are_told_at_once_and_in_order() -> None:
    text = """
        [pools.a]
        inptu = "a"
        lease = 1
        [cron]
        jobs = ["x"]
        [worker]
        only = ["nothing"]
        [daemons.d]
        run = "${NOT_SET}"
        restart = 8
        [topics.d]
        handler = 1
        """
    shown = mistakes_of(text, only=["gone"], without=["d", "bygone"])
    places = [line.split(": ")[:2] for line in shown]
    assert places == [
        ["workers.toml", "--except"],
        ["workers.toml", "--only"],
        *(["workers.toml:2", "pools.a"] for _ in range(3)),
        ["workers.toml:3", "pools.a.inptu"],
        ["workers.toml:4", "pools.a.lease"],
        ["workers.toml:6", "cron.jobs[0]"],
        ["workers.toml:8", "worker.only[0]"],
        ["workers.toml:11", "daemons.d.restart"],
        ["workers.toml:13", "topics.d.handler"],
    ]


def test_mistakes_are_told_apart_by_program() -> None:
    with pytest.raises(FileMistakes) as caught:
        plan_of(POOL + "lease = 1")
    [(line, text)] = caught.value.mistakes
    assert (line, text) == (5, "pools.a.lease: must be at least 2, got 1.0")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.mistakes) == (str(caught.value), caught.value.mistakes)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ": cannot be read: No such file or directory"),
        (b"a = 1\n\nb = '\xff'", ":3: this is not UTF-8, as TOML must be"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, ": tables and lists are nested too deeply"),
        (b"a = " + b"9" * 5000, ": is not TOML: Exceeds the limit"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, expected: str) -> None:
    file = tmp_path / "workers.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FileMistakes) as caught:
        read_plan(file, environment={})
    assert str(caught.value).startswith(f"{file}{expected}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileMistakes, match="cannot be read: Is a directory"):
        read_plan(tmp_path, environment={})


def test_files_of_windows(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_bytes(b"\xef\xbb\xbf" + POOL.replace("\n", "\r\n").encode() + b"lease = 1")
    with pytest.raises(FileMistakes, match=r"w.toml:5: pools\.a\.lease"):
        read_plan(tmp_path / "w.toml", environment={})


VALUES = (
    *(
        "1",
        "-1",
        "0",
        "1.5",
        "nan",
        "inf",
        "true",
        "false",
        "1979-05-27",
        "07:32:00",
        "[]",
        '["p"]',
        "[1]",
        "{}",
        "{a = 1}",
    ),
    *(
        '""',
        '"p"',
        '"90s"',
        '" "',
        '"${X}"',
        '"${N}"',
        '"$${X}"',
        '"${"',
        '"* * * * *"',
        '"always"',
        '"skip"',
        '"\\u0000"',
    ),
    *(
        '"redis://there"',
        '"async"',
        '"embedded"',
        '"at-most-once"',
        "99999999999999999999",
        '["${X}"]',
        '{input = "${X}"}',
    ),
    *('{size = 5, within = "1s"}', '{input = "in", task = [{}]}'),
)


@st.composite
def files(draw: st.DrawFn) -> str:
    """Files that may be right, in some order, with some keys of each table said anyhow."""
    said = {
        "[worker]": (schema.WORKER, ""),
        "[redis]": (schema.REDIS, ""),
        "[http]": (schema.HTTP, ""),
        "[pools.p]": (schema.POOL, 'input = "i" output = "o" processor = "p"'),
        "[topics]": (schema.TOPICS, ""),
        '[topics."t.*"]': (schema.TOPIC, 'handler = "m:f"'),
        "[daemons.d]": (schema.DAEMON, 'run = "m:f"'),
        "[cron]": (schema.CRON, ""),
        "[cron.j]": (schema.JOB, 'schedule = "* * * * *" job = "m:f"'),
        "[cron.k]": (schema.JOB, 'schedule = "* * * * *" push = {input="i",task=1}'),
    }
    text = ""
    for header in draw(st.lists(st.sampled_from(list(said)), unique=True)):
        keys, usual = said[header]
        pairs = dict(re.findall(r'(\w+) = (".*?"|\S+)(?: |$)', usual))
        more = st.dictionaries(st.sampled_from([*keys.kinds, *keys.elsewhere]), st.sampled_from(VALUES), max_size=2)
        pairs |= draw(st.just({}) | more)
        text += "".join([f"{header}\n", *(f"{key} = {value}\n" for key, value in pairs.items())])
    return text


@given(files())
def test_whatever_a_file_says_it_is_read_or_its_mistakes_are_told(text: str) -> None:
    lines = text.count("\n")
    try:
        plan = plan_of(text, {"N": "8"})
    except FileMistakes as error:
        mistakes = error.mistakes
    else:
        mistakes = []
        assert all(line <= lines for line in plan.lines.values())
        headers = re.findall(r"^\[\w+\.(\S+)\]", text, re.MULTILINE)
        parts = [topic for part in plan.parts for topic in (part.topics if isinstance(part, TopicsPart) else [part])]
        assert len(parts) + len(plan.left_out) == len(headers)
    assert all(0 < line <= lines for line, _ in mistakes)


# --- the environment ---


def test_variables() -> None:
    environment = {"N": "8", "ON": "true", "NAME": "sum", "EMPTY": "", "T": "1.5m", "F": "2.5"}
    plan = plan_of(
        """
        [pools.a]
        input = "${NAME}:${EMPTY:-in}"
        output = "$${NAME}-$N-${NONE:-}."
        processor = "${NAME}"
        concurrency = "${N}"
        burst = "${ON}"
        lease = "${T}"
        timeout = "${F}"
        max_tasks = "${NONE:-7}"
        [daemons.d]
        run = "m:f"
        arguments = { a = "${N}", b = ["${NAME}"] }
        """,
        environment,
    )
    pool, daemon = plan.parts
    assert isinstance(pool, PoolPart)
    assert isinstance(daemon, DaemonPart)
    assert (pool.input_key, pool.output_key, pool.processor, pool.concurrency) == ("sum:in", "${NAME}-$N-.", "sum", 8)
    assert pool.options == {"burst": True, "lease": 90.0, "timeout": 2.5, "max_tasks": 7}
    assert daemon.arguments == {"a": "8", "b": ["sum"]}
    assert type(daemon.arguments["a"]) is str
    assert type(pool.processor) is str


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${X}", "the variable X is not set and has no default: write ${X:-default}"),
        ("a ${X", "${ has no closing }; write a plain ${ as $${"),
        ("${X Y}", "${X Y} is not a variable: write ${NAME} or ${NAME:-default}"),
        ("${X:-${Y}}", "is not a variable"),
        ("${}", "is not a variable"),
        ("${E}", "must not be empty"),
    ],
)
def test_a_variable_that_is_none(value: str, expected: str) -> None:
    [shown] = mistakes_of(f'{DAEMON}[daemons.e]\nrun = "{value}"', {"E": ""})
    assert shown.startswith("workers.toml:4: daemons.e.run: ")
    assert expected in shown


def test_variables_deep_in_the_file() -> None:
    shown = mistakes_of(DAEMON + 'arguments = { a = [\n1,\n"${X}"] }')
    assert shown == [
        "workers.toml:5: daemons.d.arguments.a[1]: the variable X is not set and has no default: write ${X:-default}"
    ]


def test_a_value_of_the_wrong_kind_in_a_variable() -> None:
    [shown] = mistakes_of(POOL + 'concurrency = "${N}"', {"N": "eight"})
    assert shown == 'workers.toml:5: pools.a.concurrency: must be a whole number, got "${N}"'


def test_the_environment_and_the_file_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("T_ONE=file\nT_TWO=file\nREDIS_URL=redis://file\n")
    (tmp_path / "w.toml").write_text(POOL.replace('"in"', '"${T_ONE}"').replace('"out"', '"${T_TWO}"'))
    monkeypatch.setenv("T_ONE", "environment")
    [pool] = read_plan("w.toml").parts
    assert isinstance(pool, PoolPart)
    assert (pool.input_key, pool.output_key, pool.url) == ("environment", "file", "redis://file")
    assert "T_TWO" not in os.environ
    monkeypatch.setenv("REDIS_HOST", "elsewhere")
    assert read_plan("w.toml").url == "redis://elsewhere:6379/0"


def test_the_server_is_looked_for_only_if_a_part_needs_it() -> None:
    def fail() -> str:
        raise AssertionError("nobody needs it")

    def plan(text: str, **more: Any) -> Plan:
        return read_plan("w.toml", text, environment={}, default_url=fail, **more)

    assert plan(DAEMON).url is None
    assert plan(POOL + f'url = "{URL}"').url is None
    assert plan(f'[redis]\nurl = "{URL}"\n{POOL}').url == URL
    assert plan(ALL, only=["daemons"]).url is None
    assert plan(f'{JOB}[cron]\nurl = "{URL}"\n{TOPIC}[topics]\nurl = "{URL}"').url is None
    with pytest.raises(FileMistakes, match=r"^w.toml: REDIS_PORT must be a whole number"):
        read_plan("w.toml", JOB, environment={"REDIS_PORT": "x"})
    with pytest.raises(FileMistakes, match=r"^w.toml: the Redis URL must begin with"):
        read_plan("w.toml", JOB, environment={"REDIS_URL": "x"})


# --- what runs ---

SELECTION = (
    POOL + '[pools.b]\ninput = "in"\noutput = "out"\nprocessor = "sum"\n' + TOPIC + '[topics."u.v"]\nhandler = "m:f"\n'
    "[daemons.d]\nenable = false\nrun = 'm:f'\n" + JOB
)


@pytest.mark.parametrize(
    ("only", "without", "expected"),
    [
        ((), (), ["a", "b", "topics:t,u.v", "j"]),
        (("a",), (), ["a"]),
        (("j", "pools.b"), (), ["b", "j"]),
        (("pools",), (), ["a", "b"]),
        (("pools", "cron"), ("b",), ["a", "j"]),
        (("u.v",), (), ["topics:u.v"]),
        (("topics.u.v",), (), ["topics:u.v"]),
        ((), ("topics.t",), ["a", "b", "topics:u.v", "j"]),
        ((), ("topics",), ["a", "b", "j"]),
        ((), ("pools", "topics", "cron"), []),
        (("d",), (), []),
    ],
)
def test_selection(only: tuple[str, ...], without: tuple[str, ...], expected: list[str]) -> None:
    def shown(plan: Plan) -> list[str]:
        return [
            f"topics:{','.join(topic.pattern for topic in part.topics)}" if isinstance(part, TopicsPart) else part.name
            for part in plan.parts
        ]

    plan = plan_of(SELECTION, only=only, without=without)
    assert shown(plan) == expected
    assert len(plan.left_out) == 6 - sum(name.count(",") + 1 for name in expected)
    assert ("daemons.d", "enable = false") in plan.left_out
    listed = ", ".join(f'"{name}"' for name in only)
    assert shown(plan_of(f"[worker]\nonly = [{listed}]\n{SELECTION}", without=without)) == expected
    # What the caller says goes before what the file says.
    assert shown(plan_of(f'[worker]\nonly = ["a"]\n{SELECTION}', only=only or ["a"], without=())) == shown(
        plan_of(SELECTION, only=only or ["a"])
    )


def test_why_something_does_not_run() -> None:
    text = ALL + '[cron.k]\nschedule = "*"\njob = "m:f"\n[cron]\njobs = ["j"]\n[topics]\nenable = false\n'
    text += '[pools.b]\nenable = false\ninput = "in"\noutput = "out"\nprocessor = "sum"\n'
    plan = plan_of(text, only=["pools", "cron", "topics", "d"], without=["d"])
    assert names(plan) == ["a", "j"]
    assert plan.left_out == (
        ("topics.t", "topics.enable = false"),
        ("daemons.d", "in --except"),
        ("cron.k", "not in cron.jobs"),
        ("pools.b", "enable = false"),
    )
    assert plan_of(ALL, only=["a"]).left_out == tuple(
        (name, "not in only") for name in ("topics.t", "daemons.d", "cron.j")
    )


def test_a_file_that_is_disabled() -> None:
    plan = plan_of("[worker]\nenable = false\n[http]\n[redis]\nurl = '${NOT_SET}'\n" + POOL)
    assert (plan.enable, plan.parts, plan.http, plan.url) == (False, (), None, None)
    assert plan.left_out == (("pools.a", "worker.enable = false"),)


@pytest.mark.parametrize("kind", ["pools", "topics", "daemons", "cron"])
def test_a_kind_that_is_disabled(kind: str) -> None:
    plan = plan_of(f"{ALL}[{kind}]\nenable = false")
    [(name, reason)] = plan.left_out
    assert name.startswith(kind)
    assert reason == f"{kind}.enable = false"


def test_what_is_disabled_needs_no_variables_but_is_checked() -> None:
    text = DAEMON + 'enable = "${ON:-false}"\narguments = { a = "${NOT_SET}" }\n[http]\nenable = false\nport = "${P}"\n'
    assert plan_of(text).parts == ()
    assert len(mistakes_of(text, {"ON": "true"})) == 1
    assert mistakes_of(text + "prot = 1") == ["workers.toml:8: http.prot: unknown key, did you mean port?"]
    [shown, _] = mistakes_of(text.replace("${ON:-false}", "${ON}"))
    assert "daemons.d.enable: the variable ON is not set" in shown
    assert len(mistakes_of(text + JOB + 'timezone = "${NOT_SET}"')) == 1
    assert names(plan_of(text + JOB + 'timezone = "${NOT_SET}"\n' + POOL, without=["cron"])) == ["a"]


def test_reading_imports_neither_code_nor_what_is_optional(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("raise SystemExit('imported')")
    (tmp_path / "w.toml").write_text(f"{ALL}[http]\n")
    code = (
        "import sys; from redis_worker.file.reading import read_plan; read_plan('w.toml'); "
        "print({'m', 'aiohttp', 'prometheus_client', 'cronsim', 'tzdata', 'uvloop'} & {*sys.modules})"
    )
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert shown.stdout == "set()\n"
