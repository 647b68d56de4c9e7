"""Builds the object that runs a part from its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis_worker.engine.counters import Counters
from redis_worker.file.plan import DaemonPart, JobPart, KafkaPart, Part, PoolPart, TasksPart, TopicSettings, TopicsPart
from redis_worker.http.metrics import Metrics
from redis_worker.ports import Observer
from redis_worker.registry import find_function, find_lifespan
from redis_worker.supervisor.daemon import daemon_of
from redis_worker.supervisor.work import Work

if TYPE_CHECKING:
    from redis_worker.broker.cron import CronStore
    from redis_worker.service.declared_options import Declared
    from redis_worker.service.handlers import Handlers
    from redis_worker.service.pool import WorkerPool
    from redis_worker.service.topic_worker import TopicWorker


class Wiring:
    """The maker of the parts' work, and their metrics. Modules are imported when a part needs them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._stores: dict[str, CronStore] = {}

    @property
    def counters(self) -> Counters:
        """Counts of all parts together."""
        return self.metrics.total().counting.counters

    def make(self, part: Part) -> Work:
        """Return the work of one run of `part`. Raises ConfigurationError."""
        match part:
            case PoolPart():
                return self.pool(part)
            case TasksPart():
                return self._function_worker(part)
            case TopicsPart():
                return self.topic_worker(part)
            case KafkaPart():
                return self._kafka_worker(part)
            case DaemonPart():
                return daemon_of(part)
            case JobPart():
                return self._job(part)

    def pool(self, part: PoolPart) -> WorkerPool:
        """Return the pool of `part`. Raises ConfigurationError."""
        from redis_worker.service.pool import WorkerPool

        return WorkerPool(
            *(part.url, part.input_key, part.output_key, part.parser, part.processor, part.concurrency),
            observers=(self.metrics.counting,),
            measuring=self._measuring(part.name),
            shutdown_timeout=part.supervision.shutdown_timeout,
            lifespan=find_lifespan(part.lifespan),
            **part.options,
        )

    def _function_worker(self, part: TasksPart) -> Work:
        from redis_worker.file.queues import function_worker_of

        return function_worker_of(
            part,
            observers=(self.metrics.counting,),
            measuring=self._measuring(part.name),
            shutdown_timeout=part.supervision.shutdown_timeout,
            **part.options,
        )

    def topic_worker(self, part: TopicsPart) -> TopicWorker:
        """Return the topic worker of `part`. Raises ConfigurationError."""
        from redis_worker.service.topic_worker import TopicWorker

        worker = TopicWorker(
            part.url,
            observers=(self.metrics.counting,),
            measuring=self._measuring(part.name),
            shutdown_timeout=part.supervision.shutdown_timeout,
            lifespan=find_lifespan(part.lifespan),
            **part.options,
        )
        add_handlers(worker, part)
        return worker

    def _kafka_worker(self, part: KafkaPart) -> Work:
        from redis_worker.file.kafka_parts import kafka_worker_of

        return kafka_worker_of(
            part,
            observers=(self.metrics.counting,),
            measuring=self._measuring(part.name),
            announced=False,
            shutdown_timeout=part.supervision.shutdown_timeout,
        )

    def _job(self, part: JobPart) -> Work:
        from redis_worker.broker.cron import CronStore
        from redis_worker.cron.job import CronJob

        store = self._stores.get(part.url)
        if store is None:
            store = self._stores[part.url] = CronStore(part.url)
        return CronJob(part.settings, store, on_outcome=self.metrics.job(part.name).outcome)

    def _measuring(self, part: str) -> Callable[[str, str], Observer]:
        return lambda queue, processor: self.metrics.of(queue, processor, part)

    async def close(self) -> None:
        """Close the resources that parts share."""
        for store in self._stores.values():
            await store.close()
        self._stores.clear()


def add_handlers(handlers: Handlers, part: TopicsPart) -> None:
    """Register the topics of `part` with `handlers`. Raises ConfigurationError."""
    for topic in part.topics:
        handlers.add(topic.pattern, *handler_of(topic))


def handler_of(topic: TopicSettings) -> tuple[Callable[..., Any], Declared]:
    """Return the function of a topic, with the options of its decorator and the file. Raises ConfigurationError."""
    from redis_worker.service.declared_options import Declared, inheriting

    function = find_function("handler", topic.handler)
    return function, inheriting(function, topic.pattern, Declared(topic.batch, topic.options))
