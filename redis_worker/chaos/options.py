"""The options of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from redis_worker.broker.connection.address import mask


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run."""

    mode: str
    """pool, topics, at-most-once, cron or cluster."""
    tasks: int
    seconds: float
    seed: int
    processor: str | None = None
    """None for the default of the mode."""
    parser: str = "list"
    task: str | None = None
    """JSON of a task, in which {n} stands for its number; None for three numbers."""
    faults: tuple[str, ...] = ()
    """Names of the faults to inflict; empty for all that the mode has."""
    url: str | None = None
    """A server of the user's; None for a private one."""
    replica: bool = False
    """True for a private server with a replica, which takes over now and then."""
    report: Path | None = None

    def command(self) -> str:
        """Return the command that repeats the run."""
        from shlex import quote

        pairs = [
            ("--mode", self.mode),
            ("--tasks", str(self.tasks)),
            ("--minutes", f"{self.seconds / 60:g}"),
            ("--seed", str(self.seed)),
            ("--processor", self.processor),
            ("--parser", None if self.parser == "list" else self.parser),
            ("--task", self.task),
            ("--url", None if self.url is None else mask(self.url)),
            *(("--fault", name) for name in self.faults),
        ]
        flags = ["--replica"] * self.replica
        return " ".join(["redis-worker chaos", *(f"{name} {quote(value)}" for name, value in pairs if value), *flags])
