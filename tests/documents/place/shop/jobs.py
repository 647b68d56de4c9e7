"""A daemon and a job of the reader's."""

import asyncio


async def consume_table(stop: asyncio.Event, table: str = "users") -> None:
    await stop.wait()


async def sync_user() -> None:
    print("synchronised")
