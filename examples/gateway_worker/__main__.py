"""The command: runs the worker, the sender, or both."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from contextlib import ExitStack

import click

from examples.gateway_worker.sender import send
from examples.gateway_worker.worker import Ledger, new_worker
from redis_worker import RedisWorkerError, TopicWorker
from redis_worker.cli.options import http, option, redis_url, url_option
from redis_worker.embedded import EmbeddedServer
from redis_worker.environment import add_file
from redis_worker.service.topic_consumer import ConsumerStatus
from redis_worker.signals import stop_signals

logger = logging.getLogger("gateway")


@click.command()
@click.argument("part", type=click.Choice(["all", "worker", "send"]), default="all")
@url_option
@option("--http", "address", type=http, metavar="HOST:PORT", help="Answer /healthz, /ready and /metrics there.")
def main(part: str, url: str | None, address: str | None) -> None:
    """Handle the messages of ten topics, publish some, or do both."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    try:
        with ExitStack() as stack:
            if part == "all" and not (url or os.environ.get("REDIS_HOST")):
                url = stack.enter_context(EmbeddedServer()).url
            url = redis_url(url)
            if part == "send":
                asyncio.run(send(url))
            else:
                asyncio.run(work(url, address, sending=part == "all"))
    except RedisWorkerError as error:
        raise click.ClickException(str(error)) from None


async def work(url: str, http: str | None, *, sending: bool) -> None:
    """Work until stopped or, if `sending`, until all sent messages are processed; then print a summary."""
    stopped = asyncio.Event()
    async with Ledger(url) as ledger:
        worker = new_worker(url, ledger, http)

        def stop() -> None:
            stopped.set()
            if not worker.started:
                worker.stop()  # it is still waiting for a server

        with stop_signals(stop, worker.cancel):
            async with worker:
                if not stopped.is_set():
                    logger.info("at work on %s", worker.address)
                    await (send_and_wait(url, worker, stopped) if sending else stopped.wait())
                # Only consumed topics have a status; its counters still count until the worker has stopped.
                topics = worker.status()
    print(table(topics))


async def send_and_wait(url: str, worker: TopicWorker, stopped: asyncio.Event) -> None:
    """Send messages, and wait until the worker has processed as many, with any outcome."""
    sent = await send(url)
    while worker.counters.processed < sent and not stopped.is_set():  # noqa: ASYNC110 - counters raise no event
        await asyncio.sleep(0.05)


def table(topics: Iterable[ConsumerStatus]) -> str:
    """Return a table of the outcomes of each topic's messages."""
    lines = [f"{'topic':<20}{'handled':>9}{'retried':>9}{'dead':>9}{'skipped':>9}"]
    for topic, *_, counters in topics:
        numbers = (counters.succeeded, counters.retried, counters.dead, counters.skipped)
        lines.append(f"{topic:<20}" + "".join(f"{number:>9}" for number in numbers))
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        add_file()  # and secrets in files
    except RedisWorkerError as error:
        raise SystemExit(f"Error: {error}") from None
    main(prog_name="python -m examples.gateway_worker")
