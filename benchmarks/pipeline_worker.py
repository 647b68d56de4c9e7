"""The device pipeline to measure: `python -m benchmarks.pipeline_worker BROKERS TOPIC GROUP REDIS BATCH`."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.bare_kafka import FAST
from examples.device_pipeline.settings import read_settings
from examples.device_pipeline.stages import device_pipeline, sinks
from redis_worker import KafkaWorker
from redis_worker.engine.loop import loop_factory, spare_garbage_collection


def main() -> None:
    """Run the pipeline until it is stopped; with `none` as REDIS without sinks."""
    brokers, topic, group, redis, batch = sys.argv[1:]
    settings = read_settings()
    pipeline, _ = device_pipeline(settings)
    worker = KafkaWorker(
        brokers,
        topic,
        group,
        pipeline.batch,
        sink=None if redis == "none" else sinks(redis, settings),
        decode=bytes,
        properties=FAST,
        batch=True,
        size=int(batch),
        within=settings.pool.within,
        concurrency=settings.pool.size,
        timeout=settings.pool.timeout,
    )
    spare_garbage_collection()  # as the command line does
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(worker.serve())


if __name__ == "__main__":
    main()
