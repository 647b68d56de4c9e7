"""`redis-worker processors`: what there is to name."""

from __future__ import annotations

import click

EPILOG = """
\b
Example:
  redis-worker processors

Your own is named module:function, with the module in the working directory or installed.
"""


@click.command(epilog=EPILOG)
def processors() -> None:
    """List the processors that can be named, with a line each."""
    from redis_worker.registry import available_processors

    found = list(available_processors())
    width = max(len(item.name) for item in found)
    for item in found:
        source = "" if item.source == "built in" else f" ({item.source})"
        click.echo(f"{item.name:<{width}}  {item.declaration.execution:<7}  {item.declaration.summary}{source}")
