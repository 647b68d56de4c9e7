"""Publishing messages to topics. Any program that can push JSON to a list can do the same by hand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from redis_worker.broker.client.delayed_tasks import Delayed
from redis_worker.broker.client.submitting import SubmittingAccess
from redis_worker.broker.connection.address import Client
from redis_worker.broker.keys import Keys, topic_list
from redis_worker.broker.queue.delayed import delay_tasks
from redis_worker.broker.queue.topic import Topics
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.ids import id_text, new_id, new_ids
from redis_worker.vocabulary.message import check_topic, write_message

_BATCH = 500
# Interval of registering a topic again, in seconds: the server may have been emptied.
_KNOWN_FOR = 60.0


class Publisher(SubmittingAccess):
    """A publisher of messages to topics; `redis` is a URL, or a client that is used and not closed.

        async with Publisher("redis://localhost") as publisher:
            await publisher.publish("order.reminder", {"order": 7}, delay=86_400)

    One publisher serves any number of event loops and the children of a fork, as TaskClient does.
    Every call raises Disconnected if Redis cannot be reached and Refused if it rejects the call.
    """

    def __init__(self, redis: str | Client) -> None:
        super().__init__(redis)
        self._known: dict[str, float] = {}

    async def publish(
        self,
        topic: str,
        data: Any,
        delay: Duration | None = None,
        id: str | int | None = None,
        *,
        at: datetime | None = None,
    ) -> str:
        """Publish `data`, any JSON value, to `topic`. Returns the message's id as text, generated if not given.

        With `delay` (seconds, a timedelta, or a text such as "24h") or `at` it is delayed until then, by the server's
        clock.
        """
        given = new_id() if id is None else id
        name = id_text(given)
        with self._members(topic_list(topic), 1) as members:
            await self.push_raw(topic, [write_message(topic, data, given, members)], delay=delay, at=at)
        return name

    async def publish_many(
        self,
        topic: str,
        messages: Iterable[Any],
        delay: Duration | None = None,
        *,
        at: datetime | None = None,
        ids: Iterable[str | int] | None = None,
    ) -> list[str]:
        """Publish many messages in few calls. Returns their ids as text, in the same order, generated if not given.

        Raises ValueError if the numbers of ids and messages differ.
        """
        check_topic(topic)
        pairs = zip(messages, new_ids() if ids is None else ids, strict=ids is not None)
        names: list[str] = []
        while batch := list(islice(pairs, _BATCH)):
            with self._members(topic_list(topic), len(batch)) as members:
                raws = [write_message(topic, data, id, members) for data, id in batch]
                await self.push_raw(topic, raws, delay=delay, at=at)
            names += (id_text(id) for _, id in batch)
        return names

    async def cancel(self, topic: str, id: str | int) -> bool:
        """Cancel the delayed messages `id`. Returns False if none was found: a message already due stays.

        It searches all delayed messages of the topic.
        """
        return await Delayed(self._connection, topic_list(check_topic(topic))).cancel(id)

    async def push_raw(
        self, topic: str, raws: Sequence[bytes], *, delay: Duration | None = None, at: datetime | None = None
    ) -> None:
        """Publish messages byte for byte."""
        check_topic(topic)
        if time.monotonic() > self._known.get(topic, 0.0):
            await Topics(self._connection).add([topic])
            self._known[topic] = time.monotonic() + _KNOWN_FOR
        keys = Keys(topic_list(topic))
        if delay is None and at is None:
            await self._connection.call("RPUSH", keys.waiting, *raws)
        else:
            await delay_tasks(self._connection, keys, raws, delay=delay, at=at)
