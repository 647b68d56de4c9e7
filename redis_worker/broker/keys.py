"""Names of all Redis keys.

Keys derived from the input list K carry K's hash tag, so that they share its slot in Redis Cluster:
for `fib:input` they begin with `{fib:input}`; if K already has a tag, with K itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from redis_worker.vocabulary.message import LIST_PREFIX
from redis_worker.vocabulary.priorities import DEFAULT, Priorities
from redis_worker.vocabulary.task import Delivery

TOPICS = "{mq}:topics"
"""Set: all topics ever published to or consumed."""

QUEUES = "{redis_worker}:queues"
"""Set: all input lists that pools have ever worked on."""
SUPERVISORS = "{redis_worker}:supervisors"
"""Hash: supervisor id -> its description, a JSON object; removed when it stops, or after an hour of silence."""
PROCESSES = "{redis_worker}:processes"
"""Sorted set: process with workers -> time when it was last heard of, in ms of the server's clock."""
CRON = "{redis_worker}:cron"
"""Hash: application, slash and name of every cron job ever run -> the stem of its keys."""
EVENTS = "{redis_worker}:events"
"""Stream: the last events that were broadcast, each with `channel` and `data`."""


TASKS = ":tasks"
"""Suffix of the hash of a worker's tasks in flight."""
ARRIVED = ":arrived"
"""Suffix of the list of a worker's arrived tasks."""
BUNDLES = ":bundles"
"""Suffix of the hash of a worker's large tasks in flight."""
BUNDLE = 32
"""The most tasks in a bundle; the number of its first one is a multiple."""
LAST = "last"
"""Field of such a hash that is no task: the number of the last task claimed, and the priorities of its worker."""
SPAN = 10**13
"""A task of the priority i of its worker (`Priorities.others`) has a number from i * SPAN on; 0 is `default`."""


def tasks_among(fields: int) -> int:
    """Return the number of tasks in a hash of tasks in flight with so many `fields`."""
    return max(0, fields - 1)


def bundled(first: int, marks: bytes) -> list[int]:
    """Return the numbers of the tasks in flight in a bundle, from an entry of the hash of bundles."""
    return [first + position for position in range(BUNDLE) if int(marks) >> position & 1]


def topic_list(topic: str) -> str:
    """Return the list that messages of `topic` are published to."""
    return f"{LIST_PREFIX}{topic}"


def topic_of(key: str) -> str | None:
    """Return the topic that the list `key` belongs to, judged by its name; None for any other key."""
    return key.removeprefix(LIST_PREFIX) if key.startswith(LIST_PREFIX) else None


@lru_cache(maxsize=256)
def tagged(key: str) -> str:
    """Return `key` as a stem for derived names that hash to its slot.

    A tag is the text between the first `{` and the next `}`, if not empty (Redis Cluster specification, "Hash
    tags"). A key with braces but no tag (`a}b`, `{}a`) has no such stem: its derived keys lie in another slot,
    which matters in Redis Cluster only.
    """
    start = key.find("{")
    end = key.find("}", start + 1)
    return key if start >= 0 and end > start + 1 else f"{{{key}}}"


class _Derived:
    """A name: the object's stem, a colon and the attribute; made once, and kept in the object's dictionary."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, keys: Any, owner: type) -> str:
        name: str
        name = vars(keys)[self._name] = f"{keys.stem}:{self._name}"
        return name


@dataclass(frozen=True)  # without slots, for the derived names
class Keys:
    """Key names of one queue: the input list, the output hash and the keys derived from them."""

    waiting: str
    """The input list K."""
    output: str = ""
    """The output hash; empty for topics, which have no results."""
    priorities: Priorities | None = None
    """The priorities, for a worker that claims by them; each but `default` has a list of its own, see `list_with`."""

    workers = _Derived()
    """Sorted set: worker -> end of its lease, in ms of the server's clock; with a fraction if it rests (renew.lua)."""
    presence = _Derived()
    """Hash: worker -> its description, a JSON object; only for members of `workers`."""
    retired = _Derived()
    """Sorted set: former worker -> time until which its keys are checked for tasks.

    A command sent before a worker lost its lease may arrive later: `BLMOVE` checks no lease.
    """
    claimants = _Derived()
    """Sorted set: worker -> length of its lease in ms; a second copy of all names in `workers` and `retired`.

    It leads to the tasks of a worker that has lost its entry there.
    """
    attempts = _Derived()
    """Hash: `d` + digest of a raw task -> workers that died holding it; `r` + digest -> its retries.

    Exists only while a task has failed, so that claims usually skip it.
    """
    delayed = _Derived()
    """Sorted set: token, colon and raw task -> due time, in ms of the server's clock."""
    done = _Derived()
    """Sorted set: id of a completed message -> time until which it is remembered, in ms of the server's clock."""
    begun = _Derived()
    """Hash: id of a message being handled -> its worker, a newline and the message; others with that id wait."""
    dropped = _Derived()
    """Counter: dead letters dropped because the list was full."""
    wake = _Derived()
    """Pub/sub channel: a task was delayed, so check the next due time."""
    dead = _Derived()
    """List: the dead letters."""
    paused = _Derived()
    """String: exists while the queue is paused; its value is ignored."""

    cancelled = _Derived()
    """Sorted set: digest of a raw task in flight that is to be cancelled -> time until which that holds, in ms.

    Exists only while a worker is asked to cancel a task.
    """
    unique = _Derived()
    """Hash: `i:` + id of a unique task without an answer -> digest of its call, or nothing; `k:` + digest -> its id.

    Where calls are unique for a time, a string each, named by this key, a colon and the digest -> id.
    """

    lanes = _Derived()
    """Sorted set: lane with tasks that wait for a limit (in `delayed`) -> time of the last look at it; see gate.lua."""
    limits = _Derived()
    """The beginning of sorted sets, each named by this, a colon and a limit: the tasks that started; see gate.lua."""
    flow = _Derived()
    """Hash: id of a parked step of a flow -> its raw task. Exists only while a step waits for others.

    Two keys belong to it, whose names end in `_left` and `_edges`: see flows.lua.
    """

    progress = _Derived()
    """The beginning of strings, each named by this, a colon and the id of a task: its last report, a JSON object."""

    @cached_property
    def announced(self) -> str:
        """Sorted set: priority -> its place, from 0; those that workers or submitters have announced."""
        return f"{self.stem}:priorities"

    @cached_property
    def stem(self) -> str:
        """The beginning of the derived names."""
        return tagged(self.waiting)

    @cached_property
    def types(self) -> dict[str, str]:
        """All derived keys with a fixed name, and the type of each, as the command TYPE returns it."""
        sorted_sets = dict.fromkeys((self.workers, self.retired, self.claimants, self.delayed, self.done), "zset")
        hashes = dict.fromkeys((self.presence, self.attempts, self.begun), "hash")
        return sorted_sets | hashes | {self.dead: "list", self.dropped: "string"}

    def list_with(self, priority: str) -> str:
        """Return the list of the tasks that wait with a `priority`."""
        return self.waiting if priority == DEFAULT else f"{self.stem}:priority:{priority}"

    @cached_property
    def lists(self) -> list[str]:
        """The lists that tasks are claimed from, the first priority first."""
        return [self.waiting] if self.priorities is None else [*map(self.list_with, self.priorities.names)]

    @cached_property
    def other_lists(self) -> list[str]:
        """The lists of all priorities but `default`."""
        return [] if self.priorities is None else [*map(self.list_with, self.priorities.others)]

    def number_of(self, queue: str) -> int:
        """Return the number of the priority whose list is `queue`; 0 for `default`."""
        return 0 if queue == self.waiting else 1 + self.other_lists.index(queue)

    def priority_of(self, number: int) -> str:
        """Return the priority of a task in flight, by its number."""
        index = number // SPAN
        return DEFAULT if self.priorities is None or not index else self.priorities.others[index - 1]

    def by_list(self, deliveries: Sequence[Delivery]) -> dict[str, list[Delivery]]:
        """Return tasks in flight, by the lists that they came from."""
        if self.priorities is None:
            return {self.waiting: list(deliveries)} if deliveries else {}
        found: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            found.setdefault(self.list_with(self.priority_of(delivery.number)), []).append(delivery)
        return found

    def inflight(self, worker: str) -> str:
        """Return the hash of tasks that `worker` has claimed and not settled, by number.

        Its field `last` holds the number of the last task claimed and, after blanks, the priorities that the numbers
        of its worker stand for.
        """
        return f"{self.listed(worker)}{TASKS}"

    def bundles(self, worker: str) -> str:
        """Return the hash of bundles of tasks that `worker` has claimed and not settled.

        It has the number of the first task of each, and marks: the sum of 2^p for each position p, from 0, whose task
        is in flight.
        """
        return f"{self.listed(worker)}{BUNDLES}"

    def bundle(self, worker: str, first: int) -> str:
        """Return the list of the tasks of a bundle; those settled are empty."""
        return f"{self.bundles(worker)}:{first}"

    def large(self, worker: str) -> str:
        """Return the set of the numbers of a worker's large tasks, in the version before: each is alone in a list."""
        return f"{self.listed(worker)}:large"

    def listed(self, worker: str) -> str:
        """Return the list of tasks in flight of a `worker` of an early version, which names no numbers.

        New workers return what such a worker leaves behind; it does not see their hashes.
        """
        return f"{self.stem}:inflight:{worker}"

    def arrived(self, worker: str) -> str:
        """Return the list for the task that a blocking pop of `worker` has brought, until it is claimed."""
        return f"{self.listed(worker)}{ARRIVED}"

    @cached_property
    def channel(self) -> str:
        """Pub/sub channel of written results: a JSON list of ids, or an object of one id and its short result."""
        return results_channel(self.output)


def cron_stem(app: str, name: str, input: str | None = None) -> str:
    """Return the stem of a cron job's keys; for a job that pushes to `input`, it hashes to the slot of that list."""
    return f"{tagged(input) + ':cron' if input is not None else CRON}:{app}/{name}"


@dataclass(frozen=True)
class CronKeys:
    """Key names of one cron job, all in one slot. Times in them are ms of the server's clock."""

    stem: str
    """The beginning of all names."""

    fired = _Derived()
    """Sorted set: instant -> itself; the last 1000 that were fired, skipped or queued."""
    running = _Derived()
    """Sorted set: run -> end of its lease."""
    runs = _Derived()
    """Hash: run in `running` -> its trigger, instant, start and worker, separated by spaces."""
    queued = _Derived()
    """Sorted set: instant -> itself; those that wait for the current run to end."""
    ended = _Derived()
    """List: the last recorded runs and, after `lost `, those presumed dead."""
    asked = _Derived()
    """String: exists while somebody has asked for a run by hand, for a minute at most."""
    record = _Derived()
    """Hash: the schedule, the outcome of the last run, counts; `floor`: instants up to it count as fired."""


def results_channel(output: str) -> str:
    """Return the channel that announces results written to the hash `output`."""
    return f"{tagged(output)}:results"
