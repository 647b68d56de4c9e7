"""A Kafka worker that a test kills: `python -m tests.kafka.killed_worker BROKERS TOPIC LOG [INSTANCE [PROTOCOL]]`.

It appends the value of each message to LOG; the message "killer" ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from redis_worker import KafkaMessage, KafkaWorker
from tests.kafka.kafka_support import QUICK


def main(brokers: str, topic: str, log: str, instance: str = "", protocol: str = "sticky") -> None:
    async def handler(message: KafkaMessage) -> None:
        with Path(log).open("a") as file:
            file.write(f"{message.data}\n")
        if message.data == "killer":
            os._exit(9)
        await asyncio.sleep(0.001)

    by_brokers = protocol == "consumer"
    properties: dict[str, Any] = {"group.protocol": protocol} if by_brokers else dict(QUICK)
    assignment: Any = "sticky" if by_brokers else protocol
    worker = KafkaWorker(
        brokers, topic, topic, handler,
        concurrency=16, instance_id=instance or None, assignment=assignment, properties=properties,
    )  # fmt: skip
    asyncio.run(worker.serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
