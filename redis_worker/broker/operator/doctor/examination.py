"""The whole examination: connection, server, queues, outputs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from redis_worker.broker.connection.address import Client, address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.preflight import check_no_sentinel
from redis_worker.broker.keys import topic_list
from redis_worker.broker.operator.doctor.finding import Finding, fault, good, looked_at, shown
from redis_worker.broker.operator.doctor.key_checks import examine_registries
from redis_worker.broker.operator.doctor.output_checks import examine_output
from redis_worker.broker.operator.doctor.queue_checks import examine_queue
from redis_worker.broker.operator.doctor.server_checks import Examined, examine_server
from redis_worker.broker.queue.topic import Topics
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused

# How long the server may take to answer at first, in seconds.
_FIRST = 5.0
# Of more topics than these, the first are examined.
_TOPICS = 200


class Examination(NamedTuple):
    """What has been found."""

    connected: bool
    """False when the server could not be reached, would not let us in, or went away meanwhile."""
    findings: list[Finding]
    """The first one is always that of the connection."""

    @property
    def healthy(self) -> bool:
        """Whether there is no fault."""
        return all(finding.level != "fault" for finding in self.findings)


async def examine(redis: str | Client, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Examination:
    """Examine a server, the queues `inputs` and those of all known topics, and the output hashes `outputs`.

    `redis` is a URL, or a client that is used and not closed. Nothing is changed. Raises ConfigurationError
    where the URL is not valid.
    """
    address = address_of(redis)
    given = None if isinstance(redis, str) else redis
    connection = Connection(given or address.open(), owned=given is None)
    findings: list[Finding] = []
    try:
        reached, first = await _reached(connection, address.name)
        findings.append(first)
        if reached:
            await _examine(connection, address.cluster, inputs, outputs, findings)
        return Examination(reached, findings)
    except Disconnected as error:
        first = fault("connection", f"{address.name} went away meanwhile ({error})", "look at the server, and again")
        if findings and findings[0].level == "fault":
            first = findings[0]  # it could not work from the start, and that says more
        return Examination(False, [first, *findings[1:]])
    finally:
        await connection.close()


async def _reached(connection: Connection, name: str) -> tuple[bool, Finding]:
    """Whether there is a server to examine, and the finding of the connection."""
    try:
        await connection.ping(_FIRST)
        check_no_sentinel(await _info(connection))
    except Refused as refused:
        return False, fault("connection", f"{name}: {refused}", "name another server or user, or change this one")
    except Disconnected as error:
        if isinstance(error.__cause__, ResponseError):  # it is there, and the checks will show why it cannot work
            return True, fault(
                "connection", f"{name} answers, but cannot work: {error}", "mend that; faults below may say more"
            )
        return False, fault("connection", f"no Redis at {name} ({error})", "is it running, and is the address right?")
    return True, good("connection", f"{name} answers")


async def _info(connection: Connection) -> dict[str, Any]:
    try:
        return await connection.info()
    except Refused:
        return {}  # the checks that need it say so


async def _examine(
    connection: Connection, cluster: bool, inputs: Sequence[str], outputs: Sequence[str], findings: list[Finding]
) -> None:
    topics, unseen = await _topics(connection)
    findings += await examine_server(Examined(connection, cluster=cluster, topics=len(topics)))
    findings += unseen + await examine_registries(connection)
    queues = dict.fromkeys([*inputs, *map(topic_list, topics[:_TOPICS])])
    if len(topics) > _TOPICS:
        findings.append(
            good("known topics", f"the first {_TOPICS} by name are examined; name others with --input mq:TOPIC")
        )
    if not queues:
        findings.append(good("queues", "none is named, and no topic is known; name queues with --input KEY"))
    for key in queues:
        examination = partial(examine_queue, connection, key, cluster=cluster)
        findings += await looked_at(f"queue {shown(key)}", examination)
    for key in dict.fromkeys(outputs):
        findings += await looked_at(f"output {shown(key)}", partial(examine_output, connection, key))


async def _topics(connection: Connection) -> tuple[list[str], list[Finding]]:
    """The known topics, in order; or none, and why they cannot be looked at."""
    topics: list[str] = []

    async def look() -> list[Finding]:
        with suppress(DamagedKey):  # which is a finding of its own
            known, _ = await Topics(connection).known()
            topics.extend(sorted(known))
        return []

    return topics, await looked_at("known topics", look)
