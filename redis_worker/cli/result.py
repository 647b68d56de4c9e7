"""`redis-worker result`: read results."""

from __future__ import annotations

import asyncio

import click

from redis_worker.cli.options import ENVIRONMENT, option, redis_url, url_option
from redis_worker.cli.printing import print_results

EPILOG = f"""
\b
Example:
  redis-worker result --output fib:output t1 t2 --wait 10

{ENVIRONMENT}
"""


@click.command(epilog=EPILOG)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@option("--output", "output_key", required=True, metavar="KEY", help="The hash that holds the results.")
@option("--wait", type=click.FloatRange(min=0), metavar="S", envvar=None, help="Wait for the results for S seconds.")
@option("--delete", is_flag=True, help="Take the results out of the hash.")
@url_option
def result(ids: tuple[str, ...], output_key: str, wait: float | None, delete: bool, url: str | None) -> int:
    """Print the results of tasks, a JSON object a line. Exits 1 if a task failed or has no result."""
    return asyncio.run(_print(redis_url(url), output_key, ids, wait or 0.0, delete))


async def _print(url: str, output_key: str, ids: tuple[str, ...], wait: float, delete: bool) -> int:
    from redis_worker.broker.client import TaskClient

    async with TaskClient(url, "", output_key) as client:
        return await print_results(client, ids, wait, delete=delete)
