"""`redis-worker demo`: thousands of tasks, a killed worker, nothing lost."""

from __future__ import annotations

import click

from redis_worker.cli.options import option

EPILOG = """
\b
Example:
  redis-worker demo --tasks 20000
"""


@click.command(epilog=EPILOG)
@option("--tasks", type=click.IntRange(100), default=6000, show_default=True, help="Number of tasks to push.")
def demo(tasks: int) -> int:
    """Show that thousands of tasks survive the kill -9 of a worker."""
    from redis_worker.demo.story import run_demo

    return run_demo(tasks)
