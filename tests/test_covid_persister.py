"""The example that persists reports: what it sends, what it counts as lost, and its run with a killed consumer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import asyncpg
import orjson
import pytest
from confluent_kafka import Producer

from examples.covid_persister import DEAD_LETTERS, TOPIC
from examples.covid_persister.checking import DeadLetters, check
from examples.covid_persister.reports import Key, Report, reports
from examples.covid_persister.sending import Expected, Sender
from examples.covid_persister.servers import create_tables
from redis_worker.embedded_postgres import EmbeddedPostgres
from redis_worker.mock_kafka import MockKafka
from tests.kafka.real_broker import RealKafka

ROOT = Path(__file__).parent.parent


def newest(sent: list[Report]) -> dict[Key, int]:
    """What a table must hold: of the reports for a key the last one."""
    return dict(report.row for report in sent if report.row is not None)


def test_reports_have_their_share_of_repetitions_and_poison() -> None:
    sent = list(reports(20_000))
    assert sent == list(reports(20_000)) != list(reports(20_000, seed=2))
    valid = [report for report in sent if report.row is not None]
    assert 0.008 < 1 - len(valid) / len(sent) < 0.012
    assert 0.19 < 1 - len(newest(sent)) / len(valid) < 0.21
    for report in valid:
        (date, city, region), cases = report.row
        assert orjson.loads(report.value) == {"date": f"{date}", "city": city, "region": region, "cases": cases}


async def test_each_kind_of_loss_is_counted(database: str) -> None:
    await create_tables(database)
    with MockKafka() as kafka:
        for topic in (TOPIC, DEAD_LETTERS):
            kafka.create_topic(topic, 3)
        with closing(DeadLetters(kafka.brokers, DEAD_LETTERS)) as letters:
            sender = Sender(kafka.brokers, TOPIC)
            sent = list(reports(300, poison=0.05))
            assert sender.send(sent) == 300
            expected = sender.expected
            rows, poison = len(newest(sent)), len(expected.dead)
            assert {key: cases for key, (cases, _) in expected.rows.items()} == newest(sent)
            assert await check(database, letters, expected) == (0, rows, 0, rows + poison, [])

            await write(database, expected)
            bury(kafka.brokers, expected.dead)
            assert await check(database, letters, expected) == (rows, rows, poison, 0, [])

            await execute(database, "update covid_cases set report = report - 1 where date = '2020-02-25'")
            outcome = await check(database, letters, expected)
            assert outcome.lost > 10
            assert not outcome.is_right
            bury(kafka.brokers, {(0, 77_777): "no reason", (7, 1): "of an earlier run"})
            assert len((await check(database, letters, expected)).unexpected) == 1


async def execute(dsn: str, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def write(dsn: str, expected: Expected) -> None:
    """Write the rows as the persister would."""
    for table in ("cities", "regions"):
        names = list({key[1 if table == "cities" else 2] for key in expected.rows})
        await execute(dsn, f"insert into {table} (name) select unnest($1::text[])", names)
    statement = """insert into covid_cases select $1, cities.id, regions.id, $4, $5 from cities, regions
        where cities.name = $2 and regions.name = $3"""
    connection = await asyncpg.connect(dsn)
    await connection.executemany(statement, [(*key, *row) for key, row in expected.rows.items()])
    await connection.close()


def bury(brokers: str, dead: dict[tuple[int, int], str]) -> None:
    producer = Producer({"bootstrap.servers": brokers})
    for (partition, offset), reason in dead.items():
        headers = {"partition": str(partition), "offset": str(offset), "reason": f"Because: {reason}"}
        headers = {f"redis-worker-{name}": value for name, value in headers.items()}
        producer.produce(DEAD_LETTERS, b"", headers=headers)
    assert producer.flush(30) == 0


def run_example(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.covid_persister", *arguments],
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_the_run_ends_with_every_report_in_its_place() -> None:
    ended = run_example("--events", "3000")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    sent = list(reports(3000))
    rows, poison = len(newest(sent)), sum(report.row is None for report in sent)
    assert ended.stdout.splitlines()[-1] == f"rows {rows}, expected {rows}, dead letters {poison}, lost 0"
    assert "one consumer is killed" in ended.stdout


@pytest.mark.long
def test_the_run_on_real_servers_leaves_earlier_rows(real_kafka: RealKafka, postgres: EmbeddedPostgres) -> None:
    for seed in ("1", "2"):
        servers = {"KAFKA_BROKERS": real_kafka.brokers, "POSTGRES_DSN": postgres.dsn}
        ended = run_example("--events", "3000", "--seed", seed, "--consumers", "3", **servers)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert ended.stdout.splitlines()[-1].endswith("lost 0")


def test_servers_that_are_not_there_are_one_sentence() -> None:
    for environment in ({"KAFKA_BROKERS": "127.0.0.1:1"}, {"POSTGRES_DSN": "postgresql://u:geheim@127.0.0.1:1/db"}):
        ended = run_example(**environment)
        assert ended.returncode == 1
        assert re.fullmatch(r"Error: .{20,200}\n", ended.stderr), ended.stderr
        assert "geheim" not in ended.stderr
