"""The command: starts servers, devices, the pipeline and its page, and compares at the end what came of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import click
from redis.asyncio import Redis

from examples.covid_persister.servers import kafka
from examples.device_pipeline.consumer import consumer
from examples.device_pipeline.metrics import ConsumerMetrics
from examples.device_pipeline.page import latest_states, serving
from examples.device_pipeline.settings import FILE, Settings, read_settings
from examples.device_pipeline.simulator import Devices
from examples.device_pipeline.stages import device_pipeline
from redis_worker import ConfigurationError, RedisWorkerError
from redis_worker.embedded import EmbeddedServer

# Seconds without any change after which what is missing is lost.
_PATIENCE = 30.0


class Outcome(NamedTuple):
    """The end of a run."""

    messages: int
    """Messages handled and settled."""
    seconds: float
    alerts: int
    lost: int
    """Messages not settled, devices with another state than they sent last, and dead letters that are missing."""

    def __str__(self) -> str:
        rate = self.messages / self.seconds
        return f"messages {self.messages}, rate {rate:.0f}/s, alerts {self.alerts}, lost {self.lost}"


@click.command()
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="End after so long, not at Ctrl-C.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Messages per second.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port of page and metrics; 0 is any free one.")
@click.option("--config", type=click.Path(path_type=Path), default=FILE, help="The file of settings.")
@click.pass_context
def main(context: click.Context, seconds: float | None, rate: float | None, port: int | None, config: Path) -> None:
    """Run the device pipeline with simulated devices and a page that shows them.

    Kafka at $KAFKA_BROKERS and Redis at $REDIS_URL are used if these, or the file, name them; otherwise a mock cluster
    and a private server are started. Exits with 1 if a message is lost.
    """
    logging.getLogger("redis_worker").setLevel(logging.ERROR)  # each dead letter is a warning
    try:
        settings = read_settings(config)
        if rate is not None:
            settings.simulator.rate = rate
        if port is not None:
            settings.prometheus.port = port
        with ExitStack() as stack:
            if settings.kafka.brokers:
                os.environ["KAFKA_BROKERS"] = settings.kafka.brokers
            topics = settings.kafka.topics
            brokers = stack.enter_context(kafka(*topics, f"{settings.kafka.group_id}.dead"))
            redis = next(iter(settings.redis.endpoints), os.environ.get("REDIS_URL"))
            redis = redis or stack.enter_context(EmbeddedServer()).url
            outcome = asyncio.run(run(settings, brokers, redis, seconds))
    except RedisWorkerError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(2 if isinstance(error, ConfigurationError) else 1)
    click.echo(outcome)
    context.exit(int(outcome.lost > 0 or outcome.messages == 0))


async def run(settings: Settings, brokers: str, redis_url: str, seconds: float | None) -> Outcome:
    """Run all of it for `seconds`, or until SIGINT or SIGTERM, and return what became of the messages."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    pipeline, state = device_pipeline(settings)
    metrics = ConsumerMetrics(pipeline.status)
    devices = Devices(brokers, settings.kafka.topics[0], settings.simulator)
    async with AsyncExitStack() as stack:
        page = await stack.enter_async_context(serving(redis_url, settings.prometheus, metrics))
        serves: dict[str, Any] = {"http": "127.0.0.1:0", "http_origins": page.origins}  # the events, and the dashboard
        worker = consumer(settings, brokers, redis_url, pipeline, observers=[metrics], **serves)
        metrics.partitions = worker.partitions
        await stack.enter_async_context(worker)
        page.events = worker.http_address
        click.echo(f"devices: {page.address}/  metrics: {page.address}{settings.prometheus.path}")
        begun = time.monotonic()
        if seconds is not None:
            loop.call_later(seconds, stop.set)
        await devices.run(stop)
        elapsed = time.monotonic() - begun
        missing = await lost(redis_url, devices, metrics)
        return Outcome(metrics.settled_messages, elapsed, state.alerts, missing)


async def lost(redis_url: str, devices: Devices, metrics: ConsumerMetrics) -> int:
    """Return what is missing once nothing is, or nothing has changed for a while."""
    redis: Redis = Redis.from_url(redis_url)
    try:
        missing, since = -1, time.monotonic()
        while missing and time.monotonic() < since + _PATIENCE:
            states = await latest_states(redis)
            stale = sum(float(states.get(device, {}).get("at", 0)) != at for device, at in devices.latest.items())
            unsettled = max(0, devices.sent - metrics.settled_messages)
            found = stale + unsettled + max(0, devices.invalid - metrics.dead)
            if found != missing:
                missing, since = found, time.monotonic()
            await asyncio.sleep(0.05)
        return missing
    finally:
        await redis.aclose()


if __name__ == "__main__":
    main(prog_name="python -m examples.device_pipeline")
