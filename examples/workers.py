"""What `workers.toml` beside it names: a daemon, a handler and a job, to be copied and changed."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from redis_worker import Message

logger = logging.getLogger("examples.workers")


async def count(stop: asyncio.Event, *, every: float = 1.0) -> None:
    """A daemon: counts until it is stopped."""
    number = 0
    while not stop.is_set():
        number += 1
        logger.info("%d", number)
        try:
            async with asyncio.timeout(every):
                await stop.wait()
        except TimeoutError:
            pass  # nobody has asked to stop


async def remind(message: Message) -> None:
    """A handler: called with each message of a topic."""
    logger.info("a reminder of %s", message.data)


def send(messages: list[Message]) -> None:
    """A batch handler: called with many messages at once."""
    logger.info("%d mails", len(messages))


async def sync_user(instant: datetime, *, source: str = "everywhere") -> None:
    """A job: called with the instant that it is run for."""
    logger.info("users are synchronised from %s, as of %s", source, instant)
