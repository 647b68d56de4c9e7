"""The demo: real workers, a kill -9 in the middle, and a ledger that shows what became of every task."""

from __future__ import annotations


def run_demo(tasks: int) -> int:
    """Play the demo with so many tasks, at least 100. 0, or 1 when one was lost or has a wrong answer."""
    import asyncio

    from redis_worker.demo.display import open_display
    from redis_worker.demo.story import tell

    with open_display() as display:
        return asyncio.run(tell(tasks, display))
