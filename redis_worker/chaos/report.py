"""The report of a run: one HTML page without external resources."""

from __future__ import annotations

from redis_worker.chaos.driver import Story
from redis_worker.chaos.options import Options


def write_report(story: Story, options: Options) -> None:
    """Write the page."""
