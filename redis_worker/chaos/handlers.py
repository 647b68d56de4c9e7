"""The default work of topics and cron jobs."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import datetime

from redis_worker.vocabulary.message import Message

RAN = "ran"
"""A file in the working directory: the instants for which `note` has begun, in ms, a line each."""


async def handle(message: Message) -> None:
    """Take some time, and fail in a third of all cases."""
    await asyncio.sleep(random.uniform(0.0, 0.02))
    if random.random() < 1 / 3:
        raise ValueError(f"bad luck with {message.id}")


def note(at: datetime) -> None:
    """Note that a run for the instant `at` has begun, and take some time, so that it may be killed."""
    with open(RAN, "a", encoding="utf-8") as file:
        file.write(f"{round(at.timestamp() * 1000)}\n")
    time.sleep(random.uniform(0.0, 0.5))
