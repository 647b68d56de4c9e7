"""Fuzzing: arbitrary bytes into whatever reads the bytes of others. `python -m tests.fuzz --help`."""

from __future__ import annotations

from tests.fuzz.commands import CommandProcesses, Commands
from tests.fuzz.files import Files
from tests.fuzz.lists import Lists, ListsAtMostOnce, ListsRetried
from tests.fuzz.running import Target
from tests.fuzz.topics import TopicNames, Topics
from tests.fuzz.web import Web

TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (Lists, ListsAtMostOnce, ListsRetried, Topics, TopicNames, Web, Files, Commands, CommandProcesses)
}
