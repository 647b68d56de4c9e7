"""`redis-worker demo`: see it work, and lose nothing."""

from __future__ import annotations

import click

EPILOG = """
\b
Example:
  redis-worker demo --tasks 20000
"""


@click.command(epilog=EPILOG)
@click.option("--tasks", type=click.IntRange(100), default=6000, show_default=True, help="How many tasks to push.")
def demo(tasks: int) -> int:
    """Two workers, thousands of tasks, and a kill -9 in the middle: nothing is lost."""
    from redis_worker.demo import run_demo

    return run_demo(tasks)
