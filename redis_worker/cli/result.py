"""`redis-worker result`: read results."""

from __future__ import annotations

import click

from redis_worker.cli.options import ENVIRONMENT, Seconds, option, redis_url, text, url_option

EPILOG = f"""
\b
Example:
  redis-worker result --output fib:output t1 t2 --wait 10

{ENVIRONMENT}
Exception: --wait is REDIS_WORKER_RESULT_WAIT.
"""


@click.command(epilog=EPILOG)
@click.argument("ids", nargs=-1, required=True, type=text, metavar="ID...")
@option("--output", "output_key", required=True, metavar="KEY", help="The hash of results.")
@option(
    "--wait",
    type=Seconds(min=0),
    default=0,
    show_default=True,
    metavar="S",
    envvar="REDIS_WORKER_RESULT_WAIT",  # REDIS_WORKER_WAIT is the flag of push
    help="Wait up to S seconds for the results.",
)
@option("--delete", is_flag=True, help="Delete the results from the hash.")
@url_option
def result(ids: tuple[str, ...], output_key: str, wait: float, delete: bool, url: str | None) -> int:
    """Print the results of tasks, a JSON object a line. Exits 1 if a task failed or has no result."""
    import asyncio

    from redis_worker.cli.printing import fetch_results

    return asyncio.run(fetch_results(redis_url(url), output_key, ids, wait, delete))
