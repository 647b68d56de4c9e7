"""The command: sends reports, has consumers persist them, kills one, and compares the table with what was sent."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, closing

import click

from examples.covid_persister import DEAD_LETTERS, TOPIC
from examples.covid_persister.checking import DeadLetters, Outcome, check, progress
from examples.covid_persister.consumers import Consumers
from examples.covid_persister.reports import reports
from examples.covid_persister.sending import Sender
from examples.covid_persister.servers import kafka, postgres
from redis_worker import RedisWorkerError

PATIENCE = 60.0
"""Seconds without any change after which what is missing is lost."""


@click.command()
@click.option("--events", type=click.IntRange(10), default=20_000, show_default=True, help="Reports to send.")
@click.option("--consumers", type=click.IntRange(2), default=2, show_default=True, help="Processes; one is killed.")
@click.option("--seed", default=1, show_default=True, help="Other reports for another number.")
@click.pass_context
def main(context: click.Context, events: int, consumers: int, seed: int) -> None:
    """Persist reports of cases from Kafka in PostgreSQL, kill a consumer on the way, and check every row.

    Kafka at $KAFKA_BROKERS and PostgreSQL at $POSTGRES_DSN are used if these are set; otherwise a mock cluster and a
    private server are started. Exits with 1 if a report is lost.
    """
    try:
        with ExitStack() as stack:
            brokers = stack.enter_context(kafka(TOPIC, DEAD_LETTERS))
            outcome = run(brokers, stack.enter_context(postgres()), events, consumers, seed)
    except RedisWorkerError as error:
        raise click.ClickException(str(error)) from None
    click.echo(outcome)
    context.exit(0 if outcome.is_right else 1)


def run(brokers: str, dsn: str, events: int, count: int, seed: int) -> Outcome:
    """Run all of it, and return what became of the reports."""
    with closing(DeadLetters(brokers, DEAD_LETTERS)) as letters, Consumers(brokers, dsn) as consumers:
        sender = Sender(brokers, TOPIC)
        source = reports(events, seed=seed)
        before = asyncio.run(progress(dsn))
        click.echo(f"{count} consumers start")
        for _ in range(count):
            consumers.start()
        sender.send(next(source) for _ in range(events // 2))
        since = time.monotonic()
        while asyncio.run(progress(dsn)) == before and time.monotonic() < since + PATIENCE and not consumers.failed():
            time.sleep(0.02)
        consumers.kill()
        click.echo("one consumer is killed")
        sender.send(source)
        click.echo(f"{events} reports sent")
        return asyncio.run(settled(dsn, letters, sender, consumers))


async def settled(dsn: str, letters: DeadLetters, sender: Sender, consumers: Consumers) -> Outcome:
    """Return the outcome once nothing is missing, or nothing has changed for a while."""
    outcome, since = await check(dsn, letters, sender.expected), time.monotonic()
    while not outcome.is_right and time.monotonic() < since + PATIENCE and not consumers.failed():
        await asyncio.sleep(0.2)
        latest = await check(dsn, letters, sender.expected)
        if latest != outcome:
            outcome, since = latest, time.monotonic()
    return outcome


if __name__ == "__main__":
    main(prog_name="python -m examples.covid_persister")
