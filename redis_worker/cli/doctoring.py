"""The work of `redis-worker doctor --file`: Redis, if the file needs it, and the servers of its Kafka parts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis_worker.broker.operator.doctor.examination import Examination, examine
from redis_worker.broker.operator.doctor.finding import good
from redis_worker.file.kafka_servers import ask
from redis_worker.file.plan import KafkaPart, PoolPart
from redis_worker.file.reading import read_plan
from redis_worker.file.resolving import resolved
from redis_worker.vocabulary.errors import Unreachable

# The time limit for the servers of a Kafka part, in seconds.
_PATIENCE = 5.0


async def examine_file(
    path: str, url: str | None, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[str | None, Examination]:
    """Examine what the parts of a file need, and the named keys. Return the Redis URL, None if none is needed.

    `url` overrides the file's. Raises FileMistakes and ConfigurationError.
    """
    plan = resolved(lambda: read_plan(path, url=url))
    pools = [part for part in plan.parts if isinstance(part, PoolPart) and part.url == plan.url]
    answers = await asyncio.gather(
        *(ask(part, _PATIENCE, starting=False) for part in plan.parts if isinstance(part, KafkaPart))
    )
    found = [answer for of_part in answers for answer in of_part]
    connected = not any(isinstance(answer.error, Unreachable) for answer in found)
    findings = [answer.finding for answer in found]
    if plan.url is not None:
        keys = [*inputs, *(pool.input_key for pool in pools)], [*outputs, *(pool.output_key for pool in pools)]
        of_redis = await examine(plan.url, *keys)
        return plan.url, Examination(connected and of_redis.connected, [*of_redis.findings, *findings])
    return None, Examination(connected, findings or [good("servers", "the file needs none")])
