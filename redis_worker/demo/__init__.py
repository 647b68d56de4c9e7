"""The demo: real workers, a kill -9 in the middle, and a ledger with the outcome of every task."""

from __future__ import annotations


def run_demo(tasks: int) -> int:
    """Run the demo with at least 100 tasks. Return 0, or 1 if a task was lost or has a wrong result."""
    import asyncio

    from redis_worker.chaos.display import open_display
    from redis_worker.demo.story import tell

    with open_display() as display:
        return asyncio.run(tell(tasks, display))
