"""The messages that the services behind the gateway would publish."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from redis_worker import Publisher

logger = logging.getLogger("gateway")

# The worker must be able to read the file: here both run on one machine.
THIS_FILE = str(Path(__file__).resolve())


async def send(url: str) -> int:
    """Publish to all topics, at once and delayed. Return the number of messages, duplicates included."""
    async with Publisher(url) as publisher:
        sent = [
            await publisher.publish("order.reminder", {"order": 1001, "user": "ada"}),
            await publisher.publish("order.reminder", {"order": 1002, "user": "bob"}, delay=1),
            await publisher.publish("order.reminder", {"order": 1003, "user": "eve"}, delay=2),
            await publisher.publish("system.cleanup", {"days": 30}),
            await publisher.publish("payment.retry", {"amount": 99.5, "declined": 2}),
            await publisher.publish("inventory.alert", {"sku": "lamp-7", "left": 3}),
            await publisher.publish("inventory.alert", {"left": 0}),
            await publisher.publish("sms.send", {"to": "+44 20 7946 0000"}),
            await publisher.publish("file.process", {"path": THIS_FILE}),
            await publisher.publish("audit.login", {"user": "ada"}),
        ]
        people = ("ada", "bob", "eve")
        sent += await publisher.publish_many("user.notification", [{"user": user, "text": "hello"} for user in people])
        sent += await publisher.publish_many("push.notification", [{"device": f"phone of {user}"} for user in people])
        sent += await publisher.publish_many("data.sync", [{"row": row, "locked": row == 3} for row in range(1, 6)])
        sent += await _send_mails(publisher, people)
    logger.info("%d messages sent", len(sent))
    return len(sent)


async def _send_mails(publisher: Publisher, people: tuple[str, ...]) -> list[str]:
    """Publish each mail twice under one id, as a publisher does that got no reply."""
    campaign = secrets.token_hex(4)
    sent = []
    for user in people * 2:
        mail = {"to": f"{user}@example.com", "subject": "Welcome"}
        sent.append(await publisher.publish("email.send", mail, id=f"welcome-{campaign}-{user}"))
    return sent
