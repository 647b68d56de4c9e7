"""redis_worker: an asyncio worker pool for Redis. Plain JSON in a list, results in a hash, nothing lost."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from redis_worker.vocabulary.version import __version__ as __version__

if TYPE_CHECKING:
    from redis_worker.broker.client.broadcaster import Broadcaster
    from redis_worker.broker.client.publisher import Publisher
    from redis_worker.broker.client.sync_client import SyncPublisher, SyncTaskClient
    from redis_worker.broker.client.task_client import TaskClient
    from redis_worker.broker.sinks.broadcast import BroadcastSink
    from redis_worker.broker.sinks.cache import CacheSink
    from redis_worker.broker.sinks.passing import ListSink, TopicSink
    from redis_worker.engine.counters import Counters
    from redis_worker.engine.lifespan import current_resources
    from redis_worker.engine.middleware import CallNext, TaskCall
    from redis_worker.engine.running import RunningTask
    from redis_worker.environment import redis_url_from_environment
    from redis_worker.functions.current import CurrentTask, current_task
    from redis_worker.functions.flows import chain, group
    from redis_worker.functions.handle import Handle
    from redis_worker.functions.queue import TaskQueue
    from redis_worker.kafka.message import KafkaMessage
    from redis_worker.kafka.topic_sink import KafkaSink
    from redis_worker.ports import Observer, PartitionsLost, Sink
    from redis_worker.service.handlers import Handlers
    from redis_worker.service.kafka_options import KafkaOptions
    from redis_worker.service.kafka_worker import KafkaWorker
    from redis_worker.service.options import PoolOptions
    from redis_worker.service.pool import WorkerPool, start_worker_pool
    from redis_worker.service.topic_consumer import ConsumerStatus
    from redis_worker.service.topic_worker import TopicWorker
    from redis_worker.supervisor.supervisor import Supervisor
    from redis_worker.vocabulary.duration import Duration
    from redis_worker.vocabulary.errors import (
        ConfigurationError,
        Disconnected,
        PartFailed,
        RedisWorkerError,
        Refused,
        Reject,
        Retry,
        TaskError,
        Unreachable,
    )
    from redis_worker.vocabulary.message import Message
    from redis_worker.vocabulary.processor import processor
    from redis_worker.vocabulary.service import PartStatus

__all__ = [
    "BroadcastSink",
    "Broadcaster",
    "CacheSink",
    "CallNext",
    "ConfigurationError",
    "ConsumerStatus",
    "Counters",
    "CurrentTask",
    "Disconnected",
    "Duration",
    "Handle",
    "Handlers",
    "KafkaMessage",
    "KafkaOptions",
    "KafkaSink",
    "KafkaWorker",
    "ListSink",
    "Message",
    "Observer",
    "PartFailed",
    "PartStatus",
    "PartitionsLost",
    "PoolOptions",
    "Publisher",
    "RedisWorkerError",
    "Refused",
    "Reject",
    "Retry",
    "RunningTask",
    "Sink",
    "Supervisor",
    "SyncPublisher",
    "SyncTaskClient",
    "TaskCall",
    "TaskClient",
    "TaskError",
    "TaskQueue",
    "TopicSink",
    "TopicWorker",
    "Unreachable",
    "WorkerPool",
    "chain",
    "current_resources",
    "current_task",
    "group",
    "processor",
    "redis_url_from_environment",
    "start_worker_pool",
]

_MODULES = {
    "CallNext": "engine.middleware",
    "TaskCall": "engine.middleware",
    "CurrentTask": "functions.current",
    "Handle": "functions.handle",
    "chain": "functions.flows",
    "group": "functions.flows",
    "TaskQueue": "functions.queue",
    "current_resources": "engine.lifespan",
    "current_task": "functions.current",
    "BroadcastSink": "broker.sinks.broadcast",
    "CacheSink": "broker.sinks.cache",
    "ListSink": "broker.sinks.passing",
    "TopicSink": "broker.sinks.passing",
    "Broadcaster": "broker.client.broadcaster",
    "Publisher": "broker.client.publisher",
    "TopicWorker": "service.topic_worker",
    "Handlers": "service.handlers",
    "ConsumerStatus": "service.topic_consumer",
    "Message": "vocabulary.message",
    "Supervisor": "supervisor.supervisor",
    "SyncPublisher": "broker.client.sync_client",
    "SyncTaskClient": "broker.client.sync_client",
    "TaskClient": "broker.client.task_client",
    "Duration": "vocabulary.duration",
    "redis_url_from_environment": "environment",
    "Counters": "engine.counters",
    "RunningTask": "engine.running",
    "KafkaMessage": "kafka.message",
    "KafkaSink": "kafka.topic_sink",
    "KafkaOptions": "service.kafka_options",
    "KafkaWorker": "service.kafka_worker",
    "PartitionsLost": "ports",
    "PoolOptions": "service.options",
    "Sink": "ports",
    "WorkerPool": "service.pool",
    "start_worker_pool": "service.pool",
    "Observer": "ports",
    "PartStatus": "vocabulary.service",
    "processor": "vocabulary.processor",
}


def __getattr__(name: str) -> Any:
    # Imported lazily: `redis-worker --help` needs none of it, and redis-py alone takes 100 ms.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULES.get(name, 'vocabulary.errors')}")
    value = globals()[name] = getattr(module, name)
    return value
