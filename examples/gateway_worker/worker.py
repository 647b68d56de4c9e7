"""The handlers of the gateway, and its worker."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Self

import redis
import redis.asyncio

from redis_worker import Message, Reject, Retry, TopicWorker

logger = logging.getLogger("gateway")

# Hash: a topic, a space and an id -> the number of times that the message was handled.
HANDLED = "gateway:handled"


class Ledger:
    """The record of handled messages, in place of the mails, payments and stock of a real service."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(url)
        self._blocking = redis.Redis.from_url(url)

    async def note(self, message: Message, action: str) -> None:
        """Record that `message` was handled, with the action."""
        logger.info("%s %s: %s", message.topic, message.id, action)
        await self._redis.hincrby(HANDLED, f"{message.topic} {message.id}", 1)

    def note_in_thread(self, message: Message, action: str) -> None:
        """Record that `message` was handled, from a plain function."""
        logger.info("%s %s: %s", message.topic, message.id, action)
        self._blocking.hincrby(HANDLED, f"{message.topic} {message.id}", 1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()
        self._blocking.close()


def new_worker(url: str, ledger: Ledger, http: str | None = None) -> TopicWorker:
    """Return a worker with all the handlers, not started; `http` is the address of /healthz, /ready and /metrics."""
    worker = TopicWorker(url, concurrency=50, http=http)
    add_predefined(worker, ledger)
    add_custom(worker, ledger)
    return worker


def add_predefined(worker: TopicWorker, ledger: Ledger) -> None:
    """Add the handlers of orders, users, payments, stock and the system."""

    @worker.handler("order.reminder")
    async def remind(message: Message) -> None:
        await ledger.note(message, f"reminded {message.data['user']} of order {message.data['order']}")

    @worker.handler("user.notification", concurrency=8)
    async def notify(message: Message) -> None:
        await ledger.note(message, f"notified {message.data['user']}: {message.data['text']}")

    # Two clean-ups at once would interfere with each other.
    @worker.handler("system.cleanup", concurrency=1)
    async def clean_up(message: Message) -> None:
        await ledger.note(message, f"removed files older than {message.data['days']} days")

    @worker.handler("payment.retry", retries=5)
    async def pay(message: Message) -> None:
        # The bank returns the delay, which is better than any backoff.
        if message.attempt <= message.data["declined"]:
            raise Retry("the bank is busy", delay=0.5)
        await ledger.note(message, f"paid {message.data['amount']} at attempt {message.attempt}")

    @worker.handler("inventory.alert")
    async def alert(message: Message) -> None:
        sku = message.data.get("sku")
        if not sku:
            raise Reject("an alert without a sku")  # a retry would not add one
        await ledger.note(message, f"{message.data['left']} left of {sku}: ordered more")


def add_custom(worker: TopicWorker, ledger: Ledger) -> None:
    """Add the handlers of mails, files and data, and the default handler."""

    # Send each mail once: a publisher that got no reply may publish it again.
    @worker.handler("email.send", idempotent=True, remember=86_400)
    async def send_mail(message: Message) -> None:
        await ledger.note(message, f"mailed {message.data['to']}")

    @worker.handler("sms.send", timeout=5, retries=2, retry_backoff=0.5)
    async def send_sms(message: Message) -> None:
        await asyncio.sleep(0.05)  # the operator's gateway, which sometimes fails to answer
        await ledger.note(message, f"texted {message.data['to']}")

    @worker.handler("push.notification", concurrency=20)
    async def push(message: Message) -> None:
        await ledger.note(message, f"pushed to {message.data['device']}")

    @worker.handler("file.process", concurrency=2)
    def process_file(message: Message) -> None:
        content = Path(message.data["path"]).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        ledger.note_in_thread(message, f"{len(content)} bytes, SHA-256 {digest[:16]}…")

    @worker.batch_handler("data.sync", size=50, within=0.2, retry_backoff=0.5)
    async def sync(messages: list[Message]) -> dict[str, str]:
        locked = {message.id for message in messages if message.data["locked"] and message.attempt == 1}
        for message in messages:
            if message.id not in locked:
                await ledger.note(message, f"row {message.data['row']}, in a batch of {len(messages)}")
        return dict.fromkeys(locked, "the row is locked")  # only these are tried again

    # Once a handler exists, requeue the dead letters: redis-worker dead requeue --input mq:<topic>
    @worker.default_handler
    async def refuse(message: Message) -> None:
        raise Reject(f"no handler for {message.topic}")
