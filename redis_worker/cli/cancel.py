"""`redis-worker cancel`: cancel tasks."""

from __future__ import annotations

import click

from redis_worker.cli.options import ENVIRONMENT, option, redis_url, text, url_option

EPILOG = f"""
\b
Example:
  redis-worker cancel --input mail --output mail:results 7 8

A waiting or delayed task is removed, and answered with the error "cancelled". A task that runs is cancelled by its
worker, if that is one on functions; the worker of a pool lets it end.

{ENVIRONMENT}
"""


@click.command(epilog=EPILOG)
@click.argument("ids", nargs=-1, required=True, type=text, metavar="ID...")
@option("--input", "input_key", required=True, metavar="KEY", help="The queue.")
@option("--output", "output_key", required=True, metavar="KEY", help="The hash of results.")
@option(
    "--ttl",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="S",
    help="Seconds until the answer of a removed task expires; 0 keeps it.",
)
@url_option
def cancel(ids: tuple[str, ...], input_key: str, output_key: str, ttl: int, url: str | None) -> int:
    """Cancel tasks. Exits 1 if one is answered already, or is not found."""
    import asyncio

    return asyncio.run(_cancel(redis_url(url), input_key, output_key, ids, ttl))


async def _cancel(url: str, input_key: str, output_key: str, ids: tuple[str, ...], ttl: int) -> int:
    from redis_worker.broker.operator.cancellation import Cancellation
    from redis_worker.cli.printing import explained
    from redis_worker.vocabulary.text import visible

    code = 0
    async with Cancellation(url, input_key, output_key) as tasks:
        with explained(url, f"cannot cancel tasks of {input_key!r}"):
            for id in ids:
                if await tasks.cancel(id, ttl):
                    click.echo(f"{visible(id)}: cancelled")
                else:
                    click.echo(f"{visible(id)}: answered already, or not found", err=True)
                    code = 1
    return code
