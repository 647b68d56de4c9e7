"""TLS for the tests: an authority, certificates of its making, and TLS in front of a server that has none."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass
class Certificates:
    """Files in PEM: an authority, and a server certificate of its making with its key."""

    authority: Path
    server: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Return what a server with this certificate needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.key)
        context.load_verify_locations(self.authority)
        return context


def make_certificates(folder: Path, host: str) -> Certificates:
    """Make an authority, and a certificate for a host name or an address."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    certificate = authority.issue_cert(host, key_type=trustme.KeyType.ECDSA)
    made = Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    authority.cert_pem.write_to_path(made.authority)
    made.server.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(made.key)
    return made


@contextlib.contextmanager
def tls_in_front_of(host: str, port: int, context: ssl.SSLContext) -> Iterator[int]:
    """Take TLS connections and pass on what they bring, in threads; yield the port."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            # Not by asyncio, which resets a connection before the client has heard why it is refused.
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as theirs,
                socket.create_connection((host, port)) as ours,
            ):
                _pass_on(theirs, ours)

    class Front(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 100

    with Front((host, 0), Connection) as front:
        thread = threading.Thread(target=front.serve_forever, args=(0.01,), name="TLS")
        thread.start()
        try:
            yield front.server_address[1]
        finally:
            front.shutdown()
            thread.join()


def _pass_on(theirs: ssl.SSLSocket, ours: socket.socket) -> None:
    """Pass on bytes in both directions until one side ends."""
    while True:
        # What has been decrypted already is no event of the socket.
        ready = [theirs] if theirs.pending() else select.select([theirs, ours], [], [])[0]
        for one in ready:
            some = one.recv(65536)
            if not some:
                return
            (ours if one is theirs else theirs).sendall(some)
