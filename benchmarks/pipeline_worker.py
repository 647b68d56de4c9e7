"""The device pipeline: `python -m benchmarks.pipeline_worker BROKERS TOPIC GROUP REDIS BATCH SESSION [INSTANCE]`."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.bare_kafka import FAST
from examples.device_pipeline.consumer import consumer
from examples.device_pipeline.settings import read_settings
from examples.device_pipeline.stages import device_pipeline
from redis_worker.engine.loop import loop_factory, spare_garbage_collection


def main() -> None:
    """Run the pipeline until it is stopped; with `none` as REDIS without sinks, with INSTANCE as a static member."""
    brokers, topic, group, redis, batch, session, *instance = sys.argv[1:]
    settings = read_settings()
    settings.kafka.topics, settings.kafka.group_id = [topic], group
    settings.kafka.session_timeout, settings.pool.batch = session, int(batch)
    pipeline, _ = device_pipeline(settings)
    sink = None if redis == "none" else redis
    options = {"dead_letters": "none", "instance_id": next(iter(instance), None)}  # there are no dead letters
    worker = consumer(settings, brokers, sink, pipeline, properties=FAST, **options)
    spare_garbage_collection()  # as the command line does
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(worker.serve())


if __name__ == "__main__":
    main()
