"""A web server for the download processor."""

from __future__ import annotations

import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Self

HOST = "127.0.0.1"

# Delay of every response, in seconds: as on a real network, a worker has several downloads in flight.
_DELAY = 0.1


class FileServer(ThreadingHTTPServer):
    """A server of `files`, by path, in threads. After `before_pause` responses it holds others until `resumed` is set.

    Any worker killed in that pause holds tasks, even on a slow machine.
    """

    daemon_threads = True

    def __init__(self, before_pause: int) -> None:
        super().__init__((HOST, 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.before_pause = before_pause
        self.resumed = Event()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://{HOST}:{self.server_port}"

    @property
    def paused(self) -> bool:
        """True while it holds all responses."""
        return self.before_pause <= 0 and not self.resumed.is_set()

    def handle_error(self, *_: object) -> None:
        """Report nothing: the client may be killed at any moment, and the demo does that."""

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        time.sleep(_DELAY)
        if self.server.paused:
            self.server.resumed.wait()
        self.server.before_pause -= 1
        body = self.server.files.get(self.path)
        self.send_response(HTTPStatus.NOT_FOUND if body is None else HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        """Log nothing."""
