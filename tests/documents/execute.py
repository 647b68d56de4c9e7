"""Execute statements in PostgreSQL: the address, and the statements."""

import asyncio
import sys

import asyncpg


async def execute() -> None:
    connection = await asyncpg.connect(sys.argv[1])
    await connection.execute(sys.argv[2])
    await connection.close()


asyncio.run(execute())
