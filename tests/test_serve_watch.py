"""`serve --watch` from its first moment."""

from __future__ import annotations

import socket
from pathlib import Path

from redis_worker.embedded import HOST, EmbeddedServer
from tests.parts import marks
from tests.session import free_port
from tests.support import PATIENCE, CommandProcess, wait_until
from tests.test_supervisor import File


async def test_a_change_while_it_waits_for_redis_is_noticed(tmp_path: Path) -> None:
    """Once there is a server, the part begins with the settings of the changed file."""
    port = free_port()
    file = File(tmp_path, f"redis://{HOST}:{port}")
    pool = '[pools.adding]\ninput = "in"\noutput = "out"\nprocessor = "sum"'
    file.write(pool, file.daemon("one", "steady", label="one"))
    process = CommandProcess("serve", str(file.path), "--watch", env={"REDIS_WORKER_CONNECT_TIMEOUT": "0"})
    try:
        with socket.create_server((HOST, port)) as nobody:
            nobody.settimeout(PATIENCE)
            nobody.accept()[0].close()
        file.write(pool, file.daemon("one", "steady", label="another"))
        with EmbeddedServer(port=port):
            await wait_until(lambda: any(mark.startswith("begin:another:") for mark in marks(file.marks)), "the change")
            process.kill()
    finally:
        process.close()
