"""`redis-worker processors`: the processors available by name."""

from __future__ import annotations

import click

EPILOG = """
\b
Example:
  redis-worker processors

Name your own as module:function; the module is in the working directory or installed.
"""


@click.command(epilog=EPILOG)
def processors() -> None:
    """List the processors available by name, a line each."""
    from redis_worker.registry import available_processors

    found = list(available_processors())
    width = max(len(item.name) for item in found)
    for item in found:
        source = "" if item.source == "built in" else f" ({item.source})"
        click.echo(f"{item.name:<{width}}  {item.declaration.execution:<7}  {item.declaration.summary}{source}")
