"""Messages to systemd (`Type=notify`): ready, stopping, and pings from the event loop for its watchdog.

A message is a datagram to the socket that NOTIFY_SOCKET names, as sd_notify(3) describes it. Without the variable,
nothing is sent.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from redis_worker.vocabulary.logger import library_logger

logger = library_logger()


class ServiceManager:
    """The socket of the service manager, and the interval of its watchdog."""

    def __init__(self) -> None:
        """Take the variables out of the environment: programs that tasks start must not speak for this one."""
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        interval, process = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        is_meant = process in ("", str(os.getpid()))
        self._watchdog = int(interval) / 1e6 if interval.isdecimal() and is_meant else 0.0

    @asynccontextmanager
    async def informed(self, started: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """In the block, report that `started` has returned, and ping twice in each interval of the watchdog."""
        if not self._address:
            yield
            return
        tasks = [asyncio.create_task(self._report(started))]
        if self._watchdog:
            tasks.append(asyncio.create_task(self._ping()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            self.stopping()

    def stopping(self) -> None:
        """Report that the stop has begun."""
        self._send("STOPPING=1")

    async def _report(self, started: Callable[[], Awaitable[None]]) -> None:
        await started()
        self._send("READY=1")

    async def _ping(self) -> None:
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog / 2)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # An abstract socket begins with a null byte, which systemd writes as @.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), address)
        except OSError as error:
            logger.warning("the service manager at %s does not hear %s: %s", self._address, message, error)
