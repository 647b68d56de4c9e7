"""Apache Kafka itself: what a mock cluster does not have, or may do differently."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from redis_worker import KafkaMessage, Refused
from redis_worker.ports import Observer, Partition
from tests.kafka.kafka_support import KafkaTopic, MemorySink, Seen, two_members_share
from tests.kafka.real_broker import PASSWORD, USER, RealKafka
from tests.support import CommandProcess, wait_until

SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": USER}


@pytest.fixture
def topic(real_kafka: RealKafka) -> KafkaTopic:
    return KafkaTopic.on(real_kafka)


async def test_a_regular_expression_finds_topics_that_are_made_later(real_kafka: RealKafka, topic: KafkaTopic) -> None:
    seen = Seen()
    topic.produce(range(10))
    async with topic.worker(
        seen, topics=rf"^{topic.name}(\.more)?$", properties={"topic.metadata.refresh.interval.ms": 500}
    ) as worker:
        await wait_until(lambda: len(seen.values) == 10)
        later = KafkaTopic(real_kafka.brokers)
        later.name = f"{topic.name}.more"
        real_kafka.create_topic(later.name, 2)
        later.produce(range(10, 20))
        await wait_until(lambda: len(seen.values) == 20)
        assert {partition.topic for partition in worker.partitions()} == {topic.name, later.name}


@pytest.mark.parametrize("assignment", ["round-robin", "range"])
async def test_assignments_that_move_all_partitions_handle_each_message_once(
    topic: KafkaTopic, assignment: str
) -> None:
    """The mock cluster refuses the commits of such a member while others join; Kafka takes them."""
    await two_members_share(topic, assignment, once=True)


@pytest.mark.parametrize("protocol", ["sticky", "round-robin", "consumer"])
async def test_members_share_and_a_killed_one_is_replaced(topic: KafkaTopic, protocol: str, tmp_path: Path) -> None:
    """With the protocol of the clients, cooperative or not, and with that of the brokers (KIP-848)."""
    log = tmp_path / "log"
    topic.produce(range(1000))
    command = (topic.brokers, topic.name, str(log), "", protocol)
    processes = [CommandProcess(*command, program="tests.kafka.killed_worker") for _ in range(2)]
    try:
        await wait_until(lambda: sum(topic.committed()) > 100)
        processes[0].kill()
        topic.produce(range(1000, 2000))
        await wait_until(lambda: sum(topic.committed()) == 2000)
        processes[1].process.terminate()
        assert await processes[1].ended() == 0
    finally:
        for process in processes:
            process.close()
    assert set(log.read_text().split()) == set(map(str, range(2000)))


@pytest.mark.parametrize("stores_offsets", [False, True])
async def test_the_protocol_of_the_brokers_gives_and_takes_partitions(topic: KafkaTopic, stores_offsets: bool) -> None:
    database = MemorySink(stores_offsets=stores_offsets)

    async def handler(message: Any) -> dict[str, Any]:
        return {"n": message.data}

    def member() -> Any:
        worker = topic.worker(handler, sink=database.for_member())
        worker._settings.properties.clear()
        worker._settings.properties["group.protocol"] = "consumer"
        return worker

    topic.produce(range(500))
    async with member() as one:
        await wait_until(lambda: len(database.rows) > 0)
        async with member() as other:
            await wait_until(lambda: len(one.partitions()) == len(other.partitions()) == 2)
            topic.produce(range(500, 1000))
            await wait_until(lambda: sum(topic.committed()) == 1000)
        await wait_until(lambda: len(one.partitions()) == 4)
    assert sorted(row["n"] for row in database.rows) == list(range(1000))


async def test_a_static_member_that_restarts_keeps_its_partitions(real_kafka: RealKafka, topic: KafkaTopic) -> None:
    """The group does not rebalance: the other member keeps its own, and hears of nothing."""
    first, second = Seen(), Seen()
    properties = {"session.timeout.ms": 30_000}
    async with topic.worker(first, instance_id="one", properties=properties) as one:
        await wait_until(lambda: len(one.partitions()) == 4)
        worker = topic.worker(second, instance_id="two", properties=properties)
        async with worker:
            await wait_until(lambda: len(worker.partitions()) == len(one.partitions()) == 2)
            owned = {partition.partition for partition in worker.partitions()}
        assert len(one.partitions()) == 2
        again, taking = (topic.worker(second, instance_id="two", properties=properties) for _ in range(2))
        # Another process of the same name takes its place, and it ends with a sentence.
        with pytest.raises(Refused, match="same instance_id: give each one of its own"):
            async with again:
                await wait_until(lambda: {partition.partition for partition in again.partitions()} == owned)
                topic.produce(range(100), key=lambda number: number)
                await wait_until(lambda: len(first.values) + len(second.values) == 100)
                assert {message.partition for message in second.messages} == owned
                running = asyncio.create_task(taking.run())
                await asyncio.sleep(60)
        taking.stop()
        await running


async def test_a_password(real_kafka: RealKafka, topic: KafkaTopic) -> None:
    topic.brokers = real_kafka.sasl_brokers
    wrong = topic.worker(Seen(), properties=SASL | {"sasl.password": "wrong"})
    with pytest.raises(Refused, match=r"Kafka refuses the login: .*; check sasl.username, sasl.password") as refusal:
        await wrong.run()
    assert "wrong" not in str(refusal.value)
    seen = Seen()
    topic.brokers = real_kafka.brokers
    topic.produce([1])
    topic.brokers = real_kafka.sasl_brokers
    async with topic.worker(seen, properties=SASL | {"sasl.password": PASSWORD}):
        await wait_until(lambda: seen.values == [1])


async def test_a_topic_that_is_deleted_holds_up_no_other(real_kafka: RealKafka, topic: KafkaTopic) -> None:
    seen = Seen()
    other = KafkaTopic.on(real_kafka)
    topic.produce([1])
    async with topic.worker(
        seen, topics=[topic.name, other.name], properties={"topic.metadata.refresh.interval.ms": 500}
    ):
        await wait_until(lambda: seen.values == [1])
        client = AdminClient({"bootstrap.servers": real_kafka.brokers})
        client.delete_topics([topic.name])[topic.name].result(30)
        await asyncio.sleep(2)
        other.produce([2])
        await wait_until(lambda: seen.values == [1, 2])


class Committed(Observer):
    """The topics of the commits so far."""

    def __init__(self) -> None:
        self.topics: set[str] = set()

    def committed(self, partitions: Collection[Partition]) -> None:
        self.topics |= {topic for topic, _ in partitions}


async def test_a_deleted_topic_with_messages_at_work_holds_up_no_commit(
    real_kafka: RealKafka, topic: KafkaTopic
) -> None:
    other = KafkaTopic.on(real_kafka)
    deleted = asyncio.Event()
    begun: list[Any] = []
    committed = Committed()

    async def handle(message: KafkaMessage) -> None:
        begun.append(message.data)
        await deleted.wait()

    topic.produce([1])
    other.produce([2])
    async with topic.worker(handle, topics=[topic.name, other.name], observers=[committed]):
        await wait_until(lambda: sorted(begun) == [1, 2])
        committed.topics.clear()  # of the marks
        client = AdminClient({"bootstrap.servers": real_kafka.brokers})
        client.delete_topics([topic.name])[topic.name].result(30)
        deleted.set()
        await wait_until(lambda: committed.topics == {other.name})


async def test_a_group_of_other_members_is_refused_in_a_sentence(topic: KafkaTopic) -> None:
    other = {"bootstrap.servers": topic.brokers, "group.id": topic.name, "partition.assignment.strategy": "range"}
    with closing(Consumer(other)) as consumer:
        consumer.subscribe([topic.name])
        await wait_until(lambda: consumer.poll(0.05) or consumer.assignment())
        worker = topic.worker(Seen())
        with pytest.raises(
            Refused, match="assign partitions in another way: end them, set `assignment` as they do, or"
        ):
            await worker.run()
