"""The persister on real servers, while consumers are killed and Kafka and PostgreSQL are restarted: nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from itertools import islice
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient

from examples.covid_persister import DEAD_LETTERS, TOPIC
from examples.covid_persister.checking import DeadLetters, check, read_rows
from examples.covid_persister.consumers import FILE, Consumers
from examples.covid_persister.reports import Report, reports
from examples.covid_persister.sending import Sender
from examples.covid_persister.servers import create_tables
from redis_worker.embedded_postgres import EmbeddedPostgres
from tests.kafka import applied
from tests.kafka.real_broker import RealKafka, real_kafka_or_skip
from tests.support import ended_in_time, wait_until

# Each message makes a row with its coordinates; the offsets are in the same transaction.
AUDIT = """
[kafka.audit]
group = "audit"
topics = ["covid.raw.data"]
handler = "tests.kafka.applied:coordinates"
decode = "tests.kafka.applied:raw"
dead_letters = "none"
batch = { size = 500, within = "50ms" }
sink = "tests.kafka.applied:sink"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The example's file, with offsets in Kafka, and beside it a part with offsets in PostgreSQL."""
    text = FILE.read_text().replace("[kafka.cases]", f"{AUDIT}\n[kafka.cases]")
    found = tmp_path / "workers.toml"
    found.write_text(text.replace('"session.timeout.ms" = 6000', '"session.timeout.ms" = 4000'))
    return found


class Run:
    """Reports on their way from Kafka to PostgreSQL, by three consumers."""

    def __init__(self, kafka: RealKafka, dsn: str, file: Path) -> None:
        self.sender = Sender(kafka.brokers, TOPIC)
        self.consumers = Consumers(kafka.brokers, dsn, file)
        self.letters = DeadLetters(kafka.brokers, DEAD_LETTERS)
        self.sent: list[Report] = []
        self.seen = ""
        """The state at the last look, for a failure."""
        self._admin = AdminClient({"bootstrap.servers": kafka.brokers, "log_level": 0})
        self._dsn = dsn

    async def slices(self, count: int, slices: int) -> AsyncIterator[int]:
        """Send reports, and yield the number of each slice while it is persisted."""
        source = reports(count)
        for number in range(slices):
            before = await self.applied()
            some = list(islice(source, count // slices))
            self.sent += some
            sending = asyncio.create_task(asyncio.to_thread(self.sender.send, some))
            await wait_until(lambda: self.is_past(before), "the next messages", 120)  # noqa: B023
            yield number
            await sending

    async def is_past(self, before: int) -> bool:
        await asyncio.sleep(0.05)  # each look is a connection
        assert self.consumers.failed() == []
        return await self.applied() > before

    async def applied(self) -> int:
        return int((await ask(self._dsn, "select count(*) from applied"))[0][0])

    async def is_right(self) -> bool:
        await asyncio.sleep(0.5)  # each look reads the table
        assert self.consumers.failed() == []
        outcome, applied = await check(self._dsn, self.letters, self.sender.expected), await self.applied()
        self.seen = f"{outcome}; {applied} of {len(self.sent)} applied"
        return outcome.is_right and applied >= len(self.sent)

    def members(self) -> dict[str, int]:
        """How many members each group has."""
        groups = self._admin.describe_consumer_groups(["covid-persister", "audit"], request_timeout=30)
        return {name: len(found.result().members) for name, found in groups.items()}

    async def close(self) -> None:
        self.letters.close()
        self.consumers.__exit__()


async def ask(dsn: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


async def persist(
    kafka: RealKafka, database: EmbeddedPostgres, file: Path, count: int, faults: list[Callable[[Run], None]]
) -> None:
    """Persist `count` reports, with a fault during each slice of them, and compare all that is there in the end."""
    for topic in (TOPIC, DEAD_LETTERS):
        kafka.create_topic(topic, 6)
    await create_tables(database.dsn)
    for statement in applied.SCHEMA:
        await ask(database.dsn, statement)
    run = Run(kafka, database.dsn, file)
    try:
        for _ in range(3):
            run.consumers.start()
        async for number in run.slices(count, len(faults)):
            await asyncio.to_thread(faults[number], run)
        try:
            await wait_until(run.is_right, "all reports in their places", 400)
        except AssertionError as error:
            raise AssertionError(f"{error}: {run.seen}; members {run.members()}") from None
        assert set(run.consumers.stop()) == {0}
        rows = {key: cases for key, (cases, _) in (await read_rows(database.dsn)).items()}
        assert rows == dict(report.row for report in run.sent if report.row is not None)
        assert (await check(database.dsn, run.letters, run.sender.expected)).is_right
        times = await ask(database.dsn, "select times, count(*)::int as n from applied group by times")
        assert [tuple(found) for found in times] == [(1, len(run.sent))]
    finally:
        await run.close()


def kill_one(run: Run) -> None:
    """Kill the oldest consumer as a machine is lost, and start another one."""
    run.consumers.kill()
    run.consumers.start()


def freeze_one(run: Run) -> None:
    """Stop the oldest consumer until others have its partitions; then it goes on where it was."""
    os.kill(run.consumers.oldest, signal.SIGSTOP)
    assert ended_in_time(lambda: run.members() == {"covid-persister": 2, "audit": 2}, 60)
    os.kill(run.consumers.oldest, signal.SIGCONT)


# Shorter ones: a consumer is killed in test_covid_persister.py, PostgreSQL restarts in postgres/test_outages.py,
# and brokers go away in kafka/test_kafka_faults.py.
@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_kill_and_a_restart_of_each_server_lose_nothing(own_postgres: EmbeddedPostgres, file: Path) -> None:
    with real_kafka_or_skip() as kafka:
        restarts = [lambda _: own_postgres.restart(), lambda _: kafka.restart(by=signal.SIGTERM)]
        await persist(kafka, own_postgres, file, 21_000, [kill_one, *restarts])


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_many_kills_lose_nothing(own_postgres: EmbeddedPostgres, file: Path) -> None:
    with real_kafka_or_skip() as kafka:

        def crash_database(_: Run) -> None:
            own_postgres.restart(signal.SIGKILL)

        def crash_broker(_: Run) -> None:
            kafka.restart(by=signal.SIGKILL)

        faults = [kill_one, freeze_one, crash_database, kill_one, freeze_one, crash_broker, kill_one, kill_one]
        await persist(kafka, own_postgres, file, 200_000, faults)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_one_of_three_nodes_is_killed(own_postgres: EmbeddedPostgres, file: Path) -> None:
    with real_kafka_or_skip(3) as kafka:
        faults: list[Callable[[Run], None]] = [kill_one, lambda _: kafka.end(2), kill_one]
        await persist(kafka, own_postgres, file, 30_000, faults)
