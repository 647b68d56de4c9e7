"""One consumer of the group, without page and devices: `python -m examples.device_pipeline.consumer BROKERS REDIS`.

`--instance NAME`, another one for each consumer, makes it a static member: started again after a kill, it
goes on at once.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.device_pipeline.settings import FILE, Settings, read_settings
from examples.device_pipeline.stages import device_pipeline, sinks
from redis_worker import KafkaWorker
from redis_worker.pipeline import Pipeline


def consumer(
    settings: Settings,
    brokers: str,
    redis: str | None,
    pipeline: Pipeline,
    *,
    properties: Mapping[str, Any] | None = None,
    **options: Any,
) -> KafkaWorker:
    """Return the worker of the settings, with further properties of librdkafka, and further options of KafkaWorker.

    Without `redis` it writes nothing.
    """
    pool, kafka = settings.pool, settings.kafka
    return KafkaWorker(
        brokers,
        kafka.topics,
        kafka.group_id,
        pipeline.batch,
        sink=None if redis is None else sinks(redis, settings),
        redis=redis,
        decode=bytes,
        properties={**kafka.properties(), **(properties or {})},
        start=kafka.auto_offset_reset,
        assignment=kafka.assignment,
        batch=True,
        size=min(pool.batch, kafka.max_poll_records),
        within=pool.within,
        concurrency=pool.size,
        timeout=pool.timeout,
        **options,
    )


def main() -> None:
    """Consume until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m examples.device_pipeline.consumer")
    parser.add_argument("brokers")
    parser.add_argument("redis")
    parser.add_argument("--config", type=Path, default=FILE)
    parser.add_argument("--instance", metavar="NAME")
    given = parser.parse_args()
    settings = read_settings(given.config)
    pipeline, _ = device_pipeline(settings)
    asyncio.run(consumer(settings, given.brokers, given.redis, pipeline, instance_id=given.instance).serve())


if __name__ == "__main__":
    main()
