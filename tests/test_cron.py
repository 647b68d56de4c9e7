"""Cron jobs on a real server: each instant once in the whole fleet, and what becomes of the runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster

from redis_worker import ConfigurationError, Disconnected, Refused
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.cron import CronStore
from redis_worker.broker.keys import CRON, CronKeys, cron_stem
from redis_worker.broker.operator.cron_status import JobStatus, read_jobs
from redis_worker.cron.job import CronJob
from redis_worker.cron.schedule import Schedule
from redis_worker.cron.settings import JobSettings, Overlap, Push
from redis_worker.embedded import HOST, EmbeddedServer
from tests import cron_jobs
from tests.support import PATIENCE, ROOT, assert_each_second_once, wait_until
from tests.test_servers import Cluster, cluster_nodes

EVERY_SECOND = "* * * * * *"
NEVER_YET = "0 0 1 1 *"
"""A schedule for jobs that are run by hand."""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    cron_jobs.calls.clear()
    cron_jobs.gate.clear()
    yield
    cron_jobs.gate.set()


class Process:
    """A process of its own that looks after one job."""

    def __init__(self, url: str, settings: JobSettings, speed: float) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "tests.cron_jobs"),
                *(url, json.dumps(asdict(settings)), str(speed)),
            ],
            cwd=ROOT,
            stderr=self._log,
        )

    async def end(self) -> str:
        """Stop it, and return what it has logged."""
        self.process.send_signal(signal.SIGTERM)
        await wait_until(lambda: self.process.poll() is not None, "the process to end")
        self._log.seek(0)
        log = self._log.read().decode()
        assert self.process.returncode == 0, log
        return log

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


class Jobs:
    """One job of a test's own, in as many processes, or as good as processes, as it likes."""

    def __init__(self, url: str, app: str) -> None:
        self.url = url
        self.app = app
        self.connection = Connection(address_of(url).open(), owned=True)
        self.processes: list[Process] = []
        self.stores: list[CronStore] = []
        self.running: list[tuple[CronJob, asyncio.Task[None]]] = []

    def settings(self, function: str = "remember", schedule: str = EVERY_SECOND, **options: Any) -> JobSettings:
        if "push" not in options:
            options["job"] = f"tests.cron_jobs:{function}"
        return JobSettings("job", self.app, schedule, **options)

    def make(self, settings: JobSettings, lease: float = PATIENCE, **options: Any) -> CronJob:
        """With a store of its own, as in a process of its own. No lease ends by chance, however slow the machine."""
        self.stores.append(CronStore(self.url, lease=lease))
        return CronJob(settings, self.stores[-1], **options)

    def run(self, settings: JobSettings, **options: Any) -> CronJob:
        job = self.make(settings, **options)
        self.running.append((job, asyncio.create_task(job.run())))
        return job

    def process(self, settings: JobSettings, speed: float = 1.0) -> Process:
        self.processes.append(Process(self.url, settings, speed))
        return self.processes[-1]

    async def stop(self) -> None:
        for job, _ in self.running:
            job.stop()
        await self.ended()

    async def ended(self) -> None:
        for _, task in self.running:
            await task
        self.running.clear()

    async def status(self) -> JobStatus:
        return await self.until(lambda _: True, "the status")

    async def until(self, condition: Callable[[JobStatus], Any], what: str) -> JobStatus:
        """The status, once it is as it should be."""

        async def look() -> JobStatus | None:
            try:
                known = [job for job in await read_jobs(self.connection) if job.app == self.app]
            except Disconnected:
                return None  # a server that was restarted
            return known[0] if known and condition(known[0]) else None

        return await wait_until(look, what)

    async def close(self) -> None:
        for process in self.processes:
            process.close()
        for job, task in self.running:
            job.cancel()
            with contextlib.suppress(Exception):
                await task
        for store in self.stores:
            await store.close()
        await self.connection.close()


@pytest.fixture
async def jobs(redis: Redis, server: EmbeddedServer) -> AsyncIterator[Jobs]:
    """At the end nothing may run, and there are no keys but those that are to be kept."""
    jobs = Jobs(server.url, f"test-{secrets.token_hex(4)}")
    yield jobs
    await jobs.close()
    left = {key.decode() async for key in redis.scan_iter(f"*{jobs.app}*", count=1000)}
    keys = CronKeys(cron_stem(jobs.app, "job", "{tasks}:in" if any("{tasks}" in key for key in left) else None))
    assert left <= {keys.fired, keys.record, keys.ended}, f"left behind: {left}"
    await redis.delete(CRON, "{tasks}:in", *left)


@pytest.fixture
async def own_jobs(own_server: EmbeddedServer) -> AsyncIterator[Jobs]:
    """On a server that the test may kill."""
    jobs = Jobs(own_server.url, "app")
    yield jobs
    await jobs.close()


def noting(jobs: Jobs, seconds: float = 0.0) -> dict[str, Any]:
    """Arguments of `note`."""
    return {"url": jobs.url, "key": notes_key(jobs), "seconds": seconds}


def notes_key(jobs: Jobs) -> str:
    return f"notes-of-{jobs.app[5:]}"


async def notes(redis: Redis, jobs: Jobs, what: str = "begin") -> list[float]:
    """The instants that processes have noted."""
    found = map(json.loads, await redis.lrange(notes_key(jobs), 0, -1))
    return [instant for instant, said, _ in found if said == what]


async def fired(redis: Redis, jobs: Jobs, input: str | None = None) -> list[float]:
    return [int(raw) / 1000 for raw in await redis.zrange(CronKeys(cron_stem(jobs.app, "job", input)).fired, 0, -1)]


# Each instant once


async def test_processes_fire_each_second_once_and_record_it(redis: Redis, jobs: Jobs) -> None:
    settings = jobs.settings("note", overlap="queue", arguments=noting(jobs))  # late ones are not skipped either
    processes = [jobs.process(settings) for _ in range(3)]

    async def enough() -> bool:
        return len(await notes(redis, jobs)) >= 5

    await wait_until(enough, "five instants")
    logs = [await process.end() for process in processes]
    instants = await notes(redis, jobs)
    assert_each_second_once(instants)
    assert sorted(await notes(redis, jobs, "end")) == sorted(instants)
    status = await jobs.status()
    assert status.counts == {"success": len(instants)}
    assert status.instant == max(instants)
    assert "".join(logs).count("success in") == len(instants)
    await redis.delete(notes_key(jobs))


@pytest.mark.parametrize("speed", [1.3, 0.8])
async def test_a_process_whose_clock_is_wrong_goes_by_the_servers(redis: Redis, jobs: Jobs, speed: float) -> None:
    """It is a day off, and goes fast or slow."""
    process = jobs.process(jobs.settings("note", overlap="queue", arguments=noting(jobs)), speed)

    async def enough() -> bool:
        return len(await notes(redis, jobs)) >= 5

    await wait_until(enough, "five instants")
    await process.end()
    status = await jobs.status()
    instants = await notes(redis, jobs)
    assert_each_second_once(instants)
    assert instants == sorted(instants)
    assert status.started is not None
    assert status.started >= status.instant
    assert 0 <= (await redis.time())[0] - instants[-1] < 60
    await redis.delete(notes_key(jobs))


async def test_a_push_is_one_step_with_its_claim(redis: Redis, jobs: Jobs) -> None:
    """Three processes, and one task for each instant; nothing of the sort of a run that could be lost."""
    settings = jobs.settings(push=Push("{tasks}:in", {"kind": "report"}))
    processes = [jobs.process(settings) for _ in range(3)]

    async def enough() -> bool:
        return await redis.llen("{tasks}:in") >= 6

    await wait_until(enough, "six tasks")
    await asyncio.gather(*(process.end() for process in processes))
    tasks = [json.loads(raw) for raw in await redis.lrange("{tasks}:in", 0, -1)]
    instants = await fired(redis, jobs, "{tasks}:in")
    assert_each_second_once(instants)
    assert instants == sorted(instants)
    assert len(tasks) == len(instants) == len({task["id"] for task in tasks})
    assert all(task["task"] == {"kind": "report"} for task in tasks)
    assert all(abs(task["emit_ts"] - instants[0]) < 60 for task in tasks)
    assert (await jobs.status()).counts == {"success": len(tasks)}


async def test_a_push_in_a_cluster(server: EmbeddedServer) -> None:
    with cluster_nodes(server.binary, 3) as nodes:
        cluster = Cluster(nodes)
        jobs = Jobs(cluster.url, "app")
        inputs = ["one:in", "two:in"]
        assert cluster.node_of(inputs[0]) is not cluster.node_of(inputs[1])
        for input in inputs:
            settings = JobSettings(f"to-{input}", "app", EVERY_SECOND, push=Push(input, 1))
            jobs.run(settings)
        jobs.run(JobSettings("function", "app", EVERY_SECOND, job="tests.cron_jobs:remember"))
        with pytest.raises(ConfigurationError, match="its braces are not a hash tag"):
            jobs.make(JobSettings("bad", "app", EVERY_SECOND, push=Push("a}b", 1)))

        async def all_fire() -> bool:
            found = await read_jobs(jobs.connection)
            return len(found) == 3 and all(job.counts.get("success", 0) >= 2 for job in found)

        await wait_until(all_fire, "jobs on all nodes")
        await jobs.stop()
        async with RedisCluster(HOST, cluster.nodes[0].port) as client:
            for job in await read_jobs(jobs.connection):
                if job.name != "function":
                    assert await client.llen(job.name.removeprefix("to-")) == job.counts["success"]
        await jobs.close()


@pytest.mark.parametrize(("processes", "overlap"), [(1, "queue"), (2, "allow"), (2, "skip")])
async def test_a_redis_that_restarts(
    own_server: EmbeddedServer, own_jobs: Jobs, processes: int, overlap: Overlap
) -> None:
    jobs = own_jobs
    lines = [jobs.run(jobs.settings(overlap=overlap)) for _ in range(processes)]
    await wait_until(lambda: len(cron_jobs.calls) >= 2, "two instants")
    os.kill(own_server.pid, signal.SIGKILL)
    await wait_until(lambda: all(job.condition == "Redis is away" for job in lines), "the loss to be noticed")
    away = time.monotonic()
    await wait_until(lambda: time.monotonic() > away + 2.5, "two instants to pass")
    await asyncio.to_thread(own_server.restart)
    await wait_until(lambda: all(job.condition == "running" for job in lines), "Redis to be found again")
    count = len(cron_jobs.calls)
    await wait_until(lambda: len(cron_jobs.calls) >= count + 3, "more instants")
    await jobs.stop()
    instants = [at.timestamp() for at in cron_jobs.calls]
    counts = (await jobs.status()).counts
    if overlap == "skip":
        # What is late comes all at once, and then some of it meets the run before, or one whose end is not written yet.
        assert len(set(instants)) == len(instants)
        assert len(instants) + counts.pop("skipped", 0) == max(instants) - min(instants) + 1
    else:
        assert_each_second_once(instants)
    assert counts == {"success": len(instants)}


async def test_the_jobs_of_a_process_share_an_outage_and_log_it_once(
    own_server: EmbeddedServer, own_jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = own_jobs
    first = jobs.run(jobs.settings())
    lines = [first]
    for name in ("second", "third"):
        lines.append(CronJob(replace(jobs.settings(), name=name), jobs.stores[-1]))
        jobs.running.append((lines[-1], asyncio.create_task(lines[-1].run())))
    await wait_until(lambda: all(job.condition == "running" for job in lines), "the jobs to run")
    os.kill(own_server.pid, signal.SIGKILL)
    away = time.monotonic()
    await wait_until(lambda: first.condition == "Redis is away", "the loss to be noticed")
    await wait_until(lambda: time.monotonic() > away + 3, "each job to try in vain")
    await asyncio.to_thread(own_server.restart)
    await wait_until(lambda: first.condition == "running", "Redis to be found again")
    await jobs.stop()
    messages = [record.getMessage() for record in caplog.records]
    assert [sum(text in message for message in messages) for text in ("Redis is away", "Redis is back")] == [1, 1]


async def test_what_ends_while_redis_is_away_is_recorded_when_it_is_back(
    own_server: EmbeddedServer, own_jobs: Jobs
) -> None:
    jobs = own_jobs
    job = jobs.make(jobs.settings("slow", NEVER_YET), lease=30)
    running = asyncio.create_task(job.run_once())
    await jobs.until(lambda status: status.running == 1, "the run")
    os.kill(own_server.pid, signal.SIGKILL)
    cron_jobs.gate.set()
    await wait_until(lambda: job.condition == "Redis is away", "the end to be written in vain")
    await asyncio.to_thread(own_server.restart)
    assert (await running).outcome == "success"
    status = await jobs.status()
    assert (status.outcome, status.counts, status.running) == ("success by hand", {"success": 1}, 0)


async def test_waiting_for_a_redis_that_is_not_there(own_server: EmbeddedServer, own_jobs: Jobs) -> None:
    os.kill(own_server.pid, signal.SIGKILL)
    jobs = own_jobs
    job = jobs.run(jobs.settings())
    await wait_until(lambda: job.condition == "waiting for Redis", "it to wait")
    with pytest.raises(Disconnected):
        await jobs.make(jobs.settings()).run_once()
    await asyncio.to_thread(own_server.restart)
    await wait_until(lambda: cron_jobs.calls, "an instant")
    os.kill(own_server.pid, signal.SIGKILL)
    job.cancel()  # it may be about to record its last run
    assert job.condition == "stopping"
    await jobs.ended()


async def test_a_refusal_ends_the_job(redis: Redis, jobs: Jobs) -> None:
    await redis.set("{tasks}:in", "no list")
    job = jobs.make(jobs.settings(push=Push("{tasks}:in", 1)))
    with pytest.raises(Refused, match="another type"):
        await job.run()
    with pytest.raises(ConfigurationError, match="runs once"):
        await job.run()


@pytest.mark.parametrize("name", ["fired", "running", "runs", "queued", "record", "ended"])
async def test_a_damaged_key_is_waited_for(
    redis: Redis, jobs: Jobs, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It ended the job for good, and some scripts half-way."""
    key = getattr(CronKeys(cron_stem(jobs.app, "job")), name)
    job = jobs.run(jobs.settings())
    await wait_until(lambda: cron_jobs.calls, "the first run")
    await redis.delete(key)
    await redis.set(key, "damage")
    await wait_until(lambda: f"the key '{key}' holds a string" in caplog.text, "a log line")
    assert await redis.get(key) == b"damage"
    await redis.delete(key)
    before = len(cron_jobs.calls)
    await wait_until(lambda: len(cron_jobs.calls) > before + 1, "the next runs")
    assert caplog.text.count(f"the key '{key}' holds a string") == 1
    assert job.condition == "running"


# Overlap, in the whole fleet


def begun() -> int:
    return sum(call[0] == "begin" for call in cron_jobs.calls)


async def test_skip_runs_one_at_a_time(redis: Redis, jobs: Jobs) -> None:
    for _ in range(3):
        jobs.run(jobs.settings("slow"))
    await jobs.until(lambda status: status.counts.get("skipped", 0) >= 3, "three instants to be skipped")
    assert begun() == 1
    status = await jobs.status()
    assert (status.running, status.queued) == (1, 0)
    assert status.since is not None
    cron_jobs.gate.set()
    await wait_until(lambda: begun() >= 2, "the next one to run")
    await jobs.stop()
    status = await jobs.status()
    assert status.counts["success"] == begun()
    assert sum(status.counts.values()) == len(await fired(redis, jobs))


async def test_queue_runs_all_one_after_the_other(redis: Redis, jobs: Jobs) -> None:
    for _ in range(3):
        jobs.run(jobs.settings("slow", overlap="queue"))
    await jobs.until(lambda status: status.queued >= 3, "three instants to be queued")
    assert begun() == 1
    cron_jobs.gate.set()
    await wait_until(lambda: begun() >= 5, "all to run")
    await jobs.until(lambda status: status.queued == 0, "the queue to be empty")
    await jobs.stop()
    instants = [at.timestamp() for what, at in cron_jobs.calls if what == "begin"]
    assert_each_second_once(instants)
    assert instants == await fired(redis, jobs)
    assert [what for what, _ in cron_jobs.calls] == ["begin", "end"] * len(instants)


async def test_allow_runs_several_at_once(redis: Redis, jobs: Jobs) -> None:
    for _ in range(2):
        jobs.run(jobs.settings("slow", overlap="allow"))
    await jobs.until(lambda status: status.running >= 3, "three runs at once")
    cron_jobs.gate.set()
    await jobs.stop()
    status = await jobs.status()
    assert status.counts == {"success": begun()}


async def test_what_is_queued_is_not_lost_with_its_process(redis: Redis, jobs: Jobs) -> None:
    settings = jobs.settings("note", overlap="queue", arguments=noting(jobs, 60.0))
    process = jobs.process(settings)
    await jobs.until(lambda status: status.running == 1 and status.queued >= 2, "a run, and instants behind it")
    process.close()
    jobs.run(jobs.settings("remember", overlap="queue"))
    await wait_until(lambda: len(cron_jobs.calls) >= 3, "them to be taken")
    await jobs.until(lambda status: status.queued == 0, "the queue to be empty")
    await jobs.stop()
    [first] = await notes(redis, jobs)
    instants = [first, *(at.timestamp() for at in cron_jobs.calls)]
    assert_each_second_once(instants)
    assert instants == sorted(instants)
    assert (await jobs.status()).counts == {"success": len(instants) - 1, "lost": 1}
    await redis.delete(notes_key(jobs))


async def test_a_run_that_is_killed_is_lost(redis: Redis, jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    process = jobs.process(jobs.settings("note", arguments=noting(jobs, 60.0)))

    async def at_work() -> bool:
        return bool(await notes(redis, jobs))

    await wait_until(at_work, "a run")
    process.close()
    jobs.run(jobs.settings("remember", NEVER_YET))
    status = await jobs.until(lambda status: status.counts.get("lost"), "the loss to be noticed")
    assert (status.outcome, status.running) == ("lost", 0)
    assert status.error == "its process is gone, or was cut off from Redis"
    assert status.worker is not None
    assert status.worker.endswith(f"-{process.process.pid}")
    assert status.instant == (await notes(redis, jobs))[0]
    await wait_until(lambda: "is lost: its process is gone" in caplog.text, "it to be said")
    await jobs.stop()
    await redis.delete(notes_key(jobs))


async def test_a_run_that_was_only_presumed_lost(redis: Redis, jobs: Jobs) -> None:
    process = jobs.process(jobs.settings("note", arguments=noting(jobs, 3.0)))

    async def at_work() -> bool:
        return bool(await notes(redis, jobs))

    await wait_until(at_work, "a run")
    process.process.send_signal(signal.SIGSTOP)
    jobs.run(jobs.settings("remember", NEVER_YET))
    await jobs.until(lambda status: status.counts.get("lost"), "it to be presumed lost")
    await jobs.stop()
    process.process.send_signal(signal.SIGCONT)
    status = await jobs.until(lambda status: status.counts.get("success"), "its end")
    assert "lost" not in status.counts
    assert "a run of this process was presumed lost" in await process.end()
    await redis.delete(notes_key(jobs))


# What was missed


async def been_down(redis: Redis, jobs: Jobs, seconds: int, schedule: str = "* * * * *", input: str = "") -> float:
    """As if the whole fleet had not been there for so long. Returns since when, in s since the epoch."""
    keys = CronKeys(cron_stem(jobs.app, "job", input or None))
    since = (await redis.time())[0] - seconds
    said = {"floor": since * 1000, "schedule": schedule, "timezone": "UTC", "app": jobs.app, "name": "job"}
    await redis.hset(keys.record, mapping=said)
    return float(since)


def expected(since: float, until: float) -> list[float]:
    schedule = Schedule("* * * * *")
    return [at.timestamp() for at in schedule.between(int(since * 1000), int(until * 1000))]


async def test_what_was_missed_is_dropped(redis: Redis, jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    since = await been_down(redis, jobs, 600)
    for _ in range(3):
        jobs.run(jobs.settings(schedule="* * * * *"))
    await wait_until(lambda: cron_jobs.calls, "the late one")
    await jobs.stop()
    first = cron_jobs.calls[0].timestamp()
    assert first > since + 500
    status = await jobs.status()
    assert status.counts["missed"] == len(expected(since, first)) - 1
    assert status.counts["success"] == len(cron_jobs.calls) <= 2
    [line] = [record.getMessage() for record in caplog.records if "missed" in record.getMessage()]
    assert f"missed {status.counts['missed']} instants from " in line
    assert "dropped" in line


async def test_the_last_of_what_was_missed_is_made_up_for(redis: Redis, jobs: Jobs) -> None:
    since = await been_down(redis, jobs, 600)
    for _ in range(3):
        jobs.run(jobs.settings(schedule="* * * * *", catchup="last", overlap="queue"))
    await wait_until(lambda: len(cron_jobs.calls) >= 2, "the missed one and the late one")
    await jobs.stop()
    instants = [at.timestamp() for at in cron_jobs.calls]
    assert instants == [instants[0] + 60 * n for n in range(len(instants))]
    assert since + 450 < instants[0] < (await redis.time())[0] - 59
    assert (await jobs.status()).counts["missed"] == len(expected(since, instants[0])) - 1


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
async def test_all_that_was_missed_is_made_up_for(redis: Redis, jobs: Jobs, overlap: Any) -> None:
    since = await been_down(redis, jobs, 3600)
    for _ in range(3):
        jobs.run(jobs.settings(schedule="* * * * *", catchup="all", overlap=overlap))
    await wait_until(lambda: len(cron_jobs.calls) >= 59, "all of them")
    await jobs.until(lambda status: not status.queued and not status.running, "the end of it")
    await jobs.stop()
    instants = sorted(at.timestamp() for at in cron_jobs.calls)
    counts = (await jobs.status()).counts
    # The one that comes late comes in the midst of the others: where runs may not overlap, it may be skipped.
    assert counts["success"] + counts.get("skipped", 0) == len(await fired(redis, jobs))
    assert instants[:59] == expected(since, instants[58])
    assert "missed" not in counts


async def test_only_what_lies_within_the_window_is_made_up_for(redis: Redis, jobs: Jobs) -> None:
    since = await been_down(redis, jobs, 3600)
    jobs.run(jobs.settings(schedule="* * * * *", catchup="all", catchup_window=600))
    # The instant of the present minute may wait behind those that were missed, and a stop leaves it there for others.
    await jobs.until(lambda status: len(cron_jobs.calls) >= 9 and not status.queued, "the last nine of them")
    await jobs.stop()
    instants = sorted(at.timestamp() for at in cron_jobs.calls)
    assert since + 2990 < instants[0] < (await redis.time())[0] - 530
    assert (await jobs.status()).counts["missed"] == len(expected(since, instants[0])) - 1


async def test_pushes_that_were_missed_are_made_up_for_at_once(redis: Redis, jobs: Jobs) -> None:
    since = await been_down(redis, jobs, 100_000, EVERY_SECOND, "{tasks}:in")
    settings = jobs.settings(push=Push("{tasks}:in", 1), catchup="all", catchup_window=1600)
    for _ in range(3):
        jobs.run(settings)

    async def enough() -> bool:
        return await redis.llen("{tasks}:in") > 1600

    await wait_until(enough, "all of them")
    await jobs.stop()
    status = await jobs.status()
    instants = await fired(redis, jobs, "{tasks}:in")
    assert len(instants) == 1000
    assert_each_second_once(instants)
    assert instants == sorted(instants)
    assert status.counts["missed"] + status.counts["success"] == instants[-1] - since
    assert status.counts["success"] == await redis.llen("{tasks}:in")


async def test_a_job_never_seen_before_has_missed_nothing(redis: Redis, jobs: Jobs) -> None:
    before = time.time()
    jobs.run(jobs.settings(catchup="all"))
    await wait_until(lambda: cron_jobs.calls, "its first instant")
    await jobs.stop()
    # Nor has one whose schedule is another one.
    await been_down(redis, jobs, 600, schedule="0 * * * *")
    jobs.run(jobs.settings(catchup="all"))
    count = len(cron_jobs.calls)
    await wait_until(lambda: len(cron_jobs.calls) > count, "its first instant")
    await jobs.stop()
    assert all(at.timestamp() >= int(before) for at in cron_jobs.calls)


async def test_an_event_loop_that_was_blocked(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process could not fire others have: it looks, and does not call it missed."""
    monkeypatch.setattr("redis_worker.cron.missed.LATE", 4000)
    monkeypatch.setattr("redis_worker.cron.job.LATE", 4000)
    process = jobs.process(jobs.settings("remember"))
    await jobs.until(lambda status: status.counts.get("success"), "a first instant")
    jobs.run(jobs.settings("remember"))
    await asyncio.sleep(0.1)
    time.sleep(6)
    status = await jobs.until(lambda status: status.counts["success"] >= 10, "more of them")
    await jobs.stop()
    assert "missed" not in status.counts
    await process.end()


# What becomes of a run


async def once(jobs: Jobs, function: str, **options: Any) -> tuple[str, str | None]:
    outcome, error, _ = await jobs.make(jobs.settings(function, NEVER_YET, **options)).run_once()
    return outcome, error


async def test_a_failure_is_an_outcome_and_a_line(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "redis_worker")
    heard: list[tuple[str, float]] = []
    job = jobs.run(jobs.settings("fail"), on_outcome=lambda *told: heard.append(told))
    status = await jobs.until(lambda status: status.counts.get("error", 0) >= 2, "two failures")
    assert job.condition == "running"
    await jobs.stop()
    assert (status.outcome, status.error) == ("error", "ValueError: out of cheese")
    assert {outcome for outcome, _ in heard} == {"error"}
    lines = [record.getMessage() for record in caplog.records if record.name == "redis_worker"]
    assert len(lines) == len(heard)
    assert all(line.startswith("cron job job: 2") and line.endswith(": ValueError: out of cheese") for line in lines)


async def test_the_traceback_is_for_who_wants_it(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "redis_worker")
    assert await once(jobs, "fail") == ("error", "ValueError: out of cheese")
    assert "Traceback (most recent call last)" in caplog.text


async def test_a_job_that_calls_exit_has_failed(jobs: Jobs) -> None:
    assert await once(jobs, "leave") == ("error", "SystemExit: gone")


async def test_a_plain_function_that_returns_a_coroutine_has_it_awaited(jobs: Jobs) -> None:
    assert await once(jobs, "not_async") == ("success", None)
    assert len(cron_jobs.calls) == 1


async def test_retries(jobs: Jobs) -> None:
    slight: dict[str, Any] = {"retry_backoff": 0.01, "retry_backoff_max": 0.02}
    assert await once(jobs, "recover", retries=5, **slight) == ("success", None)
    assert len(cron_jobs.calls) == 3
    cron_jobs.calls.clear()
    assert await once(jobs, "fail", retries=2, **slight) == ("error", "ValueError: out of cheese")
    assert len(cron_jobs.calls) == 3
    cron_jobs.calls.clear()
    assert await once(jobs, "reject", retries=2, **slight) == ("error", "Reject: never")
    assert await once(jobs, "once_more") == ("success", None)
    assert len(cron_jobs.calls) == 2
    status = await jobs.status()
    assert status.counts == {"success": 2, "error": 2}


async def test_a_stop_does_not_wait_for_another_try(jobs: Jobs) -> None:
    jobs.run(jobs.settings("fail", retries=1, retry_backoff=60.0))
    await wait_until(lambda: cron_jobs.calls, "the first try")
    await jobs.stop()
    assert (await jobs.status()).outcome == "error"


async def test_the_time_limit_of_a_coroutine(jobs: Jobs) -> None:
    assert await once(jobs, "for_ever", timeout=0.1) == ("timeout", "it exceeded its time limit")
    assert cron_jobs.calls == ["cancelled"]
    cron_jobs.calls.clear()
    await once(jobs, "for_ever", timeout=0.1, retries=2, retry_backoff=0.01)
    assert cron_jobs.calls == ["cancelled"] * 3
    status = await jobs.status()
    assert (status.counts, status.running) == ({"timeout": 2}, 0)


async def test_a_thread_past_its_time_limit_counts_as_running_until_it_ends(redis: Redis, jobs: Jobs) -> None:
    job = jobs.make(jobs.settings("stubborn", NEVER_YET, timeout=0.5, retries=2, retry_backoff=0.01), lease=9.0)
    running = asyncio.create_task(job.run_once())
    status = await jobs.until(lambda status: status.outcome == "timeout by hand", "the time limit")
    assert status.running == 1

    async def end_of_lease() -> float:
        [(_, end)] = await redis.zrange(CronKeys(cron_stem(jobs.app, "job", None)).running, 0, -1, withscores=True)
        return float(end)

    before = await end_of_lease()

    async def renewed() -> bool:
        return await end_of_lease() > before

    await wait_until(renewed, "its lease to be renewed")
    assert (await jobs.status()).running == job.running == 1
    assert await once(jobs, "remember") == ("skipped", "another run is in progress")
    cron_jobs.gate.set()
    assert (await running).outcome == "timeout"
    status = await jobs.status()
    assert (status.running, status.counts) == (0, {"timeout": 1})
    assert cron_jobs.calls == ["begin", "end"]


async def test_cancelled(jobs: Jobs) -> None:
    job = jobs.run(jobs.settings("for_ever"))
    await jobs.until(lambda status: status.running == 1, "the run")
    job.cancel()
    await jobs.ended()
    assert cron_jobs.calls == ["cancelled"]
    status = await jobs.status()
    assert (status.outcome, status.running, status.counts["cancelled"]) == ("cancelled", 0, 1)
    # The same for whoever runs it.
    job = jobs.run(jobs.settings("for_ever"))
    await jobs.until(lambda status: status.running == 1, "the run")
    [(_, task)] = jobs.running
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await jobs.ended()
    jobs.running.clear()
    assert (await jobs.status()).counts["cancelled"] == 2


async def test_a_thread_cannot_be_cancelled_and_is_not_waited_for(redis: Redis, jobs: Jobs) -> None:
    job = jobs.run(jobs.settings("stubborn"), lease=1.0)
    await jobs.until(lambda status: status.running == 1, "the run")
    job.cancel()
    await jobs.ended()
    status = await jobs.status()
    assert (status.outcome, status.error) == ("cancelled", "it was cancelled; its thread continues")
    await jobs.until(lambda status: status.running == 0, "its lease to end")
    cron_jobs.gate.set()
    # Who notices that its lease has ended does not call it lost: its outcome is known.
    assert await once(jobs, "remember") == ("success", None)
    assert "lost" not in (await jobs.status()).counts


async def test_a_stop_waits_for_what_runs(jobs: Jobs) -> None:
    job = jobs.run(jobs.settings("slow"))
    await wait_until(begun, "the run")
    job.stop()
    assert (job.condition, job.running) == ("stopping", 1)
    cron_jobs.gate.set()
    await jobs.ended()
    assert [what for what, _ in cron_jobs.calls] == ["begin", "end"]
    assert (await jobs.status()).outcome == "success"


# By hand


async def test_by_hand(redis: Redis, jobs: Jobs) -> None:
    outcome = await jobs.make(jobs.settings("remember", NEVER_YET, timezone="Asia/Tokyo")).run_once()
    assert outcome[:2] == ("success", None)
    [at] = cron_jobs.calls
    assert at.utcoffset().total_seconds() == 9 * 3600
    assert abs(at - datetime.now(UTC)).total_seconds() < 60
    status = await jobs.status()
    assert (status.outcome, status.schedule, status.timezone) == ("success by hand", NEVER_YET, "Asia/Tokyo")
    assert await fired(redis, jobs) == []


async def test_by_hand_beside_a_run(jobs: Jobs) -> None:
    first = asyncio.create_task(jobs.make(jobs.settings("slow", NEVER_YET)).run_once())
    await jobs.until(lambda status: status.running == 1, "the first run")
    assert await once(jobs, "remember") == ("skipped", "another run is in progress")
    assert await once(jobs, "remember", overlap="allow") == ("success", None)
    waiting = asyncio.create_task(once(jobs, "remember", overlap="queue"))
    await asyncio.sleep(0.1)
    assert len(cron_jobs.calls) == 2
    cron_jobs.gate.set()
    assert await waiting == ("success", None)
    assert (await first).outcome == "success"


async def test_a_push_by_hand(redis: Redis, jobs: Jobs) -> None:
    job = jobs.make(jobs.settings(schedule=NEVER_YET, push=Push("{tasks}:in", [1, 2])))
    assert (await job.run_once()).outcome == "success"
    [raw] = await redis.lrange("{tasks}:in", 0, -1)
    assert json.loads(raw)["task"] == [1, 2]
    assert abs(json.loads(raw)["emit_ts"] - time.time()) < 60
    assert (await jobs.status()).outcome == "success by hand"


async def test_arguments_and_context(jobs: Jobs) -> None:
    cron_jobs.BRAND.set("hot")
    assert await once(jobs, "brand", arguments={"word": "x", "end": "?"}) == ("success", None)
    assert cron_jobs.calls == [("hot", "x?")]


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"job": "tests.cron_jobs:nothing"},
            "the job 'tests.cron_jobs:nothing': module tests.cron_jobs has no function",
        ),
        ({"job": "tests.cron_jobs"}, "write it as module:function"),
        ({"job": "tests.cron_jobs:two"}, "needs the argument 'other'"),
        ({"job": "tests.cron_jobs:by_name"}, "needs the argument 'what'"),
        ({"job": "tests.cron_jobs:brand", "arguments": {"wort": 1}}, "has no argument 'wort'; did you mean word?"),
        ({"job": "tests.cron_jobs:two", "arguments": {"at": 1}}, "must take the instant, 'other', as its first"),
        ({"job": "tests.cron_jobs:remember", "push": Push("a", 1)}, "a function to run or a task to push"),
        ({}, "a function to run or a task to push"),
        ({"push": Push("a", 1), "overlap": "sometimes"}, "unknown overlap 'sometimes'"),
        ({"push": Push("a", 1), "catchup": "some"}, "unknown catchup 'some'"),
        ({"push": Push("a", 1), "timeout": 0}, "the time limit must be above 0 seconds"),
        ({"push": Push("a", 1), "retries": -1}, "retries must not be negative"),
        ({"push": Push("a", 1), "retry_backoff": 0}, "the retry backoff must be above 0"),
        ({"push": Push("a", 1), "name": "a/b"}, "contain a slash"),
    ],
)
async def test_settings_that_make_no_job(options: dict[str, Any], message: str) -> None:
    store = CronStore("redis://127.0.0.1:1")
    with pytest.raises(ConfigurationError) as caught:
        CronJob(JobSettings(**{"name": "job", "app": "app", "schedule": EVERY_SECOND, **options}), store)
    assert message in str(caught.value)
    await store.close()
