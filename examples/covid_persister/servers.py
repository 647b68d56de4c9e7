"""Kafka and PostgreSQL for the example: those of the environment, or servers of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from redis_worker import RedisWorkerError
from redis_worker.embedded_postgres import EmbeddedPostgres
from redis_worker.mock_kafka import MockKafka

PARTITIONS = 4
_SCHEMA = Path(__file__).with_name("schema.sql")


@contextmanager
def kafka(*topics: str) -> Iterator[str]:
    """Yield the brokers at $KAFKA_BROKERS, or of a mock cluster, with these topics. Raises RedisWorkerError."""
    if brokers := os.environ.get("KAFKA_BROKERS"):
        create_topics(brokers, *topics)
        yield brokers
    else:
        with MockKafka() as cluster:
            for topic in topics:
                cluster.create_topic(topic, PARTITIONS)
            yield cluster.brokers


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the DSN of $POSTGRES_DSN, or of a private server, with the tables. Raises RedisWorkerError."""
    if dsn := os.environ.get("POSTGRES_DSN"):
        asyncio.run(create_tables(dsn))
        yield dsn
    else:
        with EmbeddedPostgres() as server:
            asyncio.run(create_tables(server.dsn))
            yield server.dsn


def create_topics(brokers: str, *topics: str) -> None:
    """Create the topics that do not exist. Raises RedisWorkerError."""
    client = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    try:
        missing = set(topics) - client.list_topics(timeout=10).topics.keys()
        if missing:
            for creation in client.create_topics([NewTopic(topic, PARTITIONS) for topic in missing]).values():
                creation.result()
    except KafkaException as error:
        raise RedisWorkerError(f"Kafka at {brokers} of KAFKA_BROKERS: {error.args[0].str()}") from None


async def create_tables(dsn: str) -> None:
    """Create the tables that are missing. Raises RedisWorkerError."""
    try:
        connection = await asyncpg.connect(dsn)
    except (OSError, ValueError, asyncpg.PostgresError) as error:
        raise RedisWorkerError(f"the database of POSTGRES_DSN: {error}") from None
    try:
        await connection.execute(_SCHEMA.read_text(encoding="utf-8"))
    finally:
        await connection.close()
