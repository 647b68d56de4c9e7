"""Two versions side by side on the same keys: python -m tests.two_versions [--commit C] [--seconds S] [--seed N].

Workers of an earlier commit and of these sources share a queue and a topic, and are killed, frozen and stopped. Exit 1
with what was lost or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from redis_worker.broker.keys import Keys
from redis_worker.embedded import EmbeddedServer
from tests.support import ROOT, CommandProcess, Queue, Topic, held_in, wait_until

EARLIER = "HEAD~1"
_QUEUE = Keys("mixed:in", "mixed:out")
_TOPIC = "mixed.topic"
_WORKERS = 4
# Written for both versions, and using only what both have.
_TASKS = """
import asyncio, random
from redis_worker import TopicWorker, processor

worker = TopicWorker("{url}", concurrency=20, lease=2, max_deliveries=1000)

async def work(what, failing):
    await asyncio.sleep(random.uniform(0.0, 0.03))
    if random.random() < failing:
        raise ValueError("bad luck")

@processor
async def task(arguments):
    await work(arguments, 0.002)  # while any retry is counted, tasks are claimed in another way
    return arguments

@worker.handler("{topic}", retries=20, retry_backoff=0.05, retry_backoff_max=0.1, idempotent=True)
async def handle(message):
    await work(message, 0.2)
"""


class NoHistory(Exception):
    """The commit is not in this clone, or this is none."""


@contextmanager
def sources_of(commit: str) -> Iterator[Path]:
    """Yield a folder with the package as of `commit`. Raises NoHistory."""
    try:
        archive = subprocess.run(
            ["git", "archive", "--format=tar", commit, "redis_worker"], cwd=ROOT, capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"").decode().strip() or str(error)
        raise NoHistory(f"git does not give the commit {commit}: {reason}") from None
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


class Mixed:
    """A server, workers of both versions, and the ledger of what was pushed."""

    def __init__(self, server: EmbeddedServer, earlier: Path, tasks: Path, seed: int) -> None:
        self._server = server
        self._sources = {"earlier": earlier, "today": ROOT}
        self._tasks = tasks
        self._random = random.Random(seed)
        self._workers: list[tuple[str, str, CommandProcess]] = []
        self.queue_ids: set[str] = set()
        self.topic_ids: set[str] = set()
        self.events: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Raises AssertionError where a task is lost, is in two places, or is never answered."""
        redis: Any = Redis.from_url(self._server.url)
        try:
            queue, topic = Queue(redis, _QUEUE), Topic(redis, _TOPIC)
            for version in ("earlier", "today"):
                for kind in ("pool", "topic"):
                    self._start(version, kind)
            for *_, worker in self._workers:
                await _started(worker)
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                await self._push(queue, topic)
                await self._disturb()
                await self._check(queue, topic)
            for kind in ("pool", "topic"):  # a deployment ends with the new version, which finds what is left
                self._start("today", kind)
            await wait_until(lambda: self._is_done(queue, topic), "all to be answered", seconds=180)
            await self._check(queue, topic)
            for *_, worker in self._workers:
                await _started(worker)
                worker.signal(signal.SIGTERM)
            for *_, worker in self._workers:
                assert await worker.ended() == 0, worker.log
            left = [key for key in await redis.keys("*:inflight:*") if await held_in(redis, key)]
            assert not left, left
        finally:
            for *_, worker in self._workers:
                worker.close()
            await redis.aclose()

    def _start(self, version: str, kind: str) -> None:
        source = self._sources[version]
        path = os.pathsep.join(map(str, (source, self._tasks)))
        if kind == "pool":
            arguments = (
                *("run", "--input", _QUEUE.waiting, "--output", _QUEUE.output, "--processor", "mixed_tasks:task"),
                *("--lease", "2", "--max-deliveries", "1000", "-c", "8", "--retries", "20", "--retry-backoff", "0.05"),
                *("--retry-backoff-max", "0.1", "--url", self._server.url, "--log-level", "info"),
            )
        else:
            arguments = ("serve", "mixed_tasks:worker")
        # The working directory is searched first: it is the folder whose version is meant.
        worker = CommandProcess(*arguments, env={"PYTHONPATH": path}, cwd=source)
        self._workers.append((version, kind, worker))

    async def _push(self, queue: Queue, topic: Topic) -> None:
        ids = [f"q{len(self.queue_ids) + number}" for number in range(60)]
        padding = "x" * self._random.choice((10, 20_000))  # the latter are large ones
        await queue.push(*({"id": id, "task": [id], "padding": padding} for id in ids))
        self.queue_ids |= set(ids)
        ids = [f"t{len(self.topic_ids) + number}" for number in range(30)]
        await topic.redis.sadd("{mq}:topics", _TOPIC)
        await topic.push(*({"id": id, "topic": _TOPIC, "data": id} for id in ids))
        self.topic_ids |= set(ids)

    async def _disturb(self) -> None:
        await asyncio.sleep(self._random.uniform(0.2, 0.8))
        at = self._random.randrange(len(self._workers))
        version, kind, worker = self._workers[at]
        what = self._random.choice(("kill", "kill", "stop", "freeze", "nothing"))
        self.events[f"{what} {version}"] += 1
        if what == "freeze":
            worker.freeze()
            await asyncio.sleep(2.5)  # past its lease
            worker.signal(signal.SIGCONT)
        elif what != "nothing":
            if what == "stop":
                await _started(worker)
                worker.signal(signal.SIGTERM)
                assert await worker.ended() == 0, worker.log
            worker.close()
            del self._workers[at]
            self._start(self._random.choice(("earlier", "today")), kind)

    async def _check(self, queue: Queue, topic: Topic) -> None:
        places = await queue.ledger()
        wrong = {id: places[id] for id in self.queue_ids if places[id] != 1}
        assert not wrong, f"tasks in as many places: {wrong} (seed and {dict(self.events)})"
        done = {id.decode() for id in await topic.redis.zrange(topic.keys.done, 0, -1)}
        places = await topic.ledger()
        lost = {id for id in self.topic_ids - done if not places[id]}
        # Between the two reads it may have been done.
        lost -= {id.decode() for id in await topic.redis.zrange(topic.keys.done, 0, -1)}
        assert not lost, f"messages are lost: {lost}"

    async def _is_done(self, queue: Queue, topic: Topic) -> bool:
        results = await queue.redis.hlen(_QUEUE.output)
        done = await topic.redis.zcard(topic.keys.done) + await topic.redis.llen(topic.keys.dead)
        return bool(results >= len(self.queue_ids) and done >= len(self.topic_ids))


async def _started(worker: CommandProcess) -> None:
    await wait_until(lambda: "mixed" in worker.log or not worker.alive, "a worker to start")
    assert worker.alive, f"a worker ended with {worker.process.returncode}: {worker.log}"


async def mixed(seconds: float, seed: int, commit: str = EARLIER) -> Mixed:
    """Run both versions. Raises NoHistory, and AssertionError for what is lost or doubled."""
    with (
        sources_of(commit) as earlier,
        tempfile.TemporaryDirectory() as tasks,
        EmbeddedServer(persistent=True) as server,
    ):
        (Path(tasks) / "mixed_tasks.py").write_text(_TASKS.format(url=server.url, topic=_TOPIC))
        run = Mixed(server, earlier, Path(tasks), seed)
        await run.run(seconds)
        return run


def version_at(folder: Path) -> str:
    """Return where the package comes from in a process that starts in `folder`."""
    code = "import redis_worker; print(redis_worker.__file__)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return ended.stdout.strip()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.two_versions")
    parser.add_argument("--commit", default=EARLIER, help=f"the earlier version; default: {EARLIER}")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="default: a random one")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    try:
        run = asyncio.run(mixed(options.seconds, options.seed, options.commit))
    except (AssertionError, NoHistory) as error:
        print(f"failed: {error}", flush=True)
        return 1
    happened = ", ".join(f"{count} x {what}" for what, count in sorted(run.events.items()))
    print(
        f"{len(run.queue_ids):,} tasks and {len(run.topic_ids):,} messages beside {options.commit}, each in one place "
        f"at every look, and answered or done in the end; {happened}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
