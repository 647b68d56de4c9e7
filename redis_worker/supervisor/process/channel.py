"""The channel between a supervisor and a part's process: JSON objects, one a line, over a socket pair."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from redis_worker.vocabulary.payload import dumps, loads

CHANNEL_FD = "REDIS_WORKER_CHANNEL"
"""The environment variable with the file descriptor of the process's end."""

PYTHONPATH = "PYTHONPATH"
"""The environment variable with the process's module path. The process restores the value of `FORMER_PYTHONPATH`,
so that programs which it starts, another Python perhaps, do not inherit the path."""
FORMER_PYTHONPATH = "REDIS_WORKER_FORMER_PYTHONPATH"

# The longest line, in bytes: metrics of very many queues are long.
_LONGEST_LINE = 64 * 1024 * 1024


class Channel:
    """One end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """Return a channel over `end`; closing the channel closes `end`."""
        return cls(*await asyncio.open_connection(sock=end, limit=_LONGEST_LINE))

    @property
    def waiting(self) -> int:
        """The number of bytes that the other end has not read."""
        return int(self._writer.transport.get_write_buffer_size())

    def send(self, **message: Any) -> None:
        """Send `message` without waiting; drop it if the channel is closing."""
        if not self._writer.is_closing():
            self._writer.write(dumps(message) + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message; None when the other end is closed."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        message: dict[str, Any] | None = loads(line) if line.endswith(b"\n") else None
        return message

    def abort(self) -> None:
        """Close at once, and drop the buffered messages."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Send the buffered messages, and close."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass
