"""Announcing: workers, supervisors and queues enter themselves in Redis again and again, for readers of the status."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import Complaints, call_on
from redis_worker.broker.keys import QUEUES, Keys
from redis_worker.broker.queue.announced_priorities import announce_priorities
from redis_worker.broker.queue.lease import process_label
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.version import __version__

logger = library_logger()

# Interval in seconds; random, so that a fleet does not write in step.
_EVERY = (1.0, 1.5)
# The same for queues, whose entries have no time: the server may have lost its data.
_QUEUES_EVERY = (60.0, 60.0)
# Least pause after a refusal, in seconds: the server may log each one.
REFUSED_PAUSE = 30.0


async def keep_announced(
    write: Callable[[], Awaitable[object]],
    damaged: Callable[[Iterable[DamagedKey]], None],
    every: tuple[float, float] = _EVERY,
) -> None:
    """Call `write` until cancelled, at intervals of `every` seconds. Its failures do not affect the work.

    `damaged` is called after each call that Redis answers: with its damaged key, or with nothing.
    """
    while True:
        pause = random.uniform(*every)
        try:
            await write()
            damaged(())
        except Disconnected:
            pause = random.uniform(*_EVERY)  # the workers get the same error and log it
        except DamagedKey as error:
            damaged((error,))
        except Refused:
            pause = max(pause, REFUSED_PAUSE)  # the user may lack only the permission for this key
        except Exception:
            pause = max(pause, REFUSED_PAUSE)
            logger.exception("the status cannot be announced; the work continues")
        await asyncio.sleep(pause)


async def announce_queue(connection: Connection, keys: Keys) -> None:
    """Keep a queue, and its priorities, in the registries until cancelled, so that no reader has to search for it."""

    async def write() -> None:
        await call_on(connection, QUEUES, "set", "SADD", keys.waiting)
        await announce_priorities(connection, keys)

    await keep_announced(write, Complaints(keys.waiting).log, _QUEUES_EVERY)


_TOKEN = secrets.token_hex(3)


def process_name() -> str:
    """Return a unique name of this process; a fork has another one."""
    return f"{process_label()}-{_TOKEN}"


def process_members() -> dict[str, Any]:
    """Return the members that describe this process, for a description made now."""
    return {
        "host": this_host(),
        "pid": os.getpid(),
        "process": process_name(),
        "version": __version__,
        "started_at": round(time.time(), 3),
    }


def this_host() -> str:
    """Return the name of this machine or container, as descriptions have it."""
    return clean(socket.gethostname())


def clean(text: str) -> str:
    """Return `text` with lone surrogates escaped: orjson accepts only UTF-8."""
    return text.encode(errors="backslashreplace").decode()
