"""A worker as a process that is killed at one of its calls (see crashes.py), for test_crash_points.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from redis_worker import Message, Reject, Retry, TopicWorker, WorkerPool, processor
from redis_worker.ports import Observer
from redis_worker.vocabulary.task import Outcome
from tests.crashes import serve

TOPIC = "crashes"
TASKS = ("retry", "reject", "delayed")
"""Ids of the tasks of a life, which say what becomes of them."""


def work(arguments: list[Any]) -> int:
    """Do what the task asks for, and leave a mark."""
    how, folder = arguments
    if how == "reject":
        raise Reject("not wanted")
    failed = Path(folder) / "failed"
    if how == "retry" and not failed.exists():
        failed.touch()
        raise Retry(delay=timedelta(milliseconds=20))
    with (Path(folder) / "handled").open("a") as file:
        file.write(f"{how}\n")
    return os.getpid()


@processor(execution="inline")
def inline(arguments: list[Any]) -> int:
    return work(arguments)


@processor
async def coroutine(arguments: list[Any]) -> int:
    await asyncio.sleep(0)
    return work(arguments)


@processor(execution="thread")
def thread(arguments: list[Any]) -> int:
    return work(arguments)


@processor(execution="process")
def process(arguments: list[Any]) -> int:
    return work(arguments)


EXECUTIONS = {"inline": inline, "coroutine": coroutine, "thread": thread, "process": process}


class Watch(Observer):
    """An observer that stops a worker when all tasks have ended, and keeps what was claimed."""

    def __init__(self) -> None:
        self.claims: list[Any] = []
        self.ended = 0
        self.done = asyncio.Event()

    def claimed(self, deliveries: Sequence[Any]) -> None:
        self.claims += deliveries

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        self.ended += sum(1 for outcome in outcomes if outcome.again is None)
        if self.ended >= len(TASKS):
            self.done.set()


def pool(url: str, execution: str, watch: Watch, lease: float) -> WorkerPool:
    return WorkerPool(
        *(url, "in", "out", "list", EXECUTIONS[execution], 4),
        observers=[watch],
        lease=lease,
        retries=2,
        retry_backoff=0.02,
    )


def topic_worker(url: str, kind: str, watch: Watch, lease: float) -> TopicWorker:
    worker = TopicWorker(url, observers=[watch], lease=lease)
    options: dict[str, Any] = {"retries": 2, "retry_backoff": 0.02}

    async def handle(message: Message) -> None:
        work(message.data)

    async def handle_all(messages: list[Message]) -> dict[str, Exception]:
        failed: dict[str, Exception] = {}
        for message in messages:
            try:
                work(message.data)
            except (Reject, Retry) as error:
                failed[message.id] = error
        return failed

    if kind == "batch":
        worker.batch_handler(TOPIC, size=len(TASKS), within=0.05, **options)(handle_all)
    elif kind == "topic-thread":
        worker.handler(TOPIC, **options)(lambda message: work(message.data))
    else:
        worker.handler(TOPIC, idempotent=kind == "idempotent", **options)(handle)
    return worker


def worker_of(life: str, url: str, watch: Watch, lease: float) -> WorkerPool | TopicWorker:
    """Return a worker for a life such as `thread`, `topic` or `idempotent`."""
    return pool(url, life, watch, lease) if life in EXECUTIONS else topic_worker(url, life, watch, lease)


async def live(life: str, url: str) -> None:
    """Work until all tasks have ended."""
    watch = Watch()
    worker = worker_of(life, url, watch, lease=60)
    running = asyncio.create_task(worker.run())
    await watch.done.wait()
    worker.stop()
    await running


def main() -> None:
    serve(live)
