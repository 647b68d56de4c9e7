"""Names of all Redis keys.

Keys derived from the input list K carry K's hash tag, so that they share its slot in Redis Cluster:
for `fib:input` they begin with `{fib:input}`; if K already has a tag, with K itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from redis_worker.vocabulary.message import LIST_PREFIX

TOPICS = "{mq}:topics"
"""Set: all topics ever published to or consumed."""

QUEUES = "{redis_worker}:queues"
"""Set: all input lists that pools have ever worked on."""
SUPERVISORS = "{redis_worker}:supervisors"
"""Hash: supervisor id -> its description, a JSON object; removed when it stops, or after an hour of silence."""
CRON = "{redis_worker}:cron"
"""Hash: application, slash and name of every cron job ever run -> the stem of its keys."""


ARRIVED = ":arrived"
"""Suffix that turns an in-flight list into the list of arrived tasks."""


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


@dataclass(frozen=True)  # without slots: a name is made once, and kept in the dictionary of the object
class Keys:
    """Key names of one queue: the input list, the output hash and the keys derived from them."""

    waiting: str
    """The input list K."""
    output: str = ""
    """The output hash; empty for topics, which have no results."""

    @cached_property
    def workers(self) -> str:
        """Sorted set: worker -> end of its lease, in ms of the server's clock."""
        return f"{tagged(self.waiting)}:workers"

    @cached_property
    def presence(self) -> str:
        """Hash: worker -> its description, a JSON object; only for members of `workers`."""
        return f"{tagged(self.waiting)}:presence"

    @cached_property
    def retired(self) -> str:
        """Sorted set: former worker -> time until which its in-flight list is checked.

        A command sent before a worker lost its lease may arrive later: `BLMOVE` checks no lease.
        """
        return f"{tagged(self.waiting)}:retired"

    @cached_property
    def claimants(self) -> str:
        """Sorted set: worker -> length of its lease in ms; a second copy of all names in `workers` and `retired`.

        It leads to the tasks of a worker that has lost its entry there.
        """
        return f"{tagged(self.waiting)}:claimants"

    @cached_property
    def attempts(self) -> str:
        """Hash: `d` + digest of a raw task -> workers that died holding it; `r` + digest -> its retries.

        Exists only while a task has failed, so that claims usually skip it.
        """
        return f"{tagged(self.waiting)}:attempts"

    @cached_property
    def delayed(self) -> str:
        """Sorted set: token, colon and raw task -> due time, in ms of the server's clock."""
        return f"{tagged(self.waiting)}:delayed"

    @cached_property
    def done(self) -> str:
        """Sorted set: id of a completed message -> time until which it is remembered, in ms of the server's clock."""
        return f"{tagged(self.waiting)}:done"

    @cached_property
    def begun(self) -> str:
        """Hash: id of a message being handled -> its worker, a newline and the message; others with that id wait."""
        return f"{tagged(self.waiting)}:begun"

    @cached_property
    def dropped(self) -> str:
        """Counter: dead letters dropped because the list was full."""
        return f"{tagged(self.waiting)}:dropped"

    @cached_property
    def wake(self) -> str:
        """Pub/sub channel: a task was delayed, so check the next due time."""
        return f"{tagged(self.waiting)}:wake"

    @cached_property
    def dead(self) -> str:
        """List: the dead letters."""
        return f"{tagged(self.waiting)}:dead"

    @cached_property
    def paused(self) -> str:
        """String: exists while the queue is paused; its value is ignored."""
        return f"{tagged(self.waiting)}:paused"

    @cached_property
    def types(self) -> dict[str, str]:
        """All derived keys with a fixed name, and the type of each, as the command TYPE returns it."""
        sorted_sets = dict.fromkeys((self.workers, self.retired, self.claimants, self.delayed, self.done), "zset")
        hashes = dict.fromkeys((self.presence, self.attempts, self.begun), "hash")
        return sorted_sets | hashes | {self.dead: "list", self.dropped: "string"}

    def inflight(self, worker: str) -> str:
        """Return the list of tasks that `worker` has claimed and not settled."""
        return f"{tagged(self.waiting)}:inflight:{worker}"

    def arrived(self, worker: str) -> str:
        """Return the list for the task that a blocking pop of `worker` has brought, until it is claimed."""
        return f"{self.inflight(worker)}{ARRIVED}"

    @cached_property
    def channel(self) -> str:
        """Pub/sub channel: JSON lists of ids, published when their results are written."""
        return results_channel(self.output)


def cron_stem(app: str, name: str, input: str | None = None) -> str:
    """Return the stem of a cron job's keys; for a job that pushes to `input`, it hashes to the slot of that list."""
    return f"{tagged(input) + ':cron' if input is not None else CRON}:{app}/{name}"


@dataclass(frozen=True)
class CronKeys:
    """Key names of one cron job, all in one slot. Times in them are ms of the server's clock."""

    stem: str

    @cached_property
    def fired(self) -> str:
        """Sorted set: instant -> itself; the last 1000 that were fired, skipped or queued."""
        return f"{self.stem}:fired"

    @cached_property
    def running(self) -> str:
        """Sorted set: run -> end of its lease."""
        return f"{self.stem}:running"

    @cached_property
    def runs(self) -> str:
        """Hash: run in `running` -> its trigger, instant, start and worker, separated by spaces."""
        return f"{self.stem}:runs"

    @cached_property
    def queued(self) -> str:
        """Sorted set: instant -> itself; those that wait for the current run to end."""
        return f"{self.stem}:queued"

    @cached_property
    def ended(self) -> str:
        """List: the last recorded runs and, after `lost `, those presumed dead."""
        return f"{self.stem}:ended"

    @cached_property
    def record(self) -> str:
        """Hash: the schedule, the outcome of the last run, counts; `floor`: instants up to it count as fired."""
        return f"{self.stem}:record"


def results_channel(output: str) -> str:
    """Return the channel that announces results written to the hash `output`."""
    return f"{tagged(output)}:results"
