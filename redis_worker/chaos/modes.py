"""The modes: their workers, tasks, possible faults and promises."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from redis_worker.broker.keys import CronKeys, Keys, cron_stem, tagged, topic_list
from redis_worker.chaos.cron_ledger import CronLedger
from redis_worker.chaos.handlers import RAN
from redis_worker.chaos.ledger import Ledger, Promise, TaskLedger
from redis_worker.chaos.options import Options
from redis_worker.chaos.tasks import Place, Push, chances
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.payload import dumps

LEASE = 2
# Charges of a task that is no poison, but unlucky: as many workers as a run may kill.
_MAX_DELIVERIES = 1000
_CONCURRENCY = 16
_HANDLER = "redis_worker.chaos.handlers:handle"
# One of so many tasks is no JSON, on purpose.
_UNREADABLE_EVERY = 400

_ON_WORKERS = ("kill", "freeze", "terminate")
_ON_NODES = ("restart", "crash", "client-kill", "client-pause", "script-flush")
_ON_SERVER = (*_ON_NODES, "full")
_ON_NETWORK = ("cut", "stall", "delay", "half")


class Crew(NamedTuple):
    """A command that works: its arguments without the URL."""

    name: str
    arguments: Sequence[str]
    is_fleet: bool = False


class Mode(ABC):
    """One way to use redis_worker."""

    faults: tuple[str, ...] = (*_ON_WORKERS, *_ON_SERVER, *_ON_NETWORK)
    may_lose = False
    """True if some tasks may never be settled."""
    ledger: Ledger
    held_in: Sequence[Keys] = ()
    """Queues whose workers register, and hold tasks in Redis."""
    total = 0
    """Number of tasks to push."""
    _file: Path
    """The file that the workers serve."""

    def crews(self) -> list[Crew]:
        """Return the commands to start."""
        return [Crew(name, ["serve", str(self._file), "--log-format", "json"]) for name in ("one", "two", "three")]

    @abstractmethod
    def make(self, first: int, last: int) -> list[Push]:
        """Return the tasks of the numbers from `first` up to `last`, exclusive, and announce them to the ledger."""


class PoolMode(Mode):
    """A pool on one queue: each task has exactly one result, or a dead letter."""

    faults: tuple[str, ...] = (*_ON_WORKERS, "kill-parent", *_ON_SERVER, *_ON_NETWORK)
    delivery = "at-least-once"
    promise = Promise()

    def __init__(self, options: Options, keys: Keys, ledger: TaskLedger | None = None) -> None:
        """`ledger` replaces the one that reads a journal."""
        self.total = options.tasks
        self.queues = self.held_in = [keys]
        self.ledger = self.tasks = ledger or TaskLedger(self.queues, self.promise)
        self._options = options
        self._marks = marks_of(keys)
        if options.task is not None:
            _check_template(options.task)

    def crews(self) -> list[Crew]:
        """See Mode."""
        keys, options = self.queues[0], self._options
        arguments = [
            *("run", "--input", keys.waiting, "--output", keys.output, "--processor", options.processor or "sum"),
            *("--parser", options.parser, "--delivery", self.delivery, "--lease", str(LEASE)),
            *("--max-deliveries", str(_MAX_DELIVERIES), "--concurrency", str(_CONCURRENCY), "--log-format", "json"),
        ]
        return [Crew("one", arguments), Crew("two", arguments), Crew("fleet", [*arguments, "-w", "2"], is_fleet=True)]

    def make(self, first: int, last: int) -> list[Push]:
        """See Mode."""
        return [Push(Place(self.queues[0].waiting, self._marks), [self._task(n) for n in range(first, last)])]

    def _task(self, number: int) -> bytes:
        id, template = f"t{number}", self._options.task
        if number % _UNREADABLE_EVERY == _UNREADABLE_EVERY - 1:
            raw = b'{"id":"%b","task":[' % id.encode()
            self.tasks.expect(id, raw, "dead")
        elif template is not None:
            raw = b'{"id":"%b","task":%b}' % (id.encode(), template.replace("{n}", str(number)).encode())
            self.tasks.expect(id, raw, "answered")
        else:
            raw = dumps({"id": id, "task": [number, 10 * number, 100 * number]})
            right = b'{"status":"success","result":%d}' % (111 * number)
            self.tasks.expect(id, raw, "answered", None if self._options.processor else right.__eq__)
        return raw


class AtMostOnceMode(PoolMode):
    """A pool without claims: no task is done twice; those that a dead worker had taken are lost."""

    delivery = "at-most-once"
    may_lose = True
    # A result is written again if the reply was lost.
    promise = Promise(may_lose=True, may_repeat=True)

    def __init__(self, options: Options, keys: Keys) -> None:
        super().__init__(options, keys)
        self.held_in = ()


class ClusterMode(PoolMode):
    """A pool in Redis Cluster, with results on another node: each task has a result, now and then written twice."""

    faults = (*_ON_WORKERS, "kill-parent", *_ON_NODES)
    promise = Promise(may_repeat=True, splits=True)


class TopicsMode(Mode):
    """Two topics, with retries and delays, one of them idempotent: each message is completed once, or dead."""

    def __init__(self, options: Options, stem: str, folder: Path) -> None:
        self.total = options.tasks
        self._topics = [f"{stem}.plain", f"{stem}.once"]
        self.queues = self.held_in = [Keys(topic_list(topic)) for topic in self._topics]
        self.ledger = self.tasks = TaskLedger(self.queues, Promise(has_results=False))
        self._seed, self._task = options.seed, options.task
        if options.task is not None:
            _check_template(options.task)
        self._file = folder / "topics.toml"
        handler = options.processor or _HANDLER
        self._file.write_text("".join(self._settings(handler)), encoding="utf-8")

    def make(self, first: int, last: int) -> list[Push]:
        """See Mode. A tenth is delayed; of some idempotent messages there are two."""
        groups: dict[tuple[int, bool], list[bytes]] = {}
        for number in range(first, last):
            chance = chances(self._seed, number)
            which, delayed = number % 2, chance.random() < 0.1
            twin = which == 1 and chance.random() < 0.05 and number >= 2
            id = f"m{number - 2 if twin else number}"
            data = number if self._task is None else json.loads(self._task.replace("{n}", str(number)))
            # The number keeps the messages of one id apart.
            raw = dumps({"id": id, "topic": self._topics[which], "data": data, "number": number})
            self.tasks.expect(id, raw)
            groups.setdefault((which, delayed), []).append(raw)
        return [Push(self._place(which, delayed, first), raws) for (which, delayed), raws in groups.items()]

    def _place(self, which: int, delayed: bool, first: int) -> Place:
        keys = self.queues[which]
        marks = marks_of(keys)
        if not delayed:
            return Place(keys.waiting, marks)
        return Place(keys.delayed, marks, chances(self._seed, first).uniform(0.2, 2.0), keys.wake)

    def _settings(self, handler: str) -> Iterator[str]:
        yield f'[worker]\nname = "chaos"\n[topics]\nlease = {LEASE}\nmax_deliveries = {_MAX_DELIVERIES}\n'
        for topic, idempotent in zip(self._topics, ("false", "true"), strict=True):
            yield f'[topics."{topic}"]\nhandler = {json.dumps(handler)}\nidempotent = {idempotent}\n'
            yield f'concurrency = {_CONCURRENCY}\nretries = 3\nretry_backoff = "100ms"\n'


class CronMode(Mode):
    """Two jobs that fire once a second: each instant is fired once, and none is left out."""

    def __init__(self, options: Options, stem: str, folder: Path) -> None:
        waiting, application = f"{stem}:ticks", stem
        self._ran = folder / RAN
        self._file = folder / "cron.toml"
        job = options.processor or "redis_worker.chaos.handlers:note"
        push = f'push = {{ input = "{waiting}", task = ["tick"] }}'
        self._file.write_text(
            f'[worker]\nname = "{application}"\n'
            f'[cron.run]\nschedule = "* * * * * *"\noverlap = "allow"\njob = {json.dumps(job)}\n'
            f'[cron.push]\nschedule = "* * * * * *"\n{push}\n',
            encoding="utf-8",
        )
        run, pushed = CronKeys(cron_stem(application, "run")), CronKeys(cron_stem(application, "push", waiting))
        self.ledger = CronLedger(run, pushed, waiting, self._began)

    def make(self, first: int, last: int) -> list[Push]:  # noqa: ARG002 - see Mode
        """See Mode."""
        return []

    def _began(self) -> list[int]:
        return [int(line) for line in self._ran.read_text(encoding="utf-8").split()] if self._ran.exists() else []


def marks_of(keys: Keys) -> str:
    """Return the key of the names of pushed batches, in the slot of a queue."""
    return f"{tagged(keys.waiting)}:batches"


def _check_template(text: str) -> None:
    """Raise ConfigurationError if `text` is no JSON, or spans lines."""
    try:
        json.loads(text.replace("{n}", "0"))
    except ValueError as error:
        raise ConfigurationError(f"the task {text!r} is not JSON: {error}") from None
