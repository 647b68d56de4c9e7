"""The line between a supervisor and a process of its own: JSON objects, one a line, over a socket pair."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from redis_worker.vocabulary.payload import dumps, loads

FILE = "REDIS_WORKER_CHANNEL"
"""The environment variable that tells the process the number of its end."""

PATH = "PYTHONPATH"
"""Where the process finds modules. What it starts itself, another Python perhaps, is not to look there, so that it
puts back what `FORMER_PATH` says that was there before."""
FORMER_PATH = "REDIS_WORKER_FORMER_PYTHONPATH"

# The longest line, in bytes: metrics of very many queues are long.
_LONGEST = 64 * 1024 * 1024


class Channel:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """Over `end`, which is closed with it."""
        return cls(*await asyncio.open_connection(sock=end, limit=_LONGEST))

    @property
    def waiting(self) -> int:
        """How many bytes wait for the other end to read."""
        return int(self._writer.transport.get_write_buffer_size())

    def send(self, **message: Any) -> None:
        """Send `message`, whenever the other end reads; one that is gone hears nothing."""
        if not self._writer.is_closing():
            self._writer.write(dumps(message) + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        message: dict[str, Any] | None = loads(line) if line.endswith(b"\n") else None
        return message

    def abort(self) -> None:
        """Close at once, as if the other end were gone."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Send what is still to be sent, and close."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass
