"""The roles beside each worker on a Redis list: recovery, presence, and promotion of delayed tasks."""

from __future__ import annotations

from collections.abc import Iterable

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.presence import Announcer, Presence
from redis_worker.broker.operator.presence import Role as Described
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.delayed import Promoter
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.recovery import Recoverer
from redis_worker.engine.vitals import Vitals
from redis_worker.engine.worker import Role, Worker
from redis_worker.ports import Observer, Queue
from redis_worker.service.consumer import Upkeep


def upkeep_of(
    connection: Connection,
    keys: Keys,
    queue: Queue,
    observer: Observer,
    described: Described,
    vitals: Vitals,
    *,
    lease: float,
    doorbell: Doorbell,
    announcer: Announcer,
    others: Iterable[Role] = (),
) -> Upkeep:
    """Return the roles of a worker on `queue`, and the `others`; `doorbell` wakes them, `announcer` describes it.

    Only a worker with a lease can be seen and recovered, and recovers others.
    """

    def roles(worker: Worker) -> list[Role]:
        found = [Promoter(connection, keys, doorbell, observer).run, *others]
        if isinstance(queue, AtLeastOnceQueue):
            found.append(Recoverer(connection, keys, queue, observer, doorbell, lease=lease).run)
            found.append(Presence(keys, queue, described, vitals, worker, announcer).run)
        return found

    return roles
