"""The functions that `workers.toml` names, to copy and change: a daemon, handlers and a job."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from redis_worker import Message

logger = logging.getLogger("examples.workers")


async def count(stop: asyncio.Event, *, every: float = 1.0) -> None:
    """Count until stopped: a daemon."""
    number = 0
    while not stop.is_set():
        number += 1
        logger.info("%d", number)
        try:
            async with asyncio.timeout(every):
                await stop.wait()
        except TimeoutError:
            pass  # not stopped yet


async def remind(message: Message) -> None:
    """Log a reminder: a handler, called with each message of a topic."""
    logger.info("a reminder of %s", message.data)


def send(messages: list[Message]) -> None:
    """Log a batch of mails: a batch handler, called with many messages at once."""
    logger.info("%d mails", len(messages))


async def sync_user(instant: datetime, *, source: str = "everywhere") -> None:
    """Log a synchronisation: a job, called with the instant of the run."""
    logger.info("users are synchronised from %s, as of %s", source, instant)
