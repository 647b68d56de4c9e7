"""The journal of a server: all writes that took effect, in order, read from its append-only file.

The file holds all that the server did: commands of clients and effects of scripts, one transaction
for each script. Nothing escapes it, as announcements may, and it survives restarts: a server that syncs every
write loses only what it has not answered. So the ledger that follows it does not depend on what workers report.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hiredis import Reader, pack_command

Command = list[bytes]

_READ = 1 << 20


class Journal:
    """The append-only file in the folder of a server that never rewrites it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offset = 0
        """The end of the last complete transaction. A killed server cuts an incomplete one off when it starts."""

    def transactions(self) -> Iterator[list[Command]]:
        """Yield the transactions that are new since the last call; a command outside of one is one by itself."""
        with self._file().open("rb") as file:
            file.seek(self._offset)
            rest = b""
            while data := file.read(_READ):
                rest += data
                used = 0
                for transaction, used in _complete(rest):  # noqa: B007 - read after the loop
                    yield transaction
                self._offset += used
                rest = rest[used:]

    def _file(self) -> Path:
        # Since Redis 7 a folder of several files, of which the increments hold commands.
        return next(self._folder.glob("appendonlydir/*.incr.aof"), self._folder / "appendonly.aof")


def _complete(data: bytes) -> Iterator[tuple[list[Command], int]]:
    """Yield each complete transaction in `data`, and its end."""
    reader = Reader()
    reader.feed(data)
    position = 0
    open_transaction: list[Command] | None = None
    while (command := reader.gets()) is not False:
        position += len(pack_command(tuple(command)))  # the file holds commands as clients send them
        name = command[0].upper()
        if name == b"MULTI":
            open_transaction = []
        elif name == b"EXEC" and open_transaction is not None:
            yield open_transaction, position
            open_transaction = None
        elif open_transaction is not None:
            open_transaction.append(command)
        else:
            yield [command], position
