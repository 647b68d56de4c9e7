"""`redis-worker doctor`: diagnosis of a server and its queues."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from redis_worker.cli.on_queue import hint
from redis_worker.cli.options import ENVIRONMENT, Repeated, given_url, option, redis_url, url_option
from redis_worker.cli.plans import file_option
from redis_worker.vocabulary.text import visible

if TYPE_CHECKING:
    from redis_worker.broker.operator.doctor.examination import Examination

EPILOG = f"""
\b
Examples:
  redis-worker doctor
  redis-worker doctor --input fib:input --output fib:output
  redis-worker doctor --file workers.toml
  redis-worker doctor --json | jq -r '.findings[] | select(.level != "good") | .what'

Read-only. Examines the queues of all known topics too; with --file, the keys of the file's pools, and the brokers,
topics, groups and tables of its Kafka parts. Redis is left out if the file does not need it. Exits 1 if there is a
fault, 3 without a connection, 0 otherwise, even with warnings. The meaning of each check: docs/operations.md.

{ENVIRONMENT}
Exception: --file is REDIS_WORKER_DOCTOR_FILE.
"""

_COLOURS = {"good": "green", "warning": "yellow", "fault": "red"}


@click.command(epilog=EPILOG)
@option("--input", "inputs", type=Repeated(), multiple=True, metavar="KEY", help="A list of tasks; may be repeated.")
@option(
    "--output", "outputs", type=Repeated(), multiple=True, metavar="KEY", help="A hash of results; may be repeated."
)
@option("--json", "as_json", is_flag=True, help="Print one JSON object with the list of findings.")
@file_option("doctor")
@url_option
def doctor(inputs: tuple[str, ...], outputs: tuple[str, ...], as_json: bool, file: str | None, url: str | None) -> int:
    """Examine servers and queues. Prints a line for each check: good, warning or fault, and the remedy."""
    import asyncio

    from redis_worker.broker.operator.doctor.examination import examine
    from redis_worker.cli.doctoring import examine_file

    redis: str | None
    if file is not None:
        redis, examination = asyncio.run(examine_file(file, given_url(url), inputs, outputs))
    else:
        redis = redis_url(url)
        examination = asyncio.run(examine(redis, inputs, outputs))
    if as_json:
        _print_json(examination)
    else:
        _print_lines(examination)
    if not examination.connected:
        return 3
    if redis is not None:
        asyncio.run(_hint(redis, inputs))
    return 0 if examination.healthy else 1


def _print_json(examination: Examination) -> None:
    from redis_worker.cli.printing import print_json
    from redis_worker.vocabulary.payload import dumps

    findings = [finding._asdict() for finding in examination.findings]
    print_json(dumps({"connected": examination.connected, "healthy": examination.healthy, "findings": findings}))


def _print_lines(examination: Examination) -> None:
    for level, subject, what, remedy in examination.findings:
        mark = click.style(f"{level:<7}", fg=_COLOURS[level])
        click.echo(f"{mark}  {visible(f'{subject}: {what}' + (f' -> {remedy}' if remedy else ''))}")
    count = Counter(finding.level for finding in examination.findings)
    click.echo(f"faults: {count['fault']}, warnings: {count['warning']}, good: {count['good']}", err=True)


async def _hint(url: str, inputs: tuple[str, ...]) -> None:
    from redis_worker.broker.client.access import Access

    async with Access(url) as access:
        await hint(access, inputs)
