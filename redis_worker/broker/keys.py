"""Every key name is made here.

Keys derived from the input list K carry K's hash tag, so that they share its slot in Redis Cluster:
for `fib:input` they begin with `{fib:input}`; where K has a tag of its own, with K itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from redis_worker.vocabulary.message import LIST_PREFIX

TOPICS = "{mq}:topics"
"""Set: the topics that have ever been published to or consumed."""

QUEUES = "{redis_worker}:queues"
"""Set: the input lists that pools have ever worked on."""
SUPERVISORS = "{redis_worker}:supervisors"
"""Hash: id of a supervisor -> what it says of itself, a JSON object; until it stops, or has been silent for an hour."""
CRON = "{redis_worker}:cron"
"""Hash: application, slash and name of every cron job that was ever run -> the stem of its keys."""


ARRIVED = ":arrived"
"""What the name of a list of arrived tasks has after that of the in-flight list."""


def topic_list(topic: str) -> str:
    """The list that the messages of `topic` are published to."""
    return f"{LIST_PREFIX}{topic}"


def topic_of(key: str) -> str | None:
    """The topic whose list `key` is, by its name; None for any other key."""
    return key.removeprefix(LIST_PREFIX) if key.startswith(LIST_PREFIX) else None


@lru_cache(maxsize=256)
def tagged(key: str) -> str:
    """`key` as the stem of derived names that hash to its slot.

    A tag is what stands between the first `{` and the next `}`, when that is not empty (Redis Cluster
    specification, "Hash tags"). A key that has braces and no tag (`a}b`, `{}a`) has no such stem:
    its derived keys lie in another slot, which matters in Redis Cluster only.
    """
    start = key.find("{")
    end = key.find("}", start + 1)
    return key if start >= 0 and end > start + 1 else f"{{{key}}}"


@dataclass(frozen=True)  # without slots: a name is made once, and kept in the dictionary of the object
class Keys:
    """The keys of one queue: the input list, the output hash and what is derived from them."""

    waiting: str
    """The input list K itself."""
    output: str = ""
    """The output hash; empty where there are no results, as with topics."""

    @cached_property
    def workers(self) -> str:
        """Sorted set: worker -> when its lease ends, in milliseconds of the server's clock."""
        return f"{tagged(self.waiting)}:workers"

    @cached_property
    def presence(self) -> str:
        """Hash: worker -> what it says of itself, a JSON object; as long as it is among `workers`."""
        return f"{tagged(self.waiting)}:presence"

    @cached_property
    def retired(self) -> str:
        """Sorted set: former worker -> until when its in-flight list is still looked at.

        A command sent before a worker lost its lease may arrive after: `BLMOVE` asks for no lease.
        """
        return f"{tagged(self.waiting)}:retired"

    @cached_property
    def claimants(self) -> str:
        """Sorted set: worker -> how long its lease is, in ms; all of `workers` and `retired`, a second time.

        By it the tasks of a worker are found whose entry there has vanished.
        """
        return f"{tagged(self.waiting)}:claimants"

    @cached_property
    def attempts(self) -> str:
        """Hash: `d` and the digest of a raw task -> workers that died holding it; `r` … -> its retries.

        Absent in good times, so that claims need not look into it.
        """
        return f"{tagged(self.waiting)}:attempts"

    @cached_property
    def delayed(self) -> str:
        """Sorted set: a token, a colon and the raw task -> when it is due, in ms of the server's clock."""
        return f"{tagged(self.waiting)}:delayed"

    @cached_property
    def done(self) -> str:
        """Sorted set: id of a completed message -> until when that is remembered, in ms of the server's clock."""
        return f"{tagged(self.waiting)}:done"

    @cached_property
    def begun(self) -> str:
        """Hash: id of a message that was begun -> its worker, a newline and the message: others with its id wait."""
        return f"{tagged(self.waiting)}:begun"

    @cached_property
    def dropped(self) -> str:
        """Counter: dead letters dropped because there were too many."""
        return f"{tagged(self.waiting)}:dropped"

    @cached_property
    def wake(self) -> str:
        """Pub/sub channel: something has been put off, so look when it is due."""
        return f"{tagged(self.waiting)}:wake"

    @cached_property
    def dead(self) -> str:
        """List: the dead letters."""
        return f"{tagged(self.waiting)}:dead"

    @cached_property
    def paused(self) -> str:
        """String: there while the queue is paused, whatever it holds."""
        return f"{tagged(self.waiting)}:paused"

    @cached_property
    def types(self) -> dict[str, str]:
        """All derived keys that have a name of their own, and what each of them holds, as the command TYPE names it."""
        sorted_sets = dict.fromkeys((self.workers, self.retired, self.claimants, self.delayed, self.done), "zset")
        hashes = dict.fromkeys((self.presence, self.attempts, self.begun), "hash")
        return sorted_sets | hashes | {self.dead: "list", self.dropped: "string"}

    def inflight(self, worker: str) -> str:
        """List: the tasks that `worker` has claimed and not settled."""
        return f"{tagged(self.waiting)}:inflight:{worker}"

    def arrived(self, worker: str) -> str:
        """List: the task that a blocking pop of `worker` has brought and that is not yet claimed."""
        return f"{self.inflight(worker)}{ARRIVED}"

    @cached_property
    def channel(self) -> str:
        """Pub/sub channel: a JSON list of the ids whose results have just been written."""
        return results_channel(self.output)


def cron_stem(app: str, name: str, input: str | None = None) -> str:
    """The stem of the keys of a cron job; of one that pushes to `input`, it hashes to the slot of that list."""
    return f"{tagged(input) + ':cron' if input is not None else CRON}:{app}/{name}"


@dataclass(frozen=True)
class CronKeys:
    """The keys of one cron job, which lie in one slot. Times in them are ms of the server's clock."""

    stem: str

    @cached_property
    def fired(self) -> str:
        """Sorted set: instant -> itself; those that have been fired, skipped or queued, the last 1000 of them."""
        return f"{self.stem}:fired"

    @cached_property
    def running(self) -> str:
        """Sorted set: run -> when its lease ends."""
        return f"{self.stem}:running"

    @cached_property
    def runs(self) -> str:
        """Hash: run -> how it came about, instant, start and worker, with spaces between; of those in `running`."""
        return f"{self.stem}:runs"

    @cached_property
    def queued(self) -> str:
        """Sorted set: instant -> itself; those that wait until nothing runs."""
        return f"{self.stem}:queued"

    @cached_property
    def ended(self) -> str:
        """List: the last runs that were recorded, and, after `lost `, those that were presumed dead."""
        return f"{self.stem}:ended"

    @cached_property
    def record(self) -> str:
        """Hash: the schedule, what became of the last run, counts; `floor`: all up to there counts as fired."""
        return f"{self.stem}:record"


def results_channel(output: str) -> str:
    """The channel on which results written to the hash `output` are announced."""
    return f"{tagged(output)}:results"
