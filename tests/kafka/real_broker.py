"""Apache Kafka on this machine: fetched by Maven once, and started as one node or more.

    python -m tests.kafka.real_broker --nodes 3     starts them, prints their addresses, and ends them with Ctrl-C

Each node is broker and controller (KRaft). Beside the plain listener it has one with SASL (PLAIN): `USER`, `PASSWORD`.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from redis_worker.embedded import HOST
from redis_worker.process_guard import ProcessGuard
from tests.session import free_port

VERSION = "4.1.1"
USER, PASSWORD = "worker", "hushhush"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "redis-worker" / f"kafka-{VERSION}"
_START_TIMEOUT = 60.0
_JAVA = ("-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp")
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
</dependency></dependencies></project>
"""
_PROPERTIES = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},SASL_PLAINTEXT://{host}:{sasl},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port},SASL_PLAINTEXT://{host}:{sasl}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
log.dirs={folder}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr=1
default.replication.factor={replicas}
min.insync.replicas={insync}
num.partitions=4
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""


def missing_tools() -> str:
    """Return a sentence that names what a real Kafka needs and this machine lacks, or an empty text."""
    missing = [name for name in ("java", *(() if _fetched() else ("mvn",))) if not shutil.which(name)]
    return f"a real Kafka needs {' and '.join(missing)}" if missing else ""


class RealKafka:
    """A cluster of as many nodes, on ports of its own in a temporary folder; all end with this process."""

    def __init__(self, count: int = 1) -> None:
        self.folder = Path(tempfile.gettempdir()) / f"redis-worker-{secrets.token_hex(8)}"
        self._count = count
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._first_port = 0

    @property
    def brokers(self) -> str:
        return ",".join(f"{HOST}:{self._port(node)}" for node in self._numbers)

    @property
    def sasl_brokers(self) -> str:
        """The listeners that ask for USER and PASSWORD."""
        return ",".join(f"{HOST}:{self._port(node) + 1}" for node in self._numbers)

    def __enter__(self) -> Self:
        self._classes = f"{_libraries()}/*"
        self._first_port = free_port(3 * self._count)
        self._guard = ProcessGuard(self.folder)
        try:
            self._format()
            for node in self._numbers:
                self.start(node)
            self.wait_until_up()
        except BaseException:
            self._guard.dismiss()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._guard.dismiss()

    def start(self, node: int = 1) -> None:
        """Start a node again, on its port and with its data."""
        command = ["java", *_JAVA, self._classes, "kafka.Kafka", str(self._settings(node))]
        self._nodes[node] = self._guard.spawn(command, self._log(node), cwd=self.folder)

    def end(self, node: int = 1, by: signal.Signals = signal.SIGKILL) -> None:
        """End a node: SIGTERM is a controlled shutdown, SIGKILL a crash."""
        self._nodes[node].send_signal(by)
        self._nodes[node].wait(60)

    def restart(self, node: int = 1, by: signal.Signals = signal.SIGKILL) -> None:
        """End a node, start it again and return when the cluster answers."""
        self.end(node, by)
        self.start(node)
        self.wait_until_up()

    def create_topic(self, topic: str, partitions: int = 4, **config: Any) -> None:
        """Create a topic, on all nodes, and return when each partition has a leader."""
        config = {name.replace("_", "."): str(value) for name, value in config.items()}
        client = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
        client.create_topics([NewTopic(topic, partitions, min(self._count, 3), config=config)])[topic].result(30)
        self._wait(lambda: len(self._led(client, topic)) == partitions, f"the topic {topic} has no leaders")

    def wait_until_up(self) -> None:
        """Return when each node answers and knows all others, and each partition has a leader."""

        def is_up(client: AdminClient) -> bool:
            metadata = client.list_topics(timeout=5)
            return len(metadata.brokers) == self._count and all(
                self._led(client, topic) == set(found.partitions) for topic, found in metadata.topics.items()
            )

        for broker in self.brokers.split(","):
            client = AdminClient({"bootstrap.servers": broker, "log_level": 0})
            self._wait(partial(is_up, client), f"Kafka did not start at {broker}")

    @property
    def _numbers(self) -> range:
        return range(1, self._count + 1)

    def _port(self, node: int) -> int:
        return self._first_port + 3 * (node - 1)

    def _settings(self, node: int) -> Path:
        return self.folder / f"{node}.properties"

    def _log(self, node: int) -> Path:
        return self.folder / f"{node}.log"

    def _format(self) -> None:
        # An id may not begin with -, which would be an option.
        id = "a" + secrets.token_urlsafe(16)[1:]
        voters = ",".join(f"{node}@{HOST}:{self._port(node) + 2}" for node in self._numbers)
        formatting = []
        for node in self._numbers:
            port = self._port(node)
            self._settings(node).write_text(
                _PROPERTIES.format(
                    node=node,
                    voters=voters,
                    host=HOST,
                    port=port,
                    sasl=port + 1,
                    controller=port + 2,
                    user=USER,
                    password=PASSWORD,
                    folder=self.folder / str(node),
                    replicas=min(self._count, 3),
                    insync=2 if self._count >= 3 else 1,
                )
            )
            command = ["java", *_JAVA, self._classes, "kafka.tools.StorageTool", "format", "-t", id]
            formatting.append(self._guard.spawn([*command, "-c", str(self._settings(node))], self._log(node)))
        for node, process in zip(self._numbers, formatting, strict=True):
            assert process.wait(60) == 0, self._log(node).read_text()

    def _led(self, client: AdminClient, topic: str) -> set[int]:
        partitions = client.list_topics(topic, timeout=60).topics[topic].partitions
        return {number for number, partition in partitions.items() if partition.leader >= 0}

    def _wait(self, is_true: Any, failure: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                if is_true():
                    return
            except KafkaException as error:
                failure = f"{failure.partition(':')[0]}: {error}"
            logs = [self._log(node).read_text()[-2000:] for node in self._nodes]
            assert time.monotonic() < deadline, f"{failure}\n{logs}"
            time.sleep(0.1)


def _fetched() -> bool:
    return (_CACHE / "libs").is_dir()


def _libraries() -> Path:
    """Return the folder of Kafka's libraries; Maven fetches them if this is the first time."""
    if _fetched():
        return _CACHE / "libs"
    with _locked():
        if not _fetched():
            fresh = Path(tempfile.mkdtemp(dir=_CACHE))
            (fresh / "pom.xml").write_text(_POM)
            copy = ("dependency:copy-dependencies", f"-DoutputDirectory={fresh / 'libs'}")
            subprocess.run(["mvn", "-q", "-B", *copy], check=True, cwd=fresh, timeout=300)
            (fresh / "libs").rename(_CACHE / "libs")
            shutil.rmtree(fresh)
    return _CACHE / "libs"


@contextmanager
def _locked() -> Iterator[None]:
    """Let one process at a time fetch."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def real_kafka_or_skip(count: int = 1) -> RealKafka:
    """Return a cluster to be started; skip the test where it cannot be had."""
    if sentence := missing_tools():
        pytest.skip(sentence)
    return RealKafka(count)


def main() -> None:
    parser = argparse.ArgumentParser(description="Start a real Kafka until Ctrl-C.")
    parser.add_argument("--nodes", type=int, default=1)
    with RealKafka(parser.parse_args().nodes) as kafka:
        print(f"KAFKA_BROKERS={kafka.brokers}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
