"""Kafka parts of a supervisor, and the commands that ask their servers."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from confluent_kafka import Producer

from redis_worker import Supervisor
from redis_worker.broker.operator.status import StatusReader
from redis_worker.embedded import EmbeddedServer
from redis_worker.file.kafka_servers import group_status
from redis_worker.file.plan import KafkaPart
from redis_worker.file.reading import read_plan
from redis_worker.file.resolving import server_mistakes
from redis_worker.mock_kafka import MockKafka
from tests.kafka.real_broker import PASSWORD, USER, RealKafka
from tests.support import PATIENCE, ROOT, wait_until
from tests.test_http import get

TABLE = "create table t (id int primary key, value text)"
# No server listens there.
NOWHERE = "127.0.0.1:1"
# Without these there is no Kafka and no PostgreSQL.
EXTRAS = ("confluent_kafka", "msgspec", "asyncpg")


class File:
    """A file with one Kafka part, on a topic and a group of its own."""

    def __init__(self, folder: Path, brokers: str, dsn: str = "") -> None:
        self.path = folder / "workers.toml"
        self.brokers = brokers
        self.dsn = dsn
        self.topic = f"raw-{secrets.token_hex(4)}"

    def write(self, part: str = "", sink: str = "", tables: str = "", **changes: str) -> Path:
        """Write it; `part`, `sink` and `tables` are further lines, `changes` other values."""
        values = {"brokers": self.brokers, "topics": self.topic, "dsn": self.dsn, "table": "t", "key": "id"} | changes
        servers = f'[kafka]\nbrokers = "{values["brokers"]}"\ngroup = "g-{self.topic}"\nconnect_timeout = 1\n'
        cases = (
            f'[kafka.cases]\ntopics = "{values["topics"]}"\nhandler = "tests.kafka.rows:to_row"\nretries = 0\n{part}\n'
        )
        if self.dsn:
            cases += (
                f'[kafka.cases.sink]\ndsn = "{values["dsn"]}"\ntable = "{values["table"]}"\nkey = "{values["key"]}"\n'
            )
            cases += f"flush_after = 0.1\n{sink}\n"
        self.path.write_text(f'[worker]\nname = "shop"\n{tables}\n{servers}{cases}')
        return self.path

    def produce(self, *rows: dict[str, Any]) -> None:
        producer = Producer({"bootstrap.servers": self.brokers, "log_level": 0})
        for number, row in enumerate(rows):
            producer.produce(self.topic, json.dumps(row).encode(), partition=number % 4)
        assert producer.flush(30) == 0


@pytest.fixture
def file(tmp_path: Path, mock_kafka: MockKafka) -> File:
    """Without a sink."""
    made = File(tmp_path, mock_kafka.brokers)
    mock_kafka.create_topic(made.topic, 4)
    return made


@pytest.fixture
async def table_file(file: File, database: str) -> File:
    """With a table as the sink."""
    await execute(database, TABLE)
    file.dsn = database
    return file


async def execute(dsn: str, statement: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def run(*arguments: str, code: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command, or `code` in its place, and return what it printed."""
    command = ["-c", code] if code is not None else ["-m", "redis_worker"]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=ROOT,
        env=os.environ | {"REDIS_URL": "redis://127.0.0.1:1"} | environment,
    )


# --- at work ---


@pytest.mark.parametrize("how", ["", 'processes = 2\noffsets = "postgres"'], ids=["one loop", "two processes"])
async def test_a_part_writes_rows_and_is_seen(table_file: File, first_server: EmbeddedServer, how: str) -> None:
    outside = f'[redis]\nurl = "{first_server.url}"\n[http]\nport = 0\n'
    rows = ({"id": number % 50, "value": str(number)} for number in range(100))
    table_file.produce(*rows, {"id": 1, "poison": 1}, {"id": "no number"})
    async with Supervisor.from_file(table_file.write(how, tables=outside)) as supervisor:
        assert supervisor.http_address

        async def metrics() -> dict[str, float]:
            """The samples that bear no bound, summed over the other labels, by name."""
            samples: dict[str, float] = {}
            for line in (await get(str(supervisor.http_address), "/metrics")).body.splitlines():
                if line.startswith(("redis_worker_kafka", "redis_worker_sink", "redis_worker_dead_letters_total")):
                    assert f'queue="{table_file.topic}"' in line
                    assert 'part="cases"' in line
                    name, _, value = line.partition("{")[0], *line.rpartition(" ")[1:]
                    samples[name] = samples.get(name, 0) + float(value)
            return samples

        async def done() -> bool:
            seen = await metrics()
            written, lag = seen.get("redis_worker_sink_rows_total"), seen.get("redis_worker_kafka_lag")
            return written == 100 and lag == supervisor.parts()[0].lag == 0

        await wait_until(done, "all to be written")
        assert await execute(table_file.dsn, "select count(*) from t") == 50
        await wait_until(lambda: supervisor.counters.dead == 1, "the poison to be a dead letter")
        seen = await metrics()
        assert seen["redis_worker_kafka_lag"] == 0
        assert seen["redis_worker_kafka_rebalances_total"] >= 1
        assert seen["redis_worker_kafka_commits_total"] >= 1
        assert seen["redis_worker_sink_refused_total"] == 1
        assert seen["redis_worker_sink_flush_rows_sum"] == 101
        assert seen["redis_worker_sink_flush_seconds_count"] == seen["redis_worker_sink_flush_rows_count"] >= 1
        assert seen["redis_worker_dead_letters_total"] == 1
        await wait_until(lambda: supervisor.ready, "both processes")
        ready = await get(supervisor.http_address, "/ready")
        assert ready.json["parts"]["cases"] == {"kind": "kafka", "state": "running", "restarts": 0, "lag": 0}
        async with StatusReader(first_server.url) as reader:

            async def announced() -> bool:
                mine = [each for each in (await reader.read()).supervisors if each.pid == os.getpid()]
                parts = [part for each in mine for part in each.parts]
                return [(part.name, part.kind, part.lag) for part in parts] == [("cases", "kafka", 0)]

            await wait_until(announced, "the status to show it")
    [part] = supervisor.plan.parts
    assert isinstance(part, KafkaPart)
    [row] = await group_status(part, 5)
    assert (row.partitions, row.problem) == (4, None)
    # The mock refuses the commits of one process while another one leaves: there the offsets in the table count.
    assert how or row.lag == 0


async def test_a_part_that_waits_for_kafka_is_not_ready(file: File) -> None:
    path = file.write("wait = true", tables="[http]\nport = 0", brokers=NOWHERE)
    async with Supervisor.from_file(path) as supervisor:
        assert supervisor.http_address
        await wait_until(lambda: supervisor.parts()[0].state == "waiting for Kafka", "the part to begin")
        assert supervisor.condition == "waiting for Kafka"
        ready = await get(supervisor.http_address, "/ready")
        assert (ready.status, ready.json["reason"]) == (503, "cases: waiting for Kafka")


async def test_the_command_without_a_file(table_file: File) -> None:
    table_file.produce(*({"id": number, "value": ""} for number in range(20)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "redis_worker", "kafka", "--topic", table_file.topic, "--group", "by-hand"),
        *("--handler", "tests.kafka.rows:to_row", "--table", "t", "--key", "id", "-X", "session.timeout.ms=6000"),
        cwd=ROOT,
        env=os.environ | {"KAFKA_BROKERS": table_file.brokers, "DATABASE_URL": table_file.dsn, "BATCH_SIZE": "7"},
    )

    async def written() -> bool:
        return bool(await execute(table_file.dsn, "select count(*) from t") == 20)

    await wait_until(written, "the rows")
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


# --- what is wrong, in a sentence with its line ---


MISTAKES: dict[str, tuple[Callable[[File], Path], str]] = {
    "brokers": (
        lambda file: file.write(brokers=NOWHERE),
        f"5: kafka.brokers: no Kafka at {NOWHERE} (",
    ),
    "topic": (lambda file: file.write(topics="nix"), "9: kafka.cases.topics: Kafka at {brokers} has no topic 'nix'"),
    "database": (
        lambda file: file.write(dsn=f"postgresql://u:hush@{NOWHERE}/d"),
        f"14: kafka.cases.sink.dsn: PostgreSQL at {NOWHERE}/d cannot be reached",
    ),
    "password": (
        lambda file: file.write(dsn=file.dsn.replace("@", "hush@")),
        "15: kafka.cases.sink.table: PostgreSQL at {place} refuses the login: password authentication failed",
    ),
    "option": (
        lambda file: file.write(dsn=f"{file.dsn}?sslmode=hush"),
        "14: kafka.cases.sink.dsn: the DSN of PostgreSQL at {place} has an invalid option after the `?`",
    ),
    "table": (
        lambda file: file.write(table="nix"),
        "15: kafka.cases.sink.table: there is no table 'nix' in the database",
    ),
    "index": (
        lambda file: file.write(key="value"),
        "15: kafka.cases.sink.table: the table 't' has no primary key or unique index on (value)",
    ),
    "type": (
        lambda file: file.write(sink='columns = { id = "text" }'),
        "15: kafka.cases.sink.table: the column 'id' of the table 't' is integer, not text",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
async def test_what_servers_object_to_has_the_line_of_its_key(table_file: File, case: str) -> None:
    write, expected = MISTAKES[case]
    path = write(table_file)
    [mistake] = await server_mistakes(read_plan(path, environment={}), 0.5)
    place = table_file.dsn.rpartition("@")[2]
    line, _, text = expected.format(brokers=table_file.brokers, place=place).partition(": ")
    assert mistake.text.startswith(text)
    assert mistake.line == int(line)
    assert "hush" not in mistake.text


@pytest.mark.parametrize(
    "command",
    [
        ["serve"],
        pytest.param(["check", "--connect"], marks=pytest.mark.long),
        pytest.param(["status", "--file"], marks=pytest.mark.long),
        pytest.param(["doctor", "--file"], marks=pytest.mark.long),
    ],
    ids=lambda command: command[0],
)
def test_brokers_that_are_not_there_end_a_command_with_3(file: File, command: list[str]) -> None:
    done = run(*command, str(file.write(brokers=NOWHERE)))
    assert done.returncode == 3, done.stderr
    [sentence] = [line for line in (done.stdout + done.stderr).splitlines() if "no Kafka at" in line]
    assert f"no Kafka at {NOWHERE} (" in sentence
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--brokers", NOWHERE], 3, f"no Kafka at {NOWHERE} ("),
        (["--brokers", "localhost:hush"], 2, "the Kafka setting brokers must be host:port,host:port; a user name"),
        (["--topic", "nix"], 3, "has no topic 'nix'"),
        (["--handler", "tests.kafka.rows:to_now"], 2, "module tests.kafka.rows has no function 'to_now'"),
        (["--table", "t"], 2, "--table needs --key, and --dsn or $POSTGRES_DSN or $DATABASE_URL"),
        (["--key", "id"], 2, "--key and --exactly-once are for --table"),
        (["-X", "hush"], 2, "-X / --property takes NAME=VALUE"),
        (["-X", "nix=hush"], 2, 'No such configuration property: "nix"'),
        (["-X", "enable.auto.commit=hush"], 2, "the Kafka property enable.auto.commit cannot be set"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_is_wrong_on_the_command_line(file: File, arguments: list[str], code: int, expected: str) -> None:
    usual = {"--brokers": file.brokers, "--topic": file.topic, "--handler": "tests.kafka.rows:to_row"}
    given = [word for pair in usual.items() if pair[0] != arguments[0] for word in pair]
    done = run("kafka", "--group", "g", "--connect-timeout", "1", *given, *arguments)
    assert done.returncode == code, done.stderr
    assert expected in done.stderr
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_password_and_a_missing_topic_of_kafka(tmp_path: Path, real_kafka: RealKafka) -> None:
    file = File(tmp_path, real_kafka.sasl_brokers)
    real_kafka.create_topic(file.topic)
    properties = 'connect_timeout = 30\nproperties = { "security.protocol" = "SASL_PLAINTEXT", '
    properties += f'"sasl.mechanism" = "PLAIN", "sasl.username" = "{USER}", "sasl.password" = '
    right = file.write(f'{properties} "{PASSWORD}" }}')
    done = run("serve", str(right))
    assert done.returncode == 3, done.stderr
    assert f"has no topic 'g-{file.topic}.dead' for dead letters: create it, or set dead_letters" in done.stderr
    real_kafka.create_topic(f"g-{file.topic}.dead", 1)
    done = run("check", "--connect", str(right))
    assert done.returncode == 0, done.stderr
    wrong = str(file.write(f'{properties} "wrongword" }}'))
    secured = ["security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN", f"sasl.username={USER}"]
    by_hand = ["--brokers", file.brokers, "--topic", file.topic, "--group", "g", "--handler", "tests.kafka.rows:to_row"]
    by_hand += [word for each in (*secured, "sasl.password=wrongword") for word in ("-X", each)]
    for command in (
        ["check", "--connect", wrong],
        ["serve", wrong],
        ["kafka", *by_hand],
        ["kafka", "--wait", *by_hand],
    ):
        done = run(*command)
        assert done.returncode == 3, done.stderr
        assert "Kafka refuses the login" in done.stderr
        assert "wrongword" not in done.stdout + done.stderr


# --- without Redis ---


def test_the_status_of_a_file_needs_no_redis(file: File) -> None:
    file.produce(*({"id": number} for number in range(10)))
    path = str(file.write())
    done = run("status", "--file", path, "--json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)["kafka"]
    assert (row["part"], row["topic"], row["group"]) == ("cases", file.topic, f"g-{file.topic}")
    assert (row["partitions"], row["lag"], row["problem"]) == (4, 10, None)
    shown = run("status", "--file", path).stdout
    assert file.topic in shown
    assert "worker" not in shown


def test_the_doctor_of_a_file_needs_no_redis(table_file: File) -> None:
    done = run("doctor", "--file", str(table_file.write()), "--json")
    assert done.returncode == 0, done.stderr
    findings = {finding["subject"]: finding["what"] for finding in json.loads(done.stdout)["findings"]}
    subjects = ("brokers", "topics", "group", "dead letters", "sink")
    assert list(findings) == [f"kafka cases: {what}" for what in subjects]
    assert findings["kafka cases: topics"] == f"{table_file.topic}, 4 partitions"
    done = run("doctor", "--file", str(table_file.write(table="nix")))
    assert done.returncode == 1
    assert "fault" in done.stdout


# --- without the extras ---


@pytest.fixture
def bare() -> str:
    """The code of the command, in a Python that has none of the extras."""
    blocked = ", ".join(f"{name!r}: None" for name in EXTRAS)
    return f"import sys; sys.modules.update({{{blocked}}}); from redis_worker.cli.main import main; main()"


def test_all_else_runs_without_the_extras(tmp_path: Path, bare: str) -> None:
    pools = tmp_path / "pools.toml"
    pools.write_text('[pools.a]\ninput = "in"\noutput = "out"\nprocessor = "sum"\n')
    assert run("check", str(pools), code=bare).returncode == 0
    assert run("kafka", "--help", code=bare).returncode == 0
    # A decorator of functions reads their annotations at once: these names need their extra when they are imported.
    names = (
        "import redis_worker; own = {'Handle', 'TaskQueue', 'chain', 'group'}; "
        "[getattr(redis_worker, name) for name in redis_worker.__all__ if name not in own]"
    )
    done = run(code=bare.partition("from")[0] + names)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["check"], marks=pytest.mark.long),
        ["serve"],
        pytest.param(["doctor", "--file"], marks=pytest.mark.long),
    ],
    ids=lambda command: command[0],
)
def test_a_missing_extra_is_named(tmp_path: Path, bare: str, command: list[str]) -> None:
    done = run(*command, str(File(tmp_path, NOWHERE).write()), code=bare)
    assert done.returncode == 2, done.stderr
    assert "needs the extra `kafka` (confluent_kafka is missing): pip install 'redis-worker[kafka]'" in done.stderr
    done = run(*command, str(File(tmp_path, NOWHERE, "postgresql://h/d").write()), code=bare)
    assert done.returncode == 2
    assert "needs the extra `postgres` (asyncpg is missing): pip install 'redis-worker[postgres]'" in done.stderr
