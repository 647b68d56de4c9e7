"""Commits: one at a time, of what is settled, and only for partitions that are still owned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from confluent_kafka import TopicPartition

from redis_worker.engine.waiting import happens
from redis_worker.kafka.errors import translated
from redis_worker.kafka.partitions import Commit, OwnedPartition
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.logger import library_logger

logger = library_logger(__name__)

# The pause between commits, in seconds: what is settled and not committed is handled again after a kill.
_EVERY = 0.1
# The pause after a commit that failed.
_AGAIN = 1.0


class Commits:
    """A role that commits offsets and marks."""

    def __init__(
        self,
        commit: Callable[[Sequence[Commit]], Awaitable[list[TopicPartition]]],
        observer: Observer,
        acknowledged: Callable[[], None],
    ) -> None:
        """`acknowledged` is called after each commit."""
        self._commit = commit
        self._observer = observer
        self._acknowledged = acknowledged
        self._dirty: set[OwnedPartition] = set()
        """Partitions that may have something to commit."""
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()

    def want(self, partition: OwnedPartition, *, urgent: bool = False) -> None:
        """Commit what `partition` has to commit, soon, or at once. The hot path."""
        self._dirty.add(partition)
        self._wanted.set()
        if urgent:
            self._urgent.set()

    async def run(self) -> None:
        """Commit until cancelled. Raises Refused."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._urgent.clear()
            try:
                await self._flush()
            except Disconnected as error:
                logger.debug("a commit failed, and is repeated: %s", error)
                self._wanted.set()
                await asyncio.sleep(_AGAIN)
            else:
                await happens(self._urgent, _EVERY)

    async def _flush(self) -> None:
        """Commit what there is. Raises Disconnected or Refused."""
        owned = [partition for partition in self._dirty if not partition.lost and not partition.leaving]
        commits = [commit for partition in owned if (commit := partition.commit()) is not None]
        self._dirty.clear()
        if not commits:
            return
        try:
            done = await self._commit(commits)
            self._take(commits, done)
        except Disconnected:
            self._dirty.update(owned)
            raise

    def _take(self, commits: list[Commit], done: list[TopicPartition]) -> None:
        """Note which of `commits` the brokers have. Raises Disconnected or Refused for one that they do not have."""
        errors = {(each.topic, each.partition): each.error for each in done}
        commits = [commit for commit in commits if commit.partition.name in errors]  # the others have gone
        kept = [commit for commit in commits if errors[commit.partition.name] is None]
        for commit in kept:
            commit.acknowledge()
        if kept:
            self._observer.committed([commit.partition.name for commit in kept])
            self._acknowledged()
        for commit in commits:
            if (error := errors[commit.partition.name]) is not None:
                raise translated(error)
