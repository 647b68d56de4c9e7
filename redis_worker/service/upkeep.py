"""The roles beside each worker on a Redis list: recovery, presence, and promotion of delayed tasks."""

from __future__ import annotations

from collections.abc import Iterable

from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.presence import Presence
from redis_worker.broker.operator.presence import Role as Described
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.delayed import Promoter
from redis_worker.broker.queue.recovery import Recoverer
from redis_worker.engine.vitals import Vitals
from redis_worker.engine.worker import Role, Worker
from redis_worker.ports import Observer, Queue
from redis_worker.service.consumer import Upkeep
from redis_worker.service.shared import SharedParts


def upkeep_of(
    parts: SharedParts,
    keys: Keys,
    queue: Queue,
    observer: Observer,
    described: Described,
    vitals: Vitals,
    *,
    others: Iterable[Role] = (),
) -> Upkeep:
    """Return the roles of a worker on `queue`, and the `others`.

    Only a worker with a lease can be seen and recovered, and recovers others.
    """

    connection, doorbell = parts.connection, parts.doorbell

    def roles(worker: Worker) -> list[Role]:
        found = [Promoter(connection, keys, doorbell, observer).run, *others]
        if isinstance(queue, AtLeastOnceQueue):
            found.append(Recoverer(connection, keys, queue, observer, doorbell, lease=parts.keeper.seconds).run)
            found.append(Presence(keys, queue, described, vitals, worker, parts.announcer).run)
        return found

    return roles
