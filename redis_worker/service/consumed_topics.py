"""The topics that a worker consumes: consumers start and end, and topics are left out on request or refusal."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable

from redis_worker.engine.counters import Counters
from redis_worker.engine.vitals import Vitals
from redis_worker.service.handlers import Handlers
from redis_worker.service.refused_topics import Refusals
from redis_worker.service.routing import no_route
from redis_worker.service.topic_consumer import Shared, TopicConsumer
from redis_worker.vocabulary.errors import Refused, WrongType
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()


class ConsumedTopics:
    """The consumers at work, by topic."""

    def __init__(self, handlers: Handlers, changed: Callable[[], None]) -> None:
        """`changed` is called when a consumer has ended."""
        self.shared: Shared | None = None
        """The parts that all consumers use, once the worker has them."""
        self.error: BaseException | None = None
        """The error of a consumer that ends the worker."""
        self.closing = False
        """True once no more consumers may start."""
        self.requested: set[str] = set()
        """Topics that are consumed even without a handler."""
        self._handlers = handlers
        self._changed = changed
        self._left_out: set[str] = set()
        self._refusals = Refusals()
        self._opening: set[str] = set()
        self._running: dict[str, tuple[TopicConsumer, asyncio.Task[None]]] = {}
        self._countings: defaultdict[str, Vitals] = defaultdict(Vitals)

    @property
    def consumers(self) -> list[TopicConsumer]:
        """The consumers at work, by topic."""
        return [self._running[topic][0] for topic in sorted(self._running)]

    @property
    def counters(self) -> dict[str, Counters]:
        """The counts by topic, including topics that are no longer consumed."""
        return {topic: counting.counters for topic, counting in sorted(self._countings.items())}

    @property
    def named(self) -> list[str]:
        """The topics to consume by name: those of handlers, and those requested."""
        return sorted((self._handlers.named | self.requested) - self._left_out)

    def request(self, topic: str) -> None:
        """Consume `topic` even if no handler matches it."""
        self.requested.add(topic)
        self._left_out.discard(topic)

    async def leave_out(self, topic: str) -> None:
        """Stop consuming `topic` until it is requested; return when its running messages have finished."""
        self.requested.discard(topic)
        self._left_out.add(topic)
        self._refusals.forget(topic)
        if found := self._running.get(topic):
            consumer, task = found
            consumer.stop()
            await asyncio.wait({task})

    async def start(self, topic: str) -> None:
        """Start a consumer of `topic`, unless it has one. Raises Disconnected, Refused or ConfigurationError."""
        if topic in self._running or topic in self._opening:
            return
        assert self.shared is not None
        route = self._handlers.find(topic)
        if route is None:
            logger.warning("there is no handler for the topic %s: its messages become dead letters", topic)
            route = no_route(topic)
        consumer = TopicConsumer(topic, route, self.shared, self._countings[topic])
        self._opening.add(topic)
        try:
            await consumer.open()
        finally:
            self._opening.discard(topic)
        if self.closing or topic in self._left_out:
            await consumer.close()
            return
        task = asyncio.create_task(self._consume(consumer), name=f"redis-worker topic {topic}")
        self._running[topic] = consumer, task
        self._refusals.consumed(topic)

    async def start_named(self) -> None:
        """Start consumers of the named topics. Raises Disconnected, and Refused if it concerns all topics."""
        refused: dict[str, Refused] = {}
        for topic in self.named:
            try:
                await self.start(topic)
            except Refused as error:  # one topic that cannot be consumed does not end the others
                refused[topic] = error
        for topic, refusal in refused.items():
            if self._concerns_all(topic, refusal):
                raise refusal
            self._refusals.add(topic, refusal, _now())

    async def start_found(self, known: Iterable[str]) -> None:
        """Start consumers of the topics in `known` that have a handler, and of those named or due for a retry.

        Raises Disconnected.
        """
        now = _now()
        wanted = self._handlers.named.union(known, self._refusals.due(now))
        for topic in sorted(wanted - self._running.keys() - self._left_out - self._refusals.pending(now)):
            if self.closing or (topic not in self.requested and self._handlers.find(topic) is None):
                continue
            try:
                await self._refusals.close(topic)
                await self.start(topic)
            except Refused as error:
                self._refusals.add(topic, error, _now())

    async def stop(self) -> None:
        """Stop all consumers gracefully, and wait for their end."""
        self.closing = True
        tasks = []
        for consumer, task in list(self._running.values()):
            consumer.stop()
            tasks.append(task)
        if tasks:
            await asyncio.wait(tasks)

    def cancel(self) -> None:
        """Stop all consumers at once."""
        for consumer, _ in self._running.values():
            consumer.cancel()

    async def _consume(self, consumer: TopicConsumer) -> None:
        refused = None
        try:
            await consumer.run()
        except Refused as error:
            refused = error
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # any: the topic would have no consumer, and the worker would seem to run
            self.error = self.error or error
        finally:
            del self._running[consumer.topic]
            self._changed()
        if refused is None:
            return
        if self._concerns_all(consumer.topic, refused):
            self.error = self.error or refused
        else:
            self._refusals.add(consumer.topic, refused, _now(), consumer)

    def _concerns_all(self, topic: str, refused: Refused) -> bool:
        """Return True if `refused` concerns the login or its rights, and no other topic is left to consume."""
        named = topic in self._handlers.named | self.requested
        return named and not self._running and not isinstance(refused, WrongType)


def _now() -> float:
    return asyncio.get_running_loop().time()
