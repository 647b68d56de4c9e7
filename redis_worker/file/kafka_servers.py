"""The servers of a Kafka part, asked: brokers, topics, the group, and the table of the sink."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from redis_worker.broker.operator.doctor.finding import Finding, fault, good, warning
from redis_worker.file.kafka_parts import inspection, settings_of, sink_of
from redis_worker.file.plan import KafkaPart, SinkSettings
from redis_worker.service.kafka_options import KafkaOptions
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, RedisWorkerError, Refused, Unreachable
from redis_worker.vocabulary.partition import GroupStatus

if TYPE_CHECKING:
    from redis_worker.kafka.inspection import Inspection

# The pause between two tries of a database that does not answer, in seconds.
_PAUSE = 0.2


class Answer(NamedTuple):
    """A finding, and the key of the part's table that it concerns."""

    key: tuple[str, ...]
    finding: Finding
    error: RedisWorkerError | None = None
    """The error that a start of the part would meet."""


async def inspect_part(part: KafkaPart, timeout: float) -> Inspection:
    """Return what the brokers of `part` report. Raises Unreachable, Refused or ConfigurationError."""
    seen: Inspection = await inspection().inspect(settings_of(part), timeout)
    return seen


async def group_status(part: KafkaPart, timeout: float) -> list[GroupStatus]:
    """Return the status of each topic of `part`; one row with the problem if the brokers do not answer."""
    try:
        seen = await inspect_part(part, timeout)
    except RedisWorkerError as error:
        return [GroupStatus(part.name, ", ".join(part.topics), part.group, problem=str(error))]
    rows = [GroupStatus(part.name, topic, part.group, problem="there is no such topic") for topic in seen.missing]
    for topic in dict.fromkeys(partition.topic for partition in seen.partitions):
        lags = [partition.lag for partition in seen.partitions if partition.topic == topic]
        rows.append(GroupStatus(part.name, topic, part.group, len(lags), seen.members, sum(lags)))
    return rows


async def ask(part: KafkaPart, timeout: float, *, starting: bool = True) -> list[Answer]:
    """Ask the servers of `part`, each for `timeout` seconds at most. Raises ConfigurationError.

    `starting` asks for the topic of dead letters as a start does: brokers that make missing topics make it.
    """
    answers, of_sink = await asyncio.gather(_ask_brokers(part, timeout, starting), _ask_sink(part, timeout))
    return answers + of_sink


async def _ask_brokers(part: KafkaPart, timeout: float, starting: bool) -> list[Answer]:
    try:
        seen = await inspect_part(part, timeout)
    except (Unreachable, Refused) as error:
        remedy = "start Kafka, or mend brokers and properties"
        return [Answer(("brokers",), fault(_subject(part, "brokers"), str(error), remedy), error)]
    answers = list(_seen(part, seen))
    options = KafkaOptions(**part.options)
    letters = options.dead_letters or f"{part.group}.dead"
    if options.dead_list is None and letters != "none" and letters not in seen.topics:
        answers += await _ask_for_letters(part, letters, starting)
    return answers


async def _ask_for_letters(part: KafkaPart, topic: str, starting: bool) -> list[Answer]:
    """Return a finding if the topic of dead letters is missing."""
    key, subject, remedy = ("dead_letters",), _subject(part, "dead letters"), "create it, or set dead_letters"
    if not starting:
        what = f"there is no topic {topic!r} yet: unless the brokers make it, the part does not start"
        return [Answer(key, warning(subject, what, remedy))]
    from redis_worker.kafka.dead_letters import DeadTopic

    letters = DeadTopic(settings_of(part), topic)
    try:
        await letters.open()
    except (Refused, Disconnected) as error:
        return [Answer(key, fault(subject, str(error), remedy), error)]
    finally:
        await letters.close()
    return []


def _seen(part: KafkaPart, seen: Inspection) -> Iterator[Answer]:
    count = f"{seen.brokers} broker{'s' * (seen.brokers != 1)}"
    yield Answer(("brokers",), good(_subject(part, "brokers"), f"{count} at {part.brokers}"))
    for topic in seen.missing:
        error = Refused(f"Kafka at {part.brokers} has no topic {topic!r}: create it, or check the name")
        what = f"Kafka has no topic {topic!r}"
        yield Answer(("topics",), fault(_subject(part, "topics"), what, "create it, or check the name"), error)
    topics = dict.fromkeys(partition.topic for partition in seen.partitions)
    if topics:
        partitions = f"{len(seen.partitions)} partition{'s' * (len(seen.partitions) != 1)}"
        yield Answer(("topics",), good(_subject(part, "topics"), f"{', '.join(topics)}, {partitions}"))
    elif not seen.missing:
        remedy = "create one, or check the pattern: new topics are found while the part runs"
        yield Answer(("topics",), warning(_subject(part, "topics"), "no topic matches", remedy))
    members = "" if seen.members is None else f"{seen.members} member{'s' * (seen.members != 1)}, "
    what = f"{part.group}: {members}{seen.lag:,} messages to read"
    if seen.members == 0 and seen.lag:
        yield Answer(("group",), warning(_subject(part, "group"), what, "start the part: nobody reads them"))
    else:
        yield Answer(("group",), good(_subject(part, "group"), what))


async def _ask_sink(part: KafkaPart, timeout: float) -> list[Answer]:
    if part.sink is None:
        return []
    of_table = isinstance(part.sink, SinkSettings)
    table = part.sink.table if isinstance(part.sink, SinkSettings) else part.sink
    sink, end = sink_of(part.sink), time.monotonic() + timeout
    try:
        while True:
            try:
                await sink.open()
                return [Answer(("sink",), good(_subject(part, "sink"), f"{table} takes the rows"))]
            except Disconnected as error:
                if time.monotonic() > end:
                    unreachable = Unreachable(str(error))
                    key = ("sink", "dsn") if of_table else ("sink",)
                    remedy = "start the database, or mend its address"
                    return [Answer(key, fault(_subject(part, "sink"), str(error), remedy), unreachable)]
                await asyncio.sleep(_PAUSE)
            except (Refused, ConfigurationError) as error:
                at_fault = "table" if isinstance(error, Refused) else "dsn"
                key = ("sink", at_fault) if of_table else ("sink",)
                remedy = "mend the table, or the settings of the sink"
                return [Answer(key, fault(_subject(part, "sink"), str(error), remedy), error)]
    finally:
        await sink.close()


def _subject(part: KafkaPart, what: str) -> str:
    return f"kafka {part.name}: {what}"
