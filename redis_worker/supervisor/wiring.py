"""What is said of a part made into what does its work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis_worker.engine.counters import COUNTED, Counters, Counting
from redis_worker.file.plan import DaemonPart, JobPart, Part, PoolPart, TopicSettings, TopicsPart
from redis_worker.http.metrics import Metrics
from redis_worker.ports import Observer
from redis_worker.registry import find_function
from redis_worker.supervisor.daemon import daemon_of
from redis_worker.supervisor.work import Work

if TYPE_CHECKING:
    from redis_worker.broker.cron import CronStore
    from redis_worker.service.declared_options import Declared
    from redis_worker.service.handlers import Handlers
    from redis_worker.service.pool import WorkerPool
    from redis_worker.service.topic_worker import TopicWorker


class Wiring:
    """Makes the work of parts, of which it counts and measures what is done. What a part needs is imported for it."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._counting = Counting()
        self._lives: dict[str, Counters] = {}
        """What each process of its own has counted, in its present life."""
        self._stores: dict[str, CronStore] = {}

    @property
    def counters(self) -> Counters:
        """What all parts together have done so far."""
        return self._counting.counters

    def make(self, part: Part) -> Work:
        """One life of `part`. Raises ConfigurationError."""
        match part:
            case PoolPart():
                return self.pool(part)
            case TopicsPart():
                return self.topic_worker(part)
            case DaemonPart():
                return daemon_of(part)
            case JobPart():
                return self._job(part)

    def pool(self, part: PoolPart) -> WorkerPool:
        """Raises ConfigurationError."""
        from redis_worker.service.pool import WorkerPool

        return WorkerPool(
            *(part.url, part.input_key, part.output_key, part.parser, part.processor, part.concurrency),
            observers=(self._counting,),
            measuring=self._measuring(part.name),
            shutdown_timeout=part.supervision.shutdown_timeout,
            **part.options,
        )

    def topic_worker(self, part: TopicsPart) -> TopicWorker:
        """Raises ConfigurationError."""
        from redis_worker.service.topic_worker import TopicWorker

        worker = TopicWorker(
            part.url,
            observers=(self._counting,),
            measuring=self._measuring(part.name),
            shutdown_timeout=part.supervision.shutdown_timeout,
            **part.options,
        )
        add_handlers(worker, part)
        return worker

    def _job(self, part: JobPart) -> Work:
        from redis_worker.broker.cron import CronStore
        from redis_worker.cron.job import CronJob

        store = self._stores.get(part.url)
        if store is None:
            store = self._stores[part.url] = CronStore(part.url)
        return CronJob(part.settings, store, on_outcome=self.metrics.job(part.name).outcome)

    def _measuring(self, part: str) -> Callable[[str, str], Observer]:
        return lambda queue, processor: self.metrics.of(queue, processor, part)

    def absorb(self, source: str, counters: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Add what the process `source` has counted since it was last asked."""
        now, before = Counters(**counters), self._lives.get(source, Counters())
        self.counters.add({name: getattr(now, name) - getattr(before, name) for name in COUNTED})
        self._lives[source] = now
        self.metrics.absorb(source, metrics)

    def retire(self, source: str) -> None:
        """The process `source` has ended; another one may come in its place, and begins from nothing."""
        self._lives.pop(source, None)
        self.metrics.retire(source)

    async def close(self) -> None:
        """Close what its parts have shared."""
        for store in self._stores.values():
            await store.close()
        self._stores.clear()


def add_handlers(handlers: Handlers, part: TopicsPart) -> None:
    """Have `handlers` take over the topics of `part`. Raises ConfigurationError."""
    for topic in part.topics:
        handlers.add(topic.pattern, *handler_of(topic))


def handler_of(topic: TopicSettings) -> tuple[Callable[..., Any], Declared]:
    """Return the function of a topic, and what its decorator and the file say of it. Raises ConfigurationError."""
    from redis_worker.service.declared_options import Declared, inheriting

    function = find_function("handler", topic.handler)
    return function, inheriting(function, topic.pattern, Declared(topic.batch, topic.options))
