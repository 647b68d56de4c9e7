"""The journal of a server: all writes that took effect, in order, read from its append-only file.

The file holds what the server did, whoever asked for it: commands of clients and effects of scripts, one transaction
for each script. Nothing escapes it, as announcements may, and it survives restarts: a server that syncs every
write loses only what it has not answered. So the ledger that follows it does not depend on what workers report.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
    position = 0
    open_transaction: list[Command] | None = None
    while (found := _command(data, position)) is not None:
        command, position = found
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


def _command(data: bytes, position: int) -> tuple[Command, int] | None:
    """Return the command at `position` and its end; None if it is not complete."""
    end = data.find(b"\r\n", position)
    if end < 0:
        return None
    command = []
    count, position = int(data[position + 1 : end]), end + 2
    for _ in range(count):
        end = data.find(b"\r\n", position)
        if end < 0:
            return None
        start = end + 2
        position = start + int(data[position + 1 : end]) + 2
        if position > len(data):
            return None
        command.append(data[start : position - 2])
    return command, position
