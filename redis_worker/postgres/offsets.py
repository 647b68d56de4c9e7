"""Offsets of Kafka in PostgreSQL: they commit with the rows, and only for the owner of a partition."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from redis_worker.ports import Partition, PartitionsLost
from redis_worker.postgres.table import table_name


class OffsetStore:
    """A table of the next offset of each partition, and of the partition's owner.

    `take` raises the epoch of a partition. Its row is locked by each transaction that advances it, so a predecessor
    either commits before its successor reads the offset, or finds another epoch and writes nothing.
    """

    def __init__(self, table: str = "redis_worker_offsets") -> None:
        """Raises ConfigurationError if `table` is no name of a table."""
        self._table = table_name(table)

        self._epochs: dict[Partition, tuple[str, int]] = {}
        """The group and epoch of each partition that was taken."""

    async def open(self, connection: Any) -> None:
        """Create the table unless it exists. Raises errors of asyncpg."""
        if await connection.fetchval("select to_regclass($1)", self._table) is not None:
            return
        # Two that create it at once would collide in the catalogue.
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(hashtext('redis_worker offsets'))")
            await connection.execute(
                f"create table if not exists {self._table} (consumer_group text, topic text, partition int, "
                "next_offset bigint, epoch bigint not null, owner text not null, "
                "changed_at timestamptz not null default now(), primary key (consumer_group, topic, partition))"
            )

    async def take(
        self, connection: Any, group: str, owner: str, partitions: Collection[Partition]
    ) -> dict[Partition, int]:
        """Become the owner of partitions; return their stored offsets, without those that have none."""
        topics, numbers = _columns(sorted(set(partitions)))
        records = await connection.fetch(
            f"insert into {self._table} as stored (consumer_group, topic, partition, epoch, owner) "  # noqa: S608
            "select $1, topic, number, 1, $2 from unnest($3::text[], $4::int[]) as taken (topic, number) "
            "order by topic, number on conflict (consumer_group, topic, partition) do update "
            "set epoch = stored.epoch + 1, owner = excluded.owner, changed_at = now() "
            "returning topic, partition, next_offset, epoch",
            group,
            owner,
            topics,
            numbers,
        )
        self._epochs |= {(r["topic"], r["partition"]): (group, r["epoch"]) for r in records}
        return {(r["topic"], r["partition"]): r["next_offset"] for r in records if r["next_offset"] is not None}

    async def advance(self, connection: Any, offsets: Mapping[Partition, int]) -> bool:
        """Store offsets in the open transaction; return False if all are stored already, by a try whose reply was lost.

        Raises PartitionsLost if another owner has taken some of the partitions.
        """
        if untaken := [partition for partition in offsets if partition not in self._epochs]:
            raise PartitionsLost(untaken)
        owned = sorted(offsets)
        topics, numbers = _columns(owned)
        groups, epochs = zip(*(self._epochs[partition] for partition in owned), strict=True)
        # Locks first, in one order: what is read afterwards stays so until the end of the transaction.
        records = await connection.fetch(
            f"select topic, partition, next_offset from {self._table} as stored "  # noqa: S608
            "join unnest($1::text[], $2::text[], $3::int[], $4::bigint[]) as mine (g, t, p, e) "
            "on consumer_group = g and topic = t and partition = p and epoch = e "
            "order by topic, partition for update of stored",
            groups,
            topics,
            numbers,
            epochs,
        )
        stored = {(record["topic"], record["partition"]): record["next_offset"] for record in records}
        if lost := [partition for partition in owned if partition not in stored]:
            raise PartitionsLost(lost)
        if stored == dict(offsets):
            return False
        await connection.execute(
            f"update {self._table} set next_offset = n, changed_at = now() "  # noqa: S608
            "from unnest($1::text[], $2::text[], $3::int[], $4::bigint[]) as mine (g, t, p, n) "
            "where consumer_group = g and topic = t and partition = p",
            groups,
            topics,
            numbers,
            [offsets[partition] for partition in owned],
        )
        return True


def _columns(partitions: Collection[Partition]) -> tuple[list[str], list[int]]:
    return [topic for topic, _ in partitions], [number for _, number in partitions]
